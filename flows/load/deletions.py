"""The SQL of deletions: which staged rows are tombstones, which rows a complete list lacks.

A row is marked by the time in the column `_deleted_at`.
"""

from collections.abc import Mapping, Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.deletes import DELETED_AT, Tombstones

Parts = Mapping[str, sql.Composable]

MARK_TYPE = "timestamp with time zone"
JSON_TYPES = ("json", "jsonb")

_MARK = sql.SQL(
    "update {table} as present set _deleted_at = now(), _loaded_at = now(), _load_id = {load_id}"
    " where present._deleted_at is null and {scope}"
)
_MISSING = sql.SQL(" and not exists (select from {stage} as staged where {same_key})")
_COUNT_MARKED = sql.SQL(
    "select count(distinct present.ctid) from {table} as present"
    " join pg_temp.differing as latest on present.ctid = latest._present_at"
    " where present._deleted_at is null and latest._deleted_at is not null"
)
# A number may have decimals that are all zero: `0.0`, `2.00`.
_SAYS_SO = sql.SQL(r"coalesce(lower({}) !~ '^(false|-?0(\.0+)?)?$', false)")
_IS_ONE_OF = sql.SQL(
    r"coalesce({0} in ({1}) or regexp_replace({0}, '^(-?\d+)\.0+$', '\1') in ({1}), false)"
)
# A tombstone alone has no `_ordinal`: where it has no value, that of its row stays.
_KEPT = sql.SQL(
    "case when latest._ordinal is null then coalesce(latest.{0}, present.{0}) else latest.{0} end"
)
# Of a record that moved, the partition that it left may send a tombstone. A row without a value of
# the partition is older than that column.
_IS_OTHERS = sql.SQL("row({staged}) is distinct from row({latest})")
_IS_OWN = sql.SQL("(latest._ordinal is not null or coalesce(({present}) = ({latest}), true))")
# A record ends what was sent before it, and what other partitions send later.
_DROP_OUTDATED = sql.SQL(
    "delete from {stage} as staged using ("
    " select distinct on ({key}) {same}, _ordinal from {stage} where not {tombstone}"
    " order by {key}, _ordinal desc"
    ") as latest where ({staged_key}) = ({latest_key}) and (staged._ordinal < latest._ordinal"
    " or (staged._ordinal > latest._ordinal and {is_others}))"
)
_REPEATS = sql.SQL("select exists (select from {stage} group by {same} having count(*) > 1)")
_FOLDED = sql.SQL(
    "(select {folded}, max(_ordinal) filter (where not {tombstone}) as _ordinal"
    " from {stage} as _load_id group by {same}) as folded"
)
_LAST_VALUE = sql.SQL(
    "(array_agg({0} order by _ordinal desc) filter (where {0} is not null))[1] as {0}"
)
# An array would not stay apart in an array of arrays, but a whole row does. The stage has the alias
# of a column that it can't have, so no column is meant.
_LAST_ARRAY = sql.SQL(
    "((array_agg(_load_id order by _ordinal desc) filter (where {0} is not null))[1]).{0} as {0}"
)
_ORDINAL = sql.SQL(", case when not {} then _ordinal end as _ordinal")
_MARKED_SINCE = sql.SQL(
    "case when latest._deleted_at is not null"
    " then coalesce(present._deleted_at, latest._deleted_at) end"
)
_MARKED_NOW = sql.SQL("case when {} then now() end")


def is_mark(types: Mapping[str, str]) -> bool:
    """Whether a table has the column of marks; an API's field of that name has another type."""
    return types.get(DELETED_AT) == MARK_TYPE


def live(types: Mapping[str, str], alias: str) -> sql.Composable:
    """The condition, to be added to others, that a row is not marked; empty without marks."""
    template = sql.SQL(" and {}._deleted_at is null")
    return template.format(sql.Identifier(alias)) if is_mark(types) else sql.SQL("")


