"""Protects tables from loads that would replace their rows by far fewer."""

from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.errors import BadPayloadError
from flows.load import deletions
from flows.load.batch import Reject
from flows.load.merge import STAGE, Target, listed, scope_of
from flows.load.table_schema import column_types
from flows.source import Resource

_PRESENT = sql.SQL("select count(*) from {} as present where {}")
_STAGED = sql.SQL("select count(*) from (select distinct {key} from {stage}) as staged")
_STAYING = sql.SQL(
    "select count(*) from ("
    " select distinct on ({key}) {tombstone} as is_deleted"
    " from {stage} order by {key}, _ordinal desc"
    ") as staged where not is_deleted"
)


@dataclass(frozen=True)
class Replacement:
    """The number of rows that a partition has in its table, and of staged rows to replace them."""

    present: int
    staged: int

    @property
    def lost_share(self) -> float:
        """The share of the rows that the table would lose, from 0 to 1."""
        return max(self.present - self.staged, 0) / self.present if self.present else 0


def replacement(cursor: Cursor, target: Target) -> Replacement:
    """Count the rows that are there before and after: not those that are marked or will be."""
    types = column_types(cursor, target.table)
    if not types:
        return Replacement(present=0, staged=0)
    scope = scope_of(target, types) + deletions.live(types, "present")
    cursor.execute(_PRESENT.format(target.table, scope))
    [(present,)] = cursor.fetchall()
    key = [name for name in target.key if name in column_types(cursor, STAGE)]
    parts = {"key": listed("{}", key or ["_ordinal"]), "stage": STAGE}
    if target.tombstone is None:
        cursor.execute(_STAGED.format(**parts))
    else:
        cursor.execute(_STAYING.format(**parts, tombstone=target.tombstone), {})
    [(staged,)] = cursor.fetchall()
    return Replacement(present, staged)


def check(
    found: Replacement,
    resource: Resource,
    table: str,
    partition: str,
    rejected: int,
    first: Reject | None,
) -> None:
    """Refuse a replacement that removes more rows than the resource allows.

    Raises:
        BadPayloadError: ask the API's owner, or accept it for one load.
    """
    if found.lost_share <= resource.max_shrinkage:
        return
    where = f" of the partition {partition}" if partition else ""
    rejects = (
        f"{rejected} more records were rejected, the first because it {first.reason}. "
        if first
        else ""
    )
    raise BadPayloadError(
        f"{table} holds {found.present} rows{where}, and this load would leave {found.staged}: "
        f"{found.lost_share:.1%} fewer, where max_shrinkage={resource.max_shrinkage} allows "
        f"{resource.max_shrinkage:.1%}. {rejects}The table is unchanged. If the API's response is "
        "right, load once with accept_shrinkage, or raise the resource's max_shrinkage; otherwise "
        "ask the API's owner."
    )
