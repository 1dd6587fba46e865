"""`make reset`: delete all rows of a resource on this machine; its next load reads everything."""

import argparse
import sys
from contextlib import closing

from commands import local_warehouse
from commands.local_warehouse import add_database_arguments, database_name
from flows import sources
from flows.errors import EltError
from flows.load.reset import reset


def main() -> int:
    """Reset the table in the local database; 1 with a readable reason if that fails."""
    parser = argparse.ArgumentParser(prog="make reset", description=__doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--resource", required=True)
    add_database_arguments(parser)
    arguments = parser.parse_args()
    try:
        source = sources.find(arguments.source)
        resource = source.resource(arguments.resource)
        database = database_name(arguments.api, arguments.scale)
        with (
            local_warehouse.warehouse({}, arguments.home, database) as warehouse,
            closing(warehouse.connect()) as connection,
        ):
            reset(connection, source.name, resource.name, bool(resource.personal))
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    print(f"raw_{source.name}.{resource.name} is empty; its next load reads everything.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
