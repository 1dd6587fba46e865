"""Locks: the keys of builds' advisory locks, bounded waits, and the sessions that hold a lock."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import sleep

import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from flows.errors import UnavailableError

BUILD_KEY = "elt:build"  # held by the one dbt build of a warehouse
# While a change waits for a table, all new readers of the table queue behind it.
TIMEOUT_SECONDS = 10.0
# Another load may be building a primary key in its transaction.
LONG_TIMEOUT_SECONDS = 600.0
# Readers get through in the pauses between two attempts.
PAUSES_SECONDS = (2.0, 5.0)
REMEDY = "Wait for it to end, or end it ({}), then run this again."

_HOLDERS = """
select
    pid,
    usename,
    nullif(application_name, ''),
    host(client_addr),
    state,
    to_char(state_change at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
from pg_stat_activity
where pid <> pg_backend_pid() and pid in (
    select pid from pg_locks
    where granted and database = (select oid from pg_database where datname = current_database())
        and (
            locktype = 'relation' and relation in (
                select to_regclass(name) from unnest(%(tables)s::text[]) as given (name)
            ) and (%(readers)s or mode <> 'AccessShareLock')
            or locktype = 'advisory' and objsubid = 1
            and (classid::bigint << 32 | objid::bigint) in (
                select hashtextextended(key, 0) from unnest(%(keys)s::text[]) as given (key)
            )
        )
)
order by state_change
"""
_LIMIT = "select set_config('lock_timeout', %s, true)"


def set_timeout(cursor: Cursor) -> None:
    """Limit each wait for a lock in this transaction to `TIMEOUT_SECONDS`."""
    cursor.execute(_LIMIT, [milliseconds(TIMEOUT_SECONDS)])


def milliseconds(seconds: float) -> str:
    """A duration as a value of Postgres' settings."""
    return f"{seconds * 1000:.0f}ms"


def with_retries(
    cursor: Cursor, tables: Sequence[sql.Identifier], change: Callable[[], None]
) -> None:
    """Make a change that needs exclusive locks on tables; retry while other sessions hold locks.

    Raises:
        UnavailableError: when they hold them for too long; the message names the sessions.
    """
    for pause in PAUSES_SECONDS:
        if _is_done(cursor, change):
            return
        sleep(pause)
    if not _is_done(cursor, change):
        names = ", ".join(".".join(table.strings) for table in tables)
        raise UnavailableError(
            f"Can't change {names}, because another session uses it: "
            f"{holders(cursor, tables, readers=True)}"
        )


def _is_done(cursor: Cursor, change: Callable[[], None]) -> bool:
    """Make the change; False if a lock timeout ended it, after a rollback to its start."""
    cursor.execute("savepoint before_change")
    set_timeout(cursor)
    try:
        change()
    except psycopg2.errors.LockNotAvailable:
        cursor.execute("rollback to savepoint before_change")
        return False
    cursor.execute("release savepoint before_change")
    return True


def lock(cursor: Cursor, key: str) -> None:
    """Take an advisory lock for the transaction; only loads take it, and only briefly."""
    cursor.execute(
        "select set_config('lock_timeout', %s, true),"
        " pg_advisory_xact_lock(hashtextextended(%s, 0)), set_config('lock_timeout', %s, true)",
        [milliseconds(LONG_TIMEOUT_SECONDS), key, milliseconds(TIMEOUT_SECONDS)],
    )


def trial_key(name: str) -> str:
    """The key of the advisory lock that the trial build of that name holds."""
    return f"elt:trial:{name}"


def hold(connection: Connection, key: str) -> None:
    """Wait for an advisory lock; the session, in autocommit from now on, holds it to its end."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [key])


def try_to_hold(connection: Connection, key: str) -> bool:
    """As `hold`, but return False at once if another session holds the lock."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", [key])
        return cursor.fetchall() == [(True,)]


def release(connection: Connection, key: str) -> None:
    """Release an advisory lock at once; Postgres ends a closed session only some time later.

    A session that is lost has released it already.
    """
    lost = (psycopg2.OperationalError, psycopg2.InterfaceError)
    with suppress(*lost), connection.cursor() as cursor:
        cursor.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", [key])


def holders(
    cursor: Cursor,
    tables: Sequence[sql.Composable] = (),
    keys: Sequence[str] = (),
    readers: bool = False,
) -> str:
    """The sessions that hold locks on tables, or advisory locks of these keys, and a remedy.

    Sessions that only read the tables are included only with `readers`: they block no writes.
    Details that Postgres hides from this role are omitted.
    """
    names = [table.as_string(cursor) for table in tables]
    cursor.execute(_HOLDERS, {"tables": names, "keys": list(keys), "readers": readers})
    found = cursor.fetchall()
    if not found:
        return "a session that has since ended. Run this again."
    ends = ", ".join(f"select pg_terminate_backend({pid})" for pid, *_ in found)
    return f"{'; '.join(_describe(*row) for row in found)}. {REMEDY.format(ends)}"


def _describe(
    pid: int,
    user: str | None,
    application: str | None,
    host: str | None,
    state: str | None,
    since: str | None,
) -> str:
    """`process 4711 (user bi, application psql, host 10.0.0.5, idle since 2026-11-26 …)`."""
    parts = {"user ": user, "application ": application, "host ": host}
    details = [f"{name}{value}" for name, value in parts.items() if value]
    details += [f"{state} since {since}"] if state and since else []
    return f"process {pid} ({', '.join(details)})"
