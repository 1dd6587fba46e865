"""Schema evolution of raw tables: create them, add columns, widen types.

Every function works inside the caller's transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.load import primary_key
from flows.load.batch import EXACT_DOUBLES_TO
from flows.postgres.dependent_views import without_dependent_views

LOAD_ID_SETTING = "elt.load_id"
OWN_COLUMN_DEFINITIONS = (
    "_loaded_at timestamptz not null default now()",
    f"_load_id bigint not null default current_setting('{LOAD_ID_SETTING}')::bigint",
)
NATURAL = frozenset({"bigint", "double precision", "boolean", "text", "jsonb"})


@dataclass(frozen=True)
class ColumnChange:
    """A column that was added (`old_type` is None) or given a wider type."""

    column: str
    old_type: str | None
    new_type: str

    def __str__(self) -> str:
        """`the new column "size" (text)`, or `"size" from bigint to text`."""
        if self.old_type is None:
            return f'the new column "{self.column}" ({self.new_type})'
        return f'"{self.column}" from {self.old_type} to {self.new_type}'


def exists(cursor: Cursor, table: sql.Identifier) -> bool:
    cursor.execute("select to_regclass(%s) is not null", [table.as_string(cursor)])
    return bool(cursor.fetchall()[0][0])


def column_types(cursor: Cursor, table: sql.Identifier) -> dict[str, str]:
    """Column names and types, in order; empty if the table does not exist."""
    cursor.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
        [table.as_string(cursor)],
    )
    return dict(cursor.fetchall())


def used_columns(cursor: Cursor, table: sql.Identifier) -> int:
    """The number of columns that count toward Postgres' limit, including dropped ones.

    For a table that does not exist yet: the load's own two.
    """
    cursor.execute(
        "select greatest(max(attnum), %s) from pg_attribute where attrelid = to_regclass(%s)",
        [len(OWN_COLUMN_DEFINITIONS), table.as_string(cursor)],
    )
    return int(cursor.fetchall()[0][0])


def create_table(
    cursor: Cursor, table: sql.Identifier, types: Mapping[str, str], key: list[str]
) -> None:
    """Create a raw table with the load's own two columns at its end.

    Rows that are copied directly get their defaults; the setting is the transaction's.
    """
    columns: list[sql.Composable] = [_column(name, kind) for name, kind in types.items()]
    columns += [sql.SQL(definition) for definition in OWN_COLUMN_DEFINITIONS]
    if key:
        columns.append(primary_key.definition(key))
    body = sql.SQL(", ").join(columns)
    cursor.execute(sql.SQL("create table {} ({})").format(table, body))


def changes_for(
    cursor: Cursor,
    table: sql.Identifier,
    present: Mapping[str, str],
    wanted: Mapping[str, str | None],
    pinned: frozenset[str],
    beyond_double: frozenset[str],
    filled: frozenset[str] = frozenset(),
) -> list[ColumnChange]:
    """The changes that a table with the columns `present` needs to hold the `wanted` types.

    A wanted type of None is a column with only nulls so far. Pinned columns take the wanted type
    unchanged; the others take the narrowest type that holds present and new values. Columns in
    `beyond_double` must hold integers that a double would round; columns in `filled` will have
    values of their present type, even if the table has none yet.
    """
    changes = []
    for name, kind in wanted.items():
        old = present.get(name)
        if old is None:
            new = kind or "text"
        elif kind is None:
            new = old
        elif name in pinned:
            new = kind
        else:
            is_open, fits_double = name not in filled, name not in beyond_double
            new = _widest(cursor, table, name, old, kind, is_open, fits_double)
        if new != old:
            changes.append(ColumnChange(name, old, new))
    return changes


def apply(cursor: Cursor, table: sql.Identifier, changes: Sequence[ColumnChange]) -> None:
    """Add and widen columns; views on the table survive.

    Raises:
        ConfigurationError: when a materialized view depends on the table.
    """
    added = [change for change in changes if change.old_type is None]
    widened = [change for change in changes if change.old_type is not None]
    if added:
        clauses = [
            sql.SQL("add column {}").format(_column(change.column, change.new_type))
            for change in added
        ]
        _alter(cursor, table, clauses)
    if widened:
        with without_dependent_views(cursor, table):
            _alter(cursor, table, [_retype(change) for change in widened])


def _alter(cursor: Cursor, table: sql.Identifier, clauses: list[sql.Composed]) -> None:
    body = sql.SQL(", ").join(clauses)
    cursor.execute(sql.SQL("alter table {} {}").format(table, body))


def _widest(
    cursor: Cursor,
    table: sql.Identifier,
    name: str,
    old: str,
    new: str,
    may_be_empty: bool,
    fits_double: bool,
) -> str:
    if old == new or old not in NATURAL or new not in NATURAL:
        return old
    if old == "text" and may_be_empty and not _exists(cursor, table, name, "{} is not null"):
        return new
    if "jsonb" in (old, new):
        return "jsonb"
    if (old, new) == ("double precision", "bigint"):
        return old if fits_double else "text"
    exact = f"{{}} not between {-EXACT_DOUBLES_TO} and {EXACT_DOUBLES_TO}"
    is_widened = (old, new) == ("bigint", "double precision")
    if is_widened and fits_double and not _exists(cursor, table, name, exact):
        return new
    return "text"


def _exists(cursor: Cursor, table: sql.Identifier, name: str, condition: str) -> bool:
    query = sql.SQL("select exists (select from {} where {})").format(
        table, sql.SQL(condition).format(sql.Identifier(name))
    )
    cursor.execute(query)
    row = cursor.fetchone()
    return bool(row and row[0])


def converted(name: str, old: str, new: str) -> sql.Composable:
    """The SQL expression that converts the column `name` from type `old` to type `new`."""
    column = sql.Identifier(name)
    if old == new:
        return column
    if new == "jsonb":
        return sql.SQL("to_jsonb({})").format(column)
    return sql.SQL("{}::{}").format(column, sql.SQL(new))


def _retype(change: ColumnChange) -> sql.Composed:
    using = converted(change.column, change.old_type or "text", change.new_type)
    return sql.SQL("alter column {} type {} using {}").format(
        sql.Identifier(change.column), sql.SQL(change.new_type), using
    )


def _column(name: str, kind: str) -> sql.Composed:
    return sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
