"""The statements that write rows from the staging table to a raw table that has all their columns.

The stage is a temporary table; `_ordinal` numbers its rows. A merge is an idempotent upsert: it
does not rewrite identical rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.deletes import DELETED_AT, Deletes
from flows.load import deletions
from flows.load.batch import text_in
from flows.load.column_names import OWN_COLUMNS
from flows.load.deletions import Parts
from flows.load.table_schema import column_types, converted
from flows.source import Contract

Ids = Mapping[str, int | None]

STAGE = sql.Identifier("pg_temp", "stage")

_DROP_EARLIER = sql.SQL(
    "delete from {stage} as staged using ("
    " select {key}, max(_ordinal) as _ordinal from {stage} group by {key} having count(*) > 1"
    ") as latest where ({staged_key}) = ({latest_key}) and staged._ordinal < latest._ordinal"
)
_CREATE_STAGE = sql.SQL(
    "create temporary table {} (_ordinal bigint generated always as identity{})"
)
_WIDEN = sql.SQL(
    "insert into {wider} ({columns}) overriding system value"
    " select {columns} from {stage} order by _ordinal"
)
_CONTINUE_NUMBERING = sql.SQL(
    "select setval(pg_get_serial_sequence({wider}, '_ordinal'), max(_ordinal)) from {stage}"
    " having max(_ordinal) is not null"
)
# Look up rows by the key's index: the cost of hashing the table would grow with its size.
_LOOK_UP = sql.SQL(
    "select count(*), set_config('enable_hashjoin', 'off', true),"
    " set_config('enable_mergejoin', 'off', true) from {stage}"
)
_JOIN = (
    "select set_config('enable_hashjoin', 'on', true), set_config('enable_mergejoin', 'on', true)"
)
# A replay's rows are older than those that a load after the replayed one wrote.
_IS_OLDER = sql.SQL(
    "(%(replays)s::bigint is null or %(replays)s >= coalesce("
    " (select coalesce(replays, load_id) from elt.loads where load_id = present._load_id),"
    " present._load_id"
    "))"
)
_DIFFERS = sql.SQL("row({present}) is distinct from row({stored}) and {is_older} and {is_own}")
# No row is at (0,0); unlike a null it does not make a row larger than in the table.
_COMPARE = sql.SQL(
    "create temporary table differing on commit drop as"
    " select coalesce(present.ctid, '(0,0)') as _present_at, latest.*"
    " from (select {values}{ordinal} from {stage}) as latest"
    " left join {table} as present on {same_key}"
    " where present.ctid is null or {differs}"
)
_COUNT_MOVED = sql.SQL(
    "select count(*) from {table} as present"
    " join pg_temp.differing as latest on present.ctid = latest._present_at"
    " where row({present_scope}) is distinct from row({latest_scope})"
)
_UPDATE = sql.SQL(
    "update {table} as present set {assignments} from pg_temp.differing as latest"
    " where present.ctid = latest._present_at and latest._present_at <> '(0,0)'"
)
_INSERT = sql.SQL(
    "insert into {table} ({columns}) select {new} from pg_temp.differing"
    " where _present_at = '(0,0)' on conflict ({key}) do nothing"
)
_UPDATE_DIRECTLY = sql.SQL(
    "update {table} as present set {assignments} from (select {values} from {stage}) as latest"
    " where {same_key} and {differs}"
)
_INSERT_MISSING = sql.SQL(
    "insert into {table} ({columns}) select {new} from (select {values} from {stage}) as latest"
    " where not exists (select from {table} as present where {same_key})"
    " on conflict ({key}) do nothing"
)
_APPEND = sql.SQL("insert into {table} ({columns}) select {values} from {stage} order by _ordinal")
_TRY = sql.SQL(
    "insert into {table} ({columns}) select {values} from ("
    " select * from {stage} order by _ordinal desc limit %(count)s"
    ") as newest"
)
_DELETE_MISSING = sql.SQL(
    "delete from {table} as present where {scope}"
    " and not exists (select from {stage} as staged where {same_key})"
)
_DELETE = sql.SQL("delete from {table} as present where {scope}")


@dataclass(frozen=True)
class WriteCounts:
    """Rows inserted, updated and deleted in a raw table; all others were unchanged.

    Attributes:
        deleted: rows that were deleted, or marked as deleted at the API.
        moved: the updated rows that belonged to another partition before.
        all_updated: whether a merge updated every row of the staging table.
    """

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    moved: int = 0
    all_updated: bool = False


@dataclass(frozen=True)
class Target:
    """A raw table as a load sees it; the staging table replaces fields by columns.

    Attributes:
        scope: the columns and values that identify the rows of this load's partition.
        names: the columns that the resource declares, by field.
        contract: how to treat records that need a change of the table.
        deletes: how the resource learns of deletions.
        marks_missing: whether a replacement marks the rows that it would delete.
        tombstone: the condition that a staged row says that it is deleted; None if none can.
    """

    table: sql.Identifier
    key: tuple[str, ...]
    pins: Mapping[str, str]
    scope: Mapping[str, object]
    names: Mapping[str, str]
    contract: Contract = "evolve"
    deletes: Deletes | None = None
    marks_missing: bool = False
    tombstone: sql.Composable | None = None


def create_stage(cursor: Cursor) -> None:
    """Create the staging table, empty and without columns."""
    cursor.execute("drop table if exists pg_temp.stage")
    cursor.execute(_CREATE_STAGE.format(sql.Identifier("stage"), sql.SQL("")))


def recreate_stage(cursor: Cursor, added: Mapping[str, str]) -> None:
    """Recreate the staging table with additional columns, given with their types; keeps rows."""
    present = column_types(cursor, STAGE)
    wider = sql.Identifier("pg_temp", "wider")
    columns = [
        sql.SQL(", {} {}").format(sql.Identifier(name), sql.SQL(kind))
        for name, kind in {**present, **added}.items()
        if name != "_ordinal"
    ]
    cursor.execute(_CREATE_STAGE.format(sql.Identifier("wider"), sql.Composed(columns)))
    cursor.execute(_WIDEN.format(wider=wider, stage=STAGE, columns=listed("{}", present)))
    numbered = sql.Literal(wider.as_string(cursor))
    cursor.execute(_CONTINUE_NUMBERING.format(wider=numbered, stage=STAGE))
    cursor.execute("drop table pg_temp.stage")
    cursor.execute("alter table pg_temp.wider rename to stage")


def merge(
    cursor: Cursor,
    target: Target,
    ids: Ids,
    may_repeat_keys: bool = True,
    expects_updates: bool = False,
) -> WriteCounts:
    """Upsert; of rows that repeat a key, the last one counts.

    Every record has a key, so a stage without key columns has no rows. With `expects_updates`, it
    is faster if every row differs from its present one, and slower otherwise.
    """
    staged = column_types(cursor, STAGE)
    if not staged.keys() >= set(target.key):
        return WriteCounts()
    scope = [name for name in target.scope if name not in target.key and name in staged]
    parts = _merge_parts(cursor, target, staged, scope)
    may_mark = target.tombstone is not None
    if may_repeat_keys and may_mark:
        parts = deletions.in_order(cursor, parts, ids)
    elif may_repeat_keys:
        cursor.execute(_DROP_EARLIER.format(**parts))
    cursor.execute(_LOOK_UP.format(**parts), ids)
    rows = int(cursor.fetchall()[0][0])
    if expects_updates and not scope and not may_mark:
        written = _write_directly(cursor, parts, ids, rows)
    else:
        written = _write_differing(cursor, parts, ids, scope, may_mark)
    cursor.execute(_JOIN)
    return replace(written, all_updated=written.updated == rows)


def _write_differing(
    cursor: Cursor, parts: Parts, ids: Ids, scope: Sequence[str], may_mark: bool
) -> WriteCounts:
    """List what differs and where it is; then write that."""
    cursor.execute(_COMPARE.format(**parts), ids)
    moved = _count_moved(cursor, parts, scope) if scope else 0
    marked = deletions.count_marked(cursor, parts) if may_mark else 0
    cursor.execute(_UPDATE.format(**parts), ids)
    updated = cursor.rowcount
    cursor.execute(_INSERT.format(**parts), ids)
    inserted = cursor.rowcount
    cursor.execute("drop table pg_temp.differing")
    return WriteCounts(inserted, updated, marked, moved)


def _write_directly(cursor: Cursor, parts: Parts, ids: Ids, rows: int) -> WriteCounts:
    """Update at once; if that left rows out, look all up once more, for those to insert."""
    cursor.execute(_UPDATE_DIRECTLY.format(**parts), ids)
    updated = cursor.rowcount
    if updated == rows:
        return WriteCounts(updated=updated)
    cursor.execute(_INSERT_MISSING.format(**parts), ids)
    return WriteCounts(cursor.rowcount, updated)


def _count_moved(cursor: Cursor, parts: Parts, scope: Sequence[str]) -> int:
    """How many of the rows to be updated are another partition's."""
    count = _COUNT_MOVED.format(
        **parts,
        present_scope=listed("present.{}", scope),
        latest_scope=listed("latest.{}", scope),
    )
    cursor.execute(count)
    return int(cursor.fetchall()[0][0])


