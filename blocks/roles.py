"""The roles of a warehouse: who loads, who builds on that, who reads what is published."""

from pathlib import Path

from psycopg2.extensions import cursor as Cursor

LOADER = "loader"
TRANSFORMER = "transformer"
REPORTER = "reporter"
_GRANTS = Path(__file__).with_suffix(".sql").read_text()


def ensure(cursor: Cursor) -> None:
    """Create the roles of this database and give them their rights; twice is the same as once."""
    cursor.execute(_GRANTS)
