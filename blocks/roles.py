"""The roles of a warehouse: who loads, who builds on that, who reads what is published."""

from pathlib import Path

from psycopg2.errors import RaiseException
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError

LOADER = "loader"
TRANSFORMER = "transformer"
REPORTER = "reporter"
_GRANTS = Path(__file__).with_suffix(".sql").read_text()


def ensure(cursor: Cursor) -> None:
    """Create the roles of this database and give them their rights; twice is the same as once.

    Raises:
        ConfigurationError: when a role or a schema of such a name is somebody else's.
    """
    try:
        cursor.execute(_GRANTS)
    except RaiseException as error:
        said = error.diag
        raise ConfigurationError(f"{said.message_primary} {said.message_hint}") from error