def append(cursor: Cursor, target: Target, ids: Ids) -> WriteCounts:
    """Insert all rows, in their order."""
    cursor.execute(_APPEND.format(**_parts(cursor, target.table)), ids)
    return WriteCounts(cursor.rowcount)


def replace_all(cursor: Cursor, target: Target, ids: Ids, may_repeat_keys: bool) -> WriteCounts:
    """Merge and delete the rows that were not sent; without a key, delete all and insert all.

    If the target `marks_missing`, it marks the rows that were not sent.
    """
    staged = column_types(cursor, STAGE)
    types = column_types(cursor, target.table)
    same_key = [
        sql.SQL("present.{} = {}").format(
            sql.Identifier(name), converted(name, staged[name], types[name])
        )
        for name in target.key
        if name in staged
    ]
    names = {
        "table": target.table,
        "stage": STAGE,
        "scope": scope_of(target, types),
        "same_key": sql.SQL(" and ").join(same_key),
    }
    if target.marks_missing:
        deleted = deletions.mark_missing(cursor, names, ids["load_id"], has_rows=bool(same_key))
    else:
        cursor.execute((_DELETE_MISSING if same_key else _DELETE).format(**names))
        deleted = cursor.rowcount
    if not same_key and not target.key:
        return replace(append(cursor, target, ids), deleted=deleted)
    written = merge(cursor, target, ids, may_repeat_keys)
    return replace(written, deleted=written.deleted + deleted)


