"""`make report`: one HTML page with charts of the warehouse, to open from the disk."""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from blocks.warehouse import Warehouse
from commands import local_warehouse
from commands.local_warehouse import add_database_arguments, database_name
from commands.report import page
from commands.report.page import Part
from commands.report.section import read
from commands.report.sections import SECTIONS
from flows.errors import EltError


def main() -> int:
    """Write the page and print where it is; 1 with a readable reason if that fails."""
    parser = argparse.ArgumentParser(prog="make report", description=__doc__)
    add_database_arguments(parser)
    given = parser.parse_args()
    database = database_name(given.api, given.scale)
    try:
        with local_warehouse.warehouse(os.environ, given.home, database) as warehouse:
            path = write(warehouse, given.home.resolve() / "report.html")
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    print(f"Open in a browser: {path.as_uri()}")
    return 0


def write(warehouse: Warehouse, path: Path) -> Path:
    """Write the page of what is in the warehouse, and return its path.

    Raises:
        ConfigurationError: when Postgres refuses a section's query.
    """
    parts = _parts(warehouse)
    for part in parts:
        print(f"  {part.section.title}: {len(part.rows)} rows")
    if not parts:
        print("No mart is built in this database: run `make run-local` first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.render(parts, warehouse.address.database, datetime.now(UTC)))
    return path


def _parts(warehouse: Warehouse) -> list[Part]:
    """The sections whose relations exist, all as of one moment."""
    with warehouse.transaction() as cursor:
        cursor.execute("set transaction isolation level repeatable read, read only")
        found = [(section, read(cursor, section)) for section in SECTIONS]
    return [page.part_of(section, rows) for section, rows in found if rows is not None]


if __name__ == "__main__":
    sys.exit(main())
