"""Drops and restores the foreign keys that refer to tables, while these are replaced."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build.table_parts import FOREIGN_KEY, TablePart, add
from flows.postgres.owners import as_owner

# The keys of partitions belong to that of their table.
_REFERRING = """
select conrelid, pg_get_userbyid(relowner), conname, pg_get_constraintdef(pg_constraint.oid)
from pg_constraint
join pg_class on pg_class.oid = conrelid
where contype = 'f' and conparentid = 0
    and confrelid in (select to_regclass(name) from unnest(%s) as name)
order by pg_constraint.oid
"""


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key that refers to a table.

    Attributes:
        table: the oid of the table that has the key.
        owner: the role that owns that table.
    """

    table: int
    owner: str
    part: TablePart


def referring_tables(cursor: Cursor, tables: Iterable[sql.Identifier]) -> list[sql.Composable]:
    """The tables with a foreign key that refers to one of `tables`."""
    cursor.execute(_REFERRING, [[table.as_string(cursor) for table in tables]])
    return [_name(cursor, oid) for oid in {oid for oid, *_ in cursor.fetchall()}]


def drop_referring(cursor: Cursor, tables: Iterable[sql.Identifier]) -> list[ForeignKey]:
    """Drop the foreign keys of all tables that refer to one of `tables`, and return them."""
    cursor.execute(_REFERRING, [[table.as_string(cursor) for table in tables]])
    keys = [
        ForeignKey(oid, owner, TablePart(FOREIGN_KEY, name, definition))
        for oid, owner, name, definition in cursor.fetchall()
    ]
    for key in keys:
        statement = sql.SQL("alter table {} drop constraint {}")
        with as_owner(cursor, key.owner):
            name = sql.Identifier(key.part.name)
            cursor.execute(statement.format(_name(cursor, key.table), name))
    return keys


def restore(cursor: Cursor, keys: Sequence[ForeignKey]) -> None:
    """Create foreign keys again, on tables that may have moved to another schema since.

    Raises:
        ConfigurationError: when rows violate one, or what it refers to is gone.
    """
    for key in keys:
        with as_owner(cursor, key.owner):
            add(cursor, _name(cursor, key.table), [key.part])


def _name(cursor: Cursor, oid: int) -> sql.Composable:
    cursor.execute("select %s::regclass::text", [oid])
    return sql.SQL(cursor.fetchall()[0][0])
