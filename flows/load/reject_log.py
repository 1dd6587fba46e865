"""Rejected records with their reasons (`elt.rejects`), and which of them are replayed.

Every function works inside the caller's transaction.
"""

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from flows.load.batch import Reject
from flows.load.ledger import Address
from flows.load.size_limits import reject_batches
from flows.redaction import redact, redact_record


def add(cursor: Cursor, load_id: int, rejects: Sequence[Reject]) -> None:
    """Store rejected records with their reasons."""
    for batch in reject_batches(rejects):
        rows = [(load_id, redact(reject.reason), redact_record(reject.record)) for reject in batch]
        execute_values(cursor, "insert into elt.rejects (load_id, reason, record) values %s", rows)


def forget(cursor: Cursor, source: str, resource: str) -> None:
    """Delete all rejects of a resource."""
    cursor.execute(
        "delete from elt.rejects using elt.loads"
        " where rejects.load_id = loads.load_id and (source, resource) = (%s, %s)",
        [source, resource],
    )


def open_loads(cursor: Cursor, address: Address) -> list[int]:
    """The loads of a partition with rejects that are not replayed yet, oldest first.

    A replay's own rejects belong to the load that it replays.
    """
    cursor.execute(
        "select distinct coalesce(replays, load_id) from elt.rejects join elt.loads using (load_id)"
        " where replayed_by is null and (source, resource, partition) = (%s, %s, %s) order by 1",
        [address.source, address.resource, address.partition],
    )
    return [load_id for (load_id,) in cursor]


def records_of(
    cursor: Cursor, load_id: int, after: int, limit: int, limit_bytes: int
) -> list[tuple[int, str]]:
    """Numbers and records of a load's rejects that are not replayed yet, after a given number.

    The first one is returned whatever its size.
    """
    cursor.execute(
        "select reject_id, record from ("
        " select reject_id, record, octet_length(record) as size_bytes,"
        " sum(octet_length(record)) over (order by reject_id) as sum_bytes from ("
        "  select reject_id, record from elt.rejects join elt.loads using (load_id)"
        "  where load_id in (select load_id from elt.loads where load_id = %s and replays is null"
        "   union all select load_id from elt.loads where replays = %s)"
        "  and replayed_by is null and state <> 'running'"
        "  and reject_id > %s order by reject_id limit %s"
        " ) as first) as summed"
        " where sum_bytes <= %s or sum_bytes = size_bytes order by reject_id",
        [load_id, load_id, after, limit, limit_bytes],
    )
    return cursor.fetchall()


def mark_replayed(cursor: Cursor, load_id: int, replay: int, upto: int | None) -> None:
    """Note the load that replayed a load's rejects; `upto` None means all of them."""
    cursor.execute(
        "update elt.rejects set replayed_by = %(replay)s from elt.loads"
        " where loads.load_id = rejects.load_id and rejects.load_id <> %(replay)s"
        " and (replays = %(load_id)s or replays is null and loads.load_id = %(load_id)s)"
        " and replayed_by is null"
        " and (%(upto)s::bigint is null or reject_id <= %(upto)s)",
        {"load_id": load_id, "replay": replay, "upto": upto},
    )


def supersede(cursor: Cursor, address: Address, load_id: int) -> None:
    """Close the rejects of a partition's earlier loads: this one read everything again."""
    cursor.execute(
        "update elt.rejects set replayed_by = %s from elt.loads"
        " where loads.load_id = rejects.load_id and replayed_by is null and loads.load_id < %s"
        " and (source, resource, partition) = (%s, %s, %s)",
        [load_id, load_id, address.source, address.resource, address.partition],
    )
