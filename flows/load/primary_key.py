"""The primary key of a raw table: deferred until its first load is complete, or changed.

Writing rows to a table without a key takes half the time, and building an index at once takes a
fraction of growing it row by row. A comment on the table marks a deferred key.
"""

from collections.abc import Sequence
from functools import partial

import psycopg2.errors
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError
from flows.load.batch import Batch
from flows.postgres import locks

PUT_OFF = "Its key comes when its first load is complete."

# An update adds a second index entry for its row. By default Postgres searches a full page of a
# unique index for entries to merge, then splits it; free space and no search take a third of the
# time.
_DEFINITION = sql.SQL("primary key ({}) with (fillfactor = 50, deduplicate_items = off)")
_NAME = "select conname from pg_constraint where conrelid = to_regclass(%s) and contype = 'p'"
_COLUMNS = """
select attname
from pg_constraint
join pg_attribute on attrelid = conrelid and attnum = any (conkey)
where conrelid = to_regclass(%s) and contype = 'p'
"""
_ADD = sql.SQL("alter table {} add {}")
_DROP = sql.SQL("alter table {} drop constraint {}")
_IS_DEFERRED = "select obj_description(to_regclass(%s), 'pg_class') is not distinct from %s"
# Keeps the row that was committed last; no two rows of one transaction have the same key.
# `_loaded_at` is the transaction's start; xmin is unusable, because widening a column resets it.
_DROP_EARLIER = sql.SQL(
    "with ranked as ("
    " select ctid as at, row_number() over (partition by {key} order by _loaded_at desc) as place"
    " from {table}"
    "), dropped as ("
    " delete from {table} as present using ranked"
    " where present.ctid = ranked.at and ranked.place > 1 returning present._load_id"
    "), counted as (select _load_id, count(*) as rows from dropped group by _load_id)"
    " update elt.loads set inserted = inserted - counted.rows,"
    " unchanged = unchanged + counted.rows from counted where load_id = counted._load_id"
)


def definition(key: Sequence[str]) -> sql.Composed:
    """The primary key as a clause of `create table` and `alter table`."""
    return _DEFINITION.format(_join_names(key))


def defer(cursor: Cursor, table: sql.Identifier) -> None:
    """Drop the key of a table that was just created with it."""
    _drop(cursor, table)
    cursor.execute(sql.SQL("comment on table {} is %s").format(table), [PUT_OFF])


def _drop(cursor: Cursor, table: sql.Identifier) -> None:
    cursor.execute(_NAME, [table.as_string(cursor)])
    [(name,)] = cursor.fetchall()
    cursor.execute(_DROP.format(table, sql.Identifier(name)))


def other_key(cursor: Cursor, table: sql.Identifier, key: Sequence[str]) -> list[str]:
    """The columns of the table's primary key if they differ from `key`, otherwise none."""
    cursor.execute(_COLUMNS, [table.as_string(cursor)])
    present = [name for (name,) in cursor]
    return [] if set(present) == set(key) else present


def change(
    cursor: Cursor, table: sql.Identifier, key: Sequence[str], delete: sql.Composable
) -> int:
    """Delete rows, then change or remove the table's key; returns the number of deleted rows.

    Raises:
        ConfigurationError: when the remaining rows, of other partitions, violate the new key.
    """
    locks.with_retries(cursor, [table], partial(_drop, cursor, table))
    cursor.execute(delete)
    deleted = cursor.rowcount
    if key:
        try:
            cursor.execute(_ADD.format(table, definition(key)))
        except (psycopg2.errors.UniqueViolation, psycopg2.errors.NotNullViolation) as error:
            raise ConfigurationError(
                f"{'.'.join(table.strings)}: rows of other partitions repeat or lack the key "
                f"({', '.join(key)}) that is now declared. Reset the resource, which deletes all "
                "of its rows and loads it from the start."
            ) from error
    return deleted


def is_deferred(cursor: Cursor, table: sql.Identifier) -> bool:
    """Whether the table exists and its key is deferred."""
    cursor.execute(_IS_DEFERRED, [table.as_string(cursor), PUT_OFF])
    return cursor.fetchall() == [(True,)]


def lock(cursor: Cursor, table: sql.Identifier) -> None:
    """Let only one transaction at a time create or alter a table."""
    locks.lock(cursor, table.as_string(cursor))


def create_deferred(cursor: Cursor, table: sql.Identifier, key: Sequence[str]) -> None:
    """Create a deferred key; of rows with the same key, the last one stays.

    The ledger counts the others as unchanged. Does nothing if the table's key is not deferred.
    """
    if not is_deferred(cursor, table):
        return
    lock(cursor, table)
    if not is_deferred(cursor, table):
        return
    add = _ADD.format(table, definition(key))
    cursor.execute("savepoint before_key")
    try:
        locks.with_retries(cursor, [table], partial(cursor.execute, add))
    except psycopg2.errors.UniqueViolation:
        cursor.execute("rollback to savepoint before_key")
        cursor.execute(_DROP_EARLIER.format(table=table, key=_join_names(key)))
        locks.with_retries(cursor, [table], partial(cursor.execute, add))
    cursor.execute("release savepoint before_key")
    cursor.execute(sql.SQL("comment on table {} is null").format(table))


def are_unique(batches: Sequence[Batch], key: Sequence[str]) -> bool:
    """Whether certainly no two rows have the same key; `key` are fields of unpinned columns."""
    seen: set[int] = set()
    for batch in batches:
        if batch.key_hashes is None:
            return False
        seen.update(batch.key_hashes)
    kinds = {tuple(batch.natural.get(field) for field in key) for batch in batches}
    return len(kinds) <= 1 and len(seen) == sum(batch.count for batch in batches)


def _join_names(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
