"""Deletes old entries of the ledger that no load and no build will ask for."""

from psycopg2.extensions import cursor as Cursor

# So many in one transaction, which takes less than 50 ms, and so many transactions in one run.
MOST_DELETED = 200
MOST_TRANSACTIONS = 50

# There stay: the newest loads of each partition and kind, open rejects, and what others refer to.
_DELETE = """
with old as (
    select load_id
    from elt.loads as old
    where
        source = %(source)s
        and ended_at < now() - make_interval(days => %(days)s)
        and not exists (
            select from elt.partitions as newest
            where
                (newest.source, newest.resource) = (old.source, old.resource)
                and newest.partition = old.partition
                and old.load_id in (
                    newest.load_id, succeeded_by, grouped_by, backfilled_by,
                    loaded_by, stored_by, deleted_by
                )
        )
        and (
            not exists (select from elt.schema_changes where schema_changes.load_id = old.load_id)
            or exists (
                select from elt.partitions as newest
                where
                    (newest.source, newest.resource) = (old.source, old.resource)
                    and deleted_by > old.load_id
            )
        )
        and not exists (
            select from elt.checkpoints where checkpoints.load_id = old.load_id
        )
        and not exists (
            select from elt.checkpoints
            where
                (checkpoints.source, checkpoints.resource, checkpoints.partition)
                = (old.source, old.resource, old.partition)
                and begun_by <= old.load_id
        )
        and not exists (
            select from elt.rejects
            where rejects.load_id = old.load_id and replayed_by is null
        )
        and not exists (
            select from elt.rejects
            where replayed_by = old.load_id and rejects.load_id <> old.load_id
        )
        and not exists (
            select from elt.loads as replay where replay.replays = old.load_id
        )
    order by ended_at
    limit %(most)s
),

without_rejects as (
    delete from elt.rejects using old where rejects.load_id = old.load_id
),

without_changes as (
    delete from elt.schema_changes using old where schema_changes.load_id = old.load_id
)

delete from elt.loads using old where loads.load_id = old.load_id
"""


def delete_old(cursor: Cursor, source: str, days: int) -> int:
    """Delete a source's entries that ended more than `days` ago; returns how many.

    Their rejects and schema changes go with them. Open rejects stay, with their loads.
    """
    cursor.execute(_DELETE, {"source": source, "days": days, "most": MOST_DELETED})
    return cursor.rowcount
