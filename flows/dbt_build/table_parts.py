"""Indexes and constraints of a table, which are created again on its copy or its replacement."""

from collections.abc import Iterable
from typing import NamedTuple

from psycopg2 import DataError, IntegrityError, ProgrammingError, errors, sql
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError

FOREIGN_KEY = "foreign key"
_CONSTRAINTS = """
select kind, conname, pg_get_constraintdef(oid)
from pg_constraint
join (
    values
    ('p', 'primary key'),
    ('u', 'unique constraint'),
    ('x', 'exclusion constraint'),
    ('c', 'check constraint'),
    ('f', 'foreign key')
) as kinds (type, kind) on type = contype::text
where conrelid = %s and conislocal
order by oid
"""
# PostgreSQL 18 lists them in pg_constraint as well, earlier versions do not.
_NOT_NULL = """
select 'not-null constraint', attname, quote_ident(attname)
from pg_attribute
where attrelid = %s and attnum > 0 and attnotnull and not attisdropped
order by attnum
"""
_INDEXES = """
select
    case when indisunique then 'unique index' else 'index' end,
    index_.relname,
    substr(
        pg_get_indexdef(indexrelid),
        length(format(
            'CREATE %%sINDEX %%I ON %%I.%%I ',
            case when indisunique then 'UNIQUE ' else '' end,
            index_.relname, nspname, table_.relname
        )) + 1
    )
from pg_index
join pg_class as index_ on index_.oid = indexrelid
join pg_class as table_ on table_.oid = indrelid
join pg_namespace on pg_namespace.oid = table_.relnamespace
where indrelid = %s and indisvalid
    and not exists (select from pg_constraint where conindid = indexrelid)
order by indexrelid
"""
# The last: a value that is too long for an index.
_NOT_PERMITTED = (ProgrammingError, IntegrityError, DataError, errors.ProgramLimitExceeded)


class TablePart(NamedTuple):
    """An index or constraint; the definition contains neither its name nor its table's.

    A not-null constraint has the name of its column.
    """

    kind: str
    name: str
    definition: str

    @property
    def key(self) -> str:
        """What it does, whatever its name."""
        return f"{self.kind} {self.definition}"


def parts_of(cursor: Cursor, oid: int) -> list[TablePart]:
    """The constraints and indexes of a table, or the indexes of a materialized view."""
    parts = []
    for statement in (_CONSTRAINTS, _NOT_NULL, _INDEXES):
        cursor.execute(statement, [oid])
        parts += [TablePart(*row) for row in cursor]
    return parts


def add(
    cursor: Cursor,
    table: sql.Composable,
    parts: Iterable[TablePart],
    remedy: str = "Change or drop it, or correct the rows",
) -> None:
    """Create constraints and indexes on a table, with their names.

    Raises:
        ConfigurationError: when the table's columns, rows or own parts do not permit one of them.
    """
    for part in parts:
        try:
            cursor.execute(_statement(table, part))
        except errors.InsufficientPrivilege:
            raise
        except _NOT_PERMITTED as error:
            raise ConfigurationError(
                f"Nothing is published: the {part.kind} {part.name} of {table.as_string(cursor)} "
                f"can't be kept. {remedy}; then run this again. Postgres reports: {error}"
            ) from error


def _statement(table: sql.Composable, part: TablePart) -> sql.Composed:
    name, definition = sql.Identifier(part.name), sql.SQL(part.definition)
    if part.kind in ("index", "unique index"):
        kind = sql.SQL(part.kind)
        return sql.SQL("create {} {} on {} {}").format(kind, name, table, definition)
    if part.kind == "not-null constraint":
        return sql.SQL("alter table {} alter column {} set not null").format(table, definition)
    return sql.SQL("alter table {} add constraint {} {}").format(table, name, definition)
