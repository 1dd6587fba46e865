"""Detects and refuses poolers that share sessions between clients.

Locks, temporary tables and settings belong to a session. If two transactions of a load can get two
sessions, or two clients one session, the load's lock protects nothing.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from secrets import token_hex
from select import select
from typing import Any

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ
from psycopg2.extensions import connection as Connection

from flows.errors import ConfigurationError, UnavailableError

TOKEN = "elt.probe"  # noqa: S105 (a setting's name)
WAIT_SECONDS = 10.0
ROUNDS = 4
# PgBouncer's error for `begin` in statement mode.
_NO_TRANSACTIONS = "not allowed in statement pooling mode"
_MARK = "select set_config(%s, %s, false)"
_READ = "select current_setting(%s, true)"


def check(arguments: Mapping[str, Any]) -> None:
    """Check with two connections that the pooler keeps a session for one client.

    The second connection keeps a transaction open while the first one looks for its token. The
    rounds differ in which session returns to the pool first: some poolers reuse the newest, some
    the oldest.

    Raises:
        ConfigurationError: when it shares sessions.
        UnavailableError: when it gives no second connection in time.
    """
    try:
        with _connect(arguments) as first:
            token = token_hex(16)
            first.ask(_MARK, TOKEN, token)
            with _connect(arguments) as second:
                shared = any(_is_shared(first, second, token, turn) for turn in range(ROUNDS))
    except TimeoutError:  # both had a session before, so the pooler has taken one away
        shared = True
    if shared:
        raise _refusal()


class _Client:
    """A connection with a timeout, because PgBouncer lets clients wait without one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.wait()

    def ask(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)
            self.wait()
            return cursor.fetchall() if cursor.description else []

    def wait(self) -> None:
        """Raises TimeoutError when the response takes too long."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (state := self._connection.poll()) != POLL_OK:
            watched = [self._connection]
            seconds = max(0.0, deadline - time.monotonic())
            reads, writes = (watched, []) if state == POLL_READ else ([], watched)
            if not any(select(reads, writes, [], seconds)):
                raise TimeoutError


@contextmanager
def _connect(arguments: Mapping[str, Any]) -> Iterator[_Client]:
    with closing(psycopg2.connect(**arguments, async_=True)) as connection:
        try:
            client = _Client(connection)
            client.ask("select")
        except TimeoutError:
            raise UnavailableError(
                "The pooler in front of Postgres gave no connection within "
                f"{WAIT_SECONDS:.0f} s. Allow it two for each concurrent load, one of them only "
                "for a moment, or use the server's own port in the warehouse's URL."
            ) from None
        yield client


def _is_shared(first: _Client, second: _Client, token: str, turn: int) -> bool:
    mine = [(token,)]
    try:
        if second.ask(f"begin; {_READ}", TOKEN) == mine or first.ask(_READ, TOKEN) != mine:
            return True
        second.ask("rollback")
        return turn % 2 == 0 and first.ask(_READ, TOKEN) != mine
    except psycopg2.DatabaseError as error:
        if _NO_TRANSACTIONS in str(error):
            return True
        raise


def _refusal() -> ConfigurationError:
    return ConfigurationError(
        "The pooler in front of Postgres shares sessions between clients by transaction or "
        "statement, so another client would get a load's locks and temporary tables. Nothing was "
        "written. Use the pooler's port for session mode (PgBouncer: pool_mode = session), or the "
        "server's own port, in the warehouse's URL."
    )
