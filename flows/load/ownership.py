"""Recognises the raw tables that loads may change: those they made, whatever their names.

A load gives the column `_load_id` a default that nobody else uses. It is part of a dump of the
table, and is lost if somebody drops the table and creates it by hand. Tables without it are
recognised by their rows: those of the first version, and those recreated from a load's rows.

Merges find rows by `ctid`, their place, which is unique within one table only. So a table whose
rows are in several, by `partition by` or `inherits`, is refused whoever made it.
"""

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError
from flows.load.table_schema import LOAD_ID_SETTING

_TABLE = """
select
    attname is not null,
    coalesce(pg_get_expr(adbin, adrelid), ''),
    relkind = 'p' or exists (select from pg_inherits where inhparent = pg_class.oid)
from pg_class
left join pg_attribute
    on attrelid = pg_class.oid and attname = '_load_id' and not attisdropped
left join pg_attrdef on adrelid = attrelid and adnum = attnum
where pg_class.oid = to_regclass(%s)
"""
_HOLDS_LOADED_ROWS = sql.SQL(
    "select exists (select from elt.loads where (source, resource) = (%s, %s)"
    " and load_id::text = (select _load_id::text from {} limit 1))"
)


def check(cursor: Cursor, table: sql.Identifier) -> None:
    """Refuse a raw table that no load made, and one whose rows are in several tables.

    Raises:
        ConfigurationError: rename or drop it, or let loads use it.
    """
    cursor.execute(_TABLE, [table.as_string(cursor)])
    # One row, or none if the table does not exist.
    for has_load_id, default, is_spread in cursor.fetchall():
        is_marked = LOAD_ID_SETTING in default
        if not is_marked and not (has_load_id and _holds_loaded_rows(cursor, table)):
            raise ConfigurationError(
                f"{'.'.join(table.strings)} already exists, and no load of this project made it, "
                "so loads do not change it. Rename or drop it, or let loads use it: run the "
                'statement in docs/loading.md, "A table that was made by hand".'
            )
        if is_spread:
            raise ConfigurationError(
                f"{'.'.join(table.strings)} is partitioned (`partition by`) or has child tables "
                "(`inherits`, TimescaleDB). Loads change rows by their place, which is unique "
                "within one table only. Copy its rows into an ordinary table of this name; "
                "partition a mart instead."
            )


def _holds_loaded_rows(cursor: Cursor, table: sql.Identifier) -> bool:
    schema, resource = table.strings
    source = schema.removeprefix("raw_")
    cursor.execute(_HOLDS_LOADED_ROWS.format(table), [source, resource])
    return cursor.fetchall() == [(True,)]