def tombstone(
    declared: Tombstones, names: Mapping[str, str], staged: Mapping[str, str]
) -> sql.Composable:
    """The condition that a staged row says that its record is deleted.

    For statements with arguments. `names` are the columns by field, `staged` their types.
    """
    root, _, rest = declared.field.partition(".")
    field, path = (declared.field, "") if declared.field in names else (root, rest)
    column = names.get(field, "")
    kind = staged.get(column)
    if kind is None or (path and kind not in JSON_TYPES):
        return sql.SQL("false")
    text = sql.SQL("{}::text").format(sql.Identifier(column))
    if kind in JSON_TYPES:
        place = sql.Literal([_escaped(name) for name in path.split(".") if path])
        text = sql.SQL("{} #>> {}::text[]").format(sql.Identifier(column), place)
    if not declared.values:
        return _SAYS_SO.format(text)
    values = sql.SQL(", ").join(sql.Literal(_escaped(_text(value))) for value in declared.values)
    return _IS_ONE_OF.format(text, values)


def _text(value: str | int | bool) -> str:
    """The value as Postgres writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    """As psycopg2 needs it in a statement that is executed with arguments."""
    return text.replace("%", "%%")


def parts(
    tombstone: sql.Composable, staged: Mapping[str, str], key: Sequence[str], scope: Sequence[str]
) -> dict[str, sql.Composable]:
    """The parts of a merge's statements that tombstones need.

    `staged` has the types of the stage's columns, `scope` those besides the key that identify a
    partition.
    """
    same = [*key, *scope]
    rest = {name: kind for name, kind in staged.items() if name not in {*same, "_ordinal"}}
    last = [
        (_LAST_ARRAY if kind.endswith("[]") else _LAST_VALUE).format(sql.Identifier(name))
        for name, kind in rest.items()
    ]
    scopes = {alias: _columns(alias, scope) for alias in ("present", "staged", "latest")}
    return {
        "tombstone": tombstone,
        "ordinal": _ORDINAL.format(tombstone),
        "same": sql.SQL(", ").join(map(sql.Identifier, same)),
        "folded": sql.SQL(", ").join([*map(sql.Identifier, same), *last]),
        "is_others": _IS_OTHERS.format(**scopes) if scope else sql.SQL("false"),
        "is_own": _IS_OWN.format(**scopes) if scope else sql.SQL("true"),
    }


def _columns(alias: str, names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, name) for name in names)


def in_order(cursor: Cursor, parts: Parts, ids: Mapping[str, object]) -> Parts:
    """The parts with one staged row per key and partition, as if merged one after the other."""
    cursor.execute(_DROP_OUTDATED.format(**parts), ids)
    cursor.execute(_REPEATS.format(**parts))
    if not cursor.fetchall()[0][0]:
        return parts
    return {**parts, "stage": _FOLDED.format(**parts), "ordinal": sql.SQL(", _ordinal")}


def marked_now(condition: sql.Composable) -> sql.Composable:
    """The mark of a staged row."""
    return _MARKED_NOW.format(condition)


def value_to_store(name: str) -> sql.Composed:
    """A column's new value where a staged row, which may be a tombstone, meets its present one."""
    template = _MARKED_SINCE if name == DELETED_AT else _KEPT
    return template.format(sql.Identifier(name))


def count_marked(cursor: Cursor, parts: Parts) -> int:
    """How many present rows the listed differences will mark."""
    cursor.execute(_COUNT_MARKED.format(**parts))
    return int(cursor.fetchall()[0][0])


def mark_missing(cursor: Cursor, parts: Parts, load_id: int | None, has_rows: bool) -> int:
    """Mark the partition's rows that the stage lacks; returns how many.

    Without `has_rows`, the stage may lack the columns of the key.
    """
    statement = _MARK.format(**parts, load_id=sql.Literal(load_id))
    cursor.execute(statement + _MISSING.format(**parts) if has_rows else statement)
    return cursor.rowcount
