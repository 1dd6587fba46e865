"""The roles of a warehouse: one that loads, one that builds, one that reads what is published."""

from pathlib import Path

from psycopg2.errors import RaiseException
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError

LOADER = "loader"
TRANSFORMER = "transformer"
REPORTER = "reporter"
_GRANTS = Path(__file__).with_suffix(".sql").read_text()


def ensure(cursor: Cursor) -> None:
    """Create the roles of this database and grant their rights; idempotent.

    Raises:
        ConfigurationError: when a role or schema of that name belongs to somebody else.
    """
    try:
        cursor.execute(_GRANTS)
    except RaiseException as error:
        diagnostics = error.diag
        message = f"{diagnostics.message_primary} {diagnostics.message_hint}"
        raise ConfigurationError(message) from error
