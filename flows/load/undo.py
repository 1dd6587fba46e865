"""Remove what unfinished loads of an append stored, so that their window can be read again."""

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.load import ledger
from flows.load.ledger import Address, Counts

# A replay's rows belong to the load whose rejects it loaded.
_LOADS = (
    "select load_id from elt.loads where (source, resource, partition) = (%s, %s, %s)"
    " and coalesce(replays, load_id) >= %s and load_id <> %s"
)
_DELETE = sql.SQL("delete from {} where _load_id = any(%s)")
_SUPERSEDE = (
    "update elt.rejects set replayed_by = %s where load_id = any(%s) and replayed_by is null"
)


def undo(
    cursor: Cursor, address: Address, table: sql.Identifier, begun_by: int, load_id: int
) -> None:
    """Delete the rows of all loads since `begun_by`, and close their rejects.

    The load `load_id` reads these rows again; its entry counts the deleted ones.
    """
    cursor.execute(_LOADS, [*vars(address).values(), begun_by, load_id])
    loads = [number for (number,) in cursor]
    cursor.execute(_DELETE.format(table), [loads])
    ledger.add_counts(cursor, load_id, Counts(deleted=cursor.rowcount))
    cursor.execute(_SUPERSEDE, [load_id, loads])
