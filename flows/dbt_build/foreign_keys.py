"""Drops and restores the foreign keys that refer to tables, while these are replaced."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.errors import InsufficientPrivilege
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build.table_parts import FOREIGN_KEY, TablePart, add
from flows.errors import ConfigurationError
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
_REMEDY = (
    "Change or drop it, or correct the rows, or load the source of that table if it is a model's "
    "that this build left out"
)


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
    """Drop the foreign keys of all tables that refer to one of `tables`, and return them.

    Raises:
        ConfigurationError: when this role may not change the table of one.
    """
    cursor.execute(_REFERRING, [[table.as_string(cursor) for table in tables]])
    keys = [
        ForeignKey(oid, owner, TablePart(FOREIGN_KEY, name, definition))
        for oid, owner, name, definition in cursor.fetchall()
    ]
    for key in keys:
        statement = sql.SQL("alter table {} drop constraint {}")
        with _owned_table(cursor, key) as table:
            cursor.execute(statement.format(table, sql.Identifier(key.part.name)))
    return keys


def restore(cursor: Cursor, keys: Sequence[ForeignKey]) -> None:
    """Create foreign keys again, on tables that may have moved to another schema since.

    Raises:
        ConfigurationError: when rows violate one, what it refers to is gone, or this role may not
            change its table.
    """
    for key in keys:
        with _owned_table(cursor, key) as table:
            add(cursor, table, [key.part], _REMEDY)


@contextmanager
def _owned_table(cursor: Cursor, key: ForeignKey) -> Iterator[sql.Composable]:
    """The table of a key, as its owner.

    Raises:
        ConfigurationError: when this role may not change it.
    """
    table = _name(cursor, key.table)
    try:
        with as_owner(cursor, key.owner):
            yield table
    except InsufficientPrivilege as error:
        raise ConfigurationError(
            f"Nothing is published: the foreign key {key.part.name} of {table.as_string(cursor)} "
            f"refers to a mart, and this role may not drop it and create it again. Grant it the "
            f"role {key.owner}, which owns that table, and usage of its schema; or drop the key. "
            f"Then run this again. Postgres reports: {error}"
        ) from error


def _name(cursor: Cursor, oid: int) -> sql.Composable:
    cursor.execute("select %s::regclass::text", [oid])
    return sql.SQL(cursor.fetchall()[0][0])
