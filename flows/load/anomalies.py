"""Anomalies: what is unusual about a load that did not fail, compared with the loads before it.

They are noted in the transaction that ends the load, so each is noted once, and never fails a load.
They name columns and fields, and quote no value of a record.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from flows.deletes import DELETED_AT
from flows.load.ledger import Address
from flows.load.table_schema import ColumnChange
from flows.redaction import redact
from flows.source import Resource

# So many loads make something usual.
FEWEST_LOADS = 3
# A smaller difference is no anomaly, and a smaller load says nothing of its fields.
FEWEST_RECORDS = 100
# The median is that of so many loads on the same weekday, among so many loads before.
MOST_COMPARED = 8
MOST_SEARCHED = 400

# Ordered as an index is: by load_id alone, Postgres could read all loads of other partitions.
_COMPARE = """
with own as (
    update elt.loads set is_comparable = true where load_id = %(load_id)s
    returning extracted, is_group, started_at at time zone 'UTC' as started_at
),

recent as materialized (
    select load_id, extracted, is_group, is_comparable, started_at at time zone 'UTC' as started_at
    from elt.loads
    where
        (source, resource, partition) = (%(source)s, %(resource)s, %(partition)s)
        and load_id < %(load_id)s
    order by source desc, resource desc, partition desc, load_id desc
    limit %(searched)s
),

previous as (
    select recent.load_id
    from recent
    inner join own on recent.is_group = own.is_group
    where recent.is_comparable
    order by recent.load_id desc
    limit 1
),

usual as (
    select recent.extracted
    from recent
    inner join own on recent.is_group = own.is_group
    where
        recent.is_comparable
        and extract(isodow from recent.started_at) = extract(isodow from own.started_at)
    order by recent.load_id desc
    limit %(compared)s
)

select
    own.extracted,
    trim(to_char(own.started_at, 'Day')),
    count(usual.extracted),
    percentile_disc(0.5) within group (order by usual.extracted),
    exists (
        select from elt.anomalies where load_id = (select load_id from previous) and kind = 'volume'
    )
from own
left join usual on true
group by own.extracted, own.started_at
"""
_FIELDS = (
    "select fields from elt.usual_fields where (source, resource, partition)"
    " = (%(source)s, %(resource)s, %(partition)s)"
)
_SAVE_FIELDS = (
    "insert into elt.usual_fields (source, resource, partition, fields)"
    " values (%(source)s, %(resource)s, %(partition)s, %(fields)s)"
    " on conflict (source, resource, partition) do update set fields = excluded.fields"
    " where usual_fields.fields <> excluded.fields"
)
_ADD = "insert into elt.anomalies (load_id, kind, field, usual, description, told_at) values %s"
_ROW = "(%s, %s, %s, %s, %s, case when %s then clock_timestamp() end)"
_TELL = """
update elt.anomalies set told_at = clock_timestamp()
from elt.loads
where loads.load_id = anomalies.load_id and loads.source = %s and told_at is null
returning anomaly_id, loads.source, loads.resource, loads.partition, description
"""


@dataclass(frozen=True)
class Anomaly:
    """One row of `elt.anomalies`.

    Attributes:
        field: a field of the API, or a column of the raw table; None for the whole load.
        usual: the usual number of records; None if the anomaly is another.
        is_known: it goes on since the load before, for which it was told.
    """

    kind: str
    description: str
    field: str | None = None
    usual: int | None = None
    is_known: bool = False


def add_schema_changes(cursor: Cursor, load_id: int, changes: Sequence[ColumnChange]) -> None:
    """Note columns that a load added or widened; not that of marks, which the declaration adds."""
    told = [change for change in changes if change.column != DELETED_AT]
    _add(cursor, load_id, [_schema_change(change) for change in told])


def _schema_change(change: ColumnChange) -> Anomaly:
    column = redact(change.column)
    if change.old_type is None:
        return Anomaly("schema_change", f"new column {column}: {change.new_type}", column)
    types = f"{change.old_type} -> {change.new_type}"
    return Anomaly("schema_change", f"column {column}: {types}", column)


def compare(
    cursor: Cursor,
    load_id: int,
    address: Address,
    resource: Resource,
    filled: Collection[str] | None,
) -> None:
    """Compare a load that has read everything with the usual ones, in its last transaction.

    `filled` are the fields that had a value in any record; None if that is unknown. A resource
    whose number of records is never unusual is not looked at.
    """
    factor = resource.told_factor
    if factor == math.inf:
        return
    limits = {"searched": MOST_SEARCHED, "compared": MOST_COMPARED}
    cursor.execute(_COMPARE, {**vars(address), "load_id": load_id, **limits})
    [(extracted, weekday, loads, usual, is_known)] = cursor.fetchall()
    found = []
    if loads >= FEWEST_LOADS and is_unusual(extracted, usual, factor):
        text = f"{extracted:,} records; the median of the last {loads} {weekday}s is {usual:,}"
        found.append(Anomaly("volume", text, usual=usual, is_known=is_known))
    if filled is not None and extracted >= FEWEST_RECORDS:
        names = [_storable(name) for name in filled]
        found += [
            Anomaly(
                "vanished_field",
                f"field {name}: no value in {extracted:,} records; the loads before had some",
                name,
            )
            for name in _vanished(cursor, address, names)
        ]
    _add(cursor, load_id, found)


def is_unusual(extracted: int, usual: int, factor: float) -> bool:
    """Whether a number of records is more than `factor` times the usual one, or as much less."""
    is_far = extracted > usual * factor or extracted < usual / factor
    return is_far and abs(extracted - usual) >= FEWEST_RECORDS


def _vanished(cursor: Cursor, address: Address, filled: Sequence[str]) -> list[str]:
    """The fields that usually have a value and now have none; notes what is usual from now on."""
    cursor.execute(_FIELDS, vars(address))
    rows = cursor.fetchall()
    before: Mapping[str, int] = rows[0][0] if rows else {}
    after = {name: min(before.get(name, 0) + 1, FEWEST_LOADS) for name in filled}
    if after != before:
        cursor.execute(_SAVE_FIELDS, {**vars(address), "fields": json.dumps(after)})
    return sorted(name for name in before if before[name] >= FEWEST_LOADS and name not in after)


def _storable(name: str) -> str:
    """A field's name as Postgres can store it; it may repeat a secret."""
    return redact(name).encode(errors="backslashreplace").decode().replace("\0", "\\0")


def _add(cursor: Cursor, load_id: int, found: Sequence[Anomaly]) -> None:
    rows = [
        (load_id, each.kind, each.field, each.usual, each.description, each.is_known)
        for each in found
    ]
    if rows:
        execute_values(cursor, _ADD, rows, _ROW)


def of_loads(cursor: Cursor, loads: Sequence[int]) -> dict[int, list[str]]:
    """What is unusual about loads, by load."""
    cursor.execute(
        "select load_id, description from elt.anomalies where load_id = any(%s)"
        " order by anomaly_id",
        [list(loads)],
    )
    found: dict[int, list[str]] = {}
    for load_id, description in cursor:
        found.setdefault(load_id, []).append(description)
    return found


def tell(cursor: Cursor, source: str) -> list[str]:
    """A source's anomalies that nobody was told of, each with its load; now they count as told.

    Of runs that end at the same time, one gets each of them.
    """
    cursor.execute(_TELL, [source])
    rows = sorted(cursor.fetchall())
    return [
        f"{Address(source, resource, partition)}: {description}"
        for _, source, resource, partition, description in rows
    ]
