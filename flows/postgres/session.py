"""New sessions with fixed settings, whatever the role, the database and the machine set."""

from collections.abc import Mapping
from secrets import token_hex
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

from flows.errors import ConfigurationError
from flows.postgres import pooler

# The setting that holds each session's token. Poolers share sessions between clients; a client
# that reads another token than before has been given another session.
TOKEN = "elt.session"  # noqa: S105 (a setting's name)

# Postgres notices a lost client after a minute, idle (30 + 3 * 10 s) or not, and ends its session
# and its locks. Unix sockets ignore these settings and do not need them.
KEEPALIVES = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# Settings that our SQL or its speed depends on; roles and databases may have others.
# Omitted: search_path, because our statements use qualified names and a pinned column may have a
# type of any schema; default_transaction_read_only, because Postgres names it in its error.
SETTINGS = {
    "quote_all_identifiers": "off",  # names of types and views are read back and compared
    "standard_conforming_strings": "on",  # a backslash in a literal is a backslash
    "DateStyle": "ISO, MDY",  # dates and times become text, and are read from it
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",  # doubles become text that reads back as the same double
    "default_transaction_isolation": "read committed",  # a statement sees what was committed before
    "jit": "off",  # compiling a merge's plan, which is used once, may take a second
    **KEEPALIVES,
}
# Timeouts of sessions and statements that a role or a database may set for interactive users. A
# load takes as long as its API does, and a retry would not help.
TIMEOUTS = (
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
)
_MARK = """
select set_config(%s, %s, false), pg_backend_pid(), current_setting('server_encoding')
"""
# Timeouts in the URL (`?options=-c statement_timeout=…`) are meant for this project, and stay.
_SET = """
select set_config(name, '0', false) from pg_settings
where name = any(%s) and setting <> '0' and source <> 'client';
select set_config(name, value, false) from unnest(%s::text[], %s::text[]) as given (name, value)
"""


def connect(arguments: Mapping[str, Any]) -> Connection:
    """A new session that is not shared, with its token and our settings.

    Raises:
        psycopg2.OperationalError: when Postgres does not answer, or refuses the login.
        ConfigurationError: when a pooler shares the session, or the database can't hold every text.
        UnavailableError: when a pooler has too few sessions.
    """
    connection, is_pooled = _connected(arguments)
    if is_pooled:
        connection.close()  # otherwise the check would need a third connection
        pooler.check(arguments)
        connection, _ = _connected(arguments)
    configure(connection, SETTINGS)
    connection.autocommit = False
    return connection


def _connected(arguments: Mapping[str, Any]) -> tuple[Connection, bool]:
    """A session in autocommit with its token, and whether it comes from a pooler.

    At login Postgres sends its real process id; a pooler sends an invented number.
    """
    connection: Connection = psycopg2.connect(**arguments)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(_MARK, [TOKEN, token_hex(16)])
        [(_, process_id, encoding)] = cursor.fetchall()
    if encoding != "UTF8":
        connection.close()
        raise _unfit(encoding, arguments["dbname"])
    return connection, connection.info.backend_pid != process_id


def configure(connection: Connection, settings: Mapping[str, str]) -> None:
    """Apply the settings and disable other timeouts for the whole session, in one round trip."""
    with connection.cursor() as cursor:
        cursor.execute(_SET, [list(TIMEOUTS), list(settings), list(settings.values())])


def _unfit(encoding: str, database: str) -> ConfigurationError:
    return ConfigurationError(
        f"The database {database!r} has the encoding {encoding}, which can't hold every text. "
        "Create another one (create database … encoding 'UTF8' template template0), and use it "
        "in the warehouse's URL."
    )
