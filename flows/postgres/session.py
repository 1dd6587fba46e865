"""What every session of ours begins with, whatever the role, the database and the machine set."""

from collections.abc import Mapping
from secrets import token_hex
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

from flows.errors import ConfigurationError
from flows.postgres import pooler

# The name of the setting that holds each session's own token. Poolers lend one session to several
# clients; who reads another token than before has been lent another one.
TOKEN = "elt.session"  # noqa: S105 (a setting's name)

# How Postgres notices that we are gone, and with that ends our session and its locks: after a
# minute, idle (30 + 3 * 10 s) or not. A Unix socket needs none of it and ignores it.
KEEPALIVES = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# What our SQL depends on, where `alter role … set` or `alter database … set` may say otherwise.
# Not here: search_path, because our statements qualify what they name and a pinned column may have
# a type of any schema; default_transaction_read_only, because Postgres names it in its error.
SETTINGS = {
    "quote_all_identifiers": "off",  # names of types and views are read back and compared
    "standard_conforming_strings": "on",  # a backslash in a literal is a backslash
    "DateStyle": "ISO, MDY",  # dates and times become text, and are read from it
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",  # doubles become text that reads back as the same double
    "default_transaction_isolation": "read committed",  # a statement sees what was committed before
    **KEEPALIVES,
}
# What ends a session or a statement after a time of its own, where a role or a database sets it for
# people who forget theirs. A load takes as long as its API does, and retrying it would not help.
TIMEOUTS = (
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
)
_MARK = """
select set_config(%s, %s, false), pg_backend_pid(), current_setting('server_encoding')
"""
# Those of the address itself (`?options=-c statement_timeout=…`) are meant for us, and stay.
_SET = """
select set_config(name, '0', false) from pg_settings
where name = any(%s) and setting <> '0' and source <> 'client';
select set_config(name, value, false) from unnest(%s::text[], %s::text[]) as given (name, value)
"""


def connect(arguments: Mapping[str, Any]) -> Connection:
    """A new session, of one client alone, with its token and our settings.

    Raises:
        psycopg2.OperationalError: when Postgres does not answer, or does not let us in.
        ConfigurationError: when a pooler shares the session, or the database can't hold every text.
        UnavailableError: when a pooler has too few sessions.
    """
    connection, is_pooled = _connected(arguments)
    if is_pooled:
        connection.close()  # or the check would need a third one
        pooler.check(arguments)
        connection, _ = _connected(arguments)
    configure(connection, SETTINGS)
    connection.autocommit = False
    return connection


def _connected(arguments: Mapping[str, Any]) -> tuple[Connection, bool]:
    """A session in autocommit with its token, and whether a pooler lends it.

    Postgres tells its own process id at login; a pooler tells a number that it made up.
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
    """Set all of it in one round trip, and no timeout else, for as long as the session lasts."""
    with connection.cursor() as cursor:
        cursor.execute(_SET, [list(TIMEOUTS), list(settings), list(settings.values())])


def _unfit(encoding: str, database: str) -> ConfigurationError:
    return ConfigurationError(
        f"The database {database!r} has the encoding {encoding}, which can't hold every text. "
        "Create another one (create database … encoding 'UTF8' template template0), and use it "
        "in the warehouse's URL."
    )
