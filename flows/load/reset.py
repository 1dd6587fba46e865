"""Resets: the checkpoints of a resource are deleted together with its rows."""

import logging
from functools import partial

from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from flows.guards import without_secrets
from flows.load import checkpoints, ledger, ownership, reject_log
from flows.load.ledger import Address
from flows.load.partition_lock import transaction
from flows.load.table_schema import exists
from flows.postgres import locks

log = logging.getLogger(__name__)

BY_HAND = "reset by hand"

_HAS_ROWS = sql.SQL("select exists (select from {})")
_TRUNCATE = sql.SQL("truncate {}")


def forget_lost_rows(cursor: Cursor, address: Address) -> None:
    """Delete a resource's checkpoints if somebody dropped, truncated or emptied its raw table.

    Resuming from the cursor would omit all the lost rows. Call this before reading the checkpoint:
    if another partition's load has filled the table again, it has deleted the checkpoint as well.
    """
    # The ledger first: rows that it counts were committed with it, so the table shows them then.
    if not ledger.has_stored(cursor, address) or _has_rows(cursor, address.table):
        return
    reason = f"raw_{address.source}.{address.resource} was dropped or emptied"
    checkpoints.forget(cursor, address.source, address.resource, reason)
    log.warning(
        "%s: its raw table was dropped or emptied since its last load, so this load reads "
        "everything from the start (elt.resets).",
        address,
    )


@without_secrets
def reset(connection: Connection, source: str, resource: str, with_rejects: bool = False) -> None:
    """Delete all rows and checkpoints of a resource, so its next load reads everything.

    A running load of it ends as taken over and stores nothing more. Its rejects stay, unless
    `with_rejects`: those of a resource with personal fields may hold the original values.

    Raises:
        UnavailableError: another session holds the table longer than a load would wait.
        ConfigurationError: no load made the table.
    """
    with transaction(connection) as cursor:
        ledger.prepare(cursor, f"raw_{source}")
        locks.set_timeout(cursor)
        ledger.abandon(cursor, source, resource, BY_HAND)
        table = Address(source, resource, "").table
        if exists(cursor, table):
            ownership.check(cursor, table)
            truncate = partial(cursor.execute, _TRUNCATE.format(table))
            locks.with_retries(cursor, [table], truncate)
        checkpoints.forget(cursor, source, resource, BY_HAND)
        if with_rejects:
            reject_log.forget(cursor, source, resource)


def _has_rows(cursor: Cursor, table: sql.Identifier) -> bool:
    if not exists(cursor, table):
        return False
    cursor.execute(_HAS_ROWS.format(table))
    return bool(cursor.fetchall()[0][0])