def delete_all(cursor: Cursor, target: Target) -> sql.Composable:
    """The statement that deletes the rows of the target's partition."""
    types = column_types(cursor, target.table)
    return _DELETE.format(table=target.table, scope=scope_of(target, types))


def scope_of(target: Target, types: Mapping[str, str]) -> sql.Composable:
    """The condition that a row of the table, aliased `present`, is in the target's partition."""
    if not types.keys() >= target.scope.keys():
        return sql.SQL("false")
    conditions = [_has_value(name, types[name], value) for name, value in target.scope.items()]
    return sql.SQL(" and ").join(conditions) if conditions else sql.SQL("true")


def try_newest(cursor: Cursor, table: sql.Identifier, count: int) -> None:
    """Insert the newest rows of the stage into a table, to test whether they fit."""
    cursor.execute(_TRY.format(**_parts(cursor, table)), {"load_id": 0, "count": count})


def _parts(cursor: Cursor, table: sql.Identifier) -> dict[str, sql.Composable]:
    types = column_types(cursor, table)
    staged = column_types(cursor, STAGE)
    columns = [name for name in staged if name not in OWN_COLUMNS]
    values = [converted(name, staged[name], types[name]) for name in columns]
    return {
        "table": table,
        "stage": STAGE,
        "columns": listed("{}", [*columns, "_loaded_at", "_load_id"]),
        "values": sql.SQL(", ").join([*values, sql.SQL("now()"), sql.SQL("%(load_id)s")]),
    }


def _merge_parts(
    cursor: Cursor, target: Target, staged: Mapping[str, str], scope: Sequence[str]
) -> Parts:
    """All columns are compared and set: a field that a record lacks becomes null."""
    types = column_types(cursor, target.table)
    key = target.key
    rest = [name for name in types if name not in {*key, *OWN_COLUMNS}]
    may_mark = target.tombstone is not None
    values = [
        sql.SQL("{} as {}").format(
            _latest(name, staged, types, target.tombstone), sql.Identifier(name)
        )
        for name in [*key, *rest]
    ]
    of_tombstones: Parts = {"ordinal": sql.SQL(""), "is_own": sql.SQL("true")}
    if target.tombstone is not None:
        of_tombstones = deletions.parts(target.tombstone, staged, key, scope)
    own = sql.SQL("now(), %(load_id)s")
    set_own = sql.SQL("_loaded_at = now(), _load_id = %(load_id)s")
    stored = list(map(deletions.value_to_store, rest)) if may_mark else _each("latest.{}", rest)
    differs = _DIFFERS.format(
        present=listed("present.{}", rest),
        stored=sql.SQL(", ").join(stored),
        is_older=_IS_OLDER,
        is_own=of_tombstones["is_own"],
    )
    assigned = [
        sql.SQL("{} = {}").format(sql.Identifier(name), value)
        for name, value in zip(rest, stored, strict=True)
    ]
    return {
        "table": target.table,
        "stage": STAGE,
        "key": listed("{}", key),
        "staged_key": listed("staged.{}", key),
        "latest_key": listed("latest.{}", key),
        "values": sql.SQL(", ").join(values),
        "columns": listed("{}", [*key, *rest, "_loaded_at", "_load_id"]),
        "new": sql.SQL(", ").join([listed("{}", [*key, *rest]), own]),
        "same_key": listed("present.{0} = latest.{0}", key, " and "),
        "differs": differs,
        "assignments": sql.SQL(", ").join([*assigned, set_own]),
        **of_tombstones,
    }


def _latest(
    name: str,
    staged: Mapping[str, str],
    types: Mapping[str, str],
    tombstone: sql.Composable | None,
) -> sql.Composable:
    """A staged row's value for a column of the raw table."""
    if name == DELETED_AT and tombstone is not None:
        return deletions.marked_now(tombstone)
    if name in staged:
        return converted(name, staged[name], types[name])
    return sql.SQL("null::{}").format(sql.SQL(types[name]))


def listed(template: str, names: Iterable[str], separator: str = ", ") -> sql.Composed:
    return sql.SQL(separator).join(_each(template, names))


def _each(template: str, names: Iterable[str]) -> list[sql.Composed]:
    return [sql.SQL(template).format(sql.Identifier(name)) for name in names]


def _has_value(name: str, kind: str, value: object) -> sql.Composed:
    """The condition that a column has the value, compared in the column's type."""
    column = sql.Identifier(name)
    if value is None:
        return sql.SQL("present.{} is null").format(column)
    text = sql.Literal(text_in(value, kind))
    return sql.SQL("present.{} = {}::{}").format(column, text, sql.SQL(kind))
