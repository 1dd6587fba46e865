"""Which raw tables are this project's: those that its loads made, whatever a table's name is.

A load gives the column `_load_id` a default that nobody else does. It goes with the table into a
dump, and is gone where the table is dropped and made again by hand. Tables without it are ours by
their rows: the first version's, and those that an owner made again from a load's rows.
"""

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError
from flows.load.schema import LOAD_ID_SETTING

_IS_THERE = "select to_regclass(%s) is not null"
_DEFAULTS = """
select coalesce(pg_get_expr(adbin, adrelid), '')
from pg_attribute
left join pg_attrdef on adrelid = attrelid and adnum = attnum
where attrelid = to_regclass(%s) and attname = '_load_id' and not attisdropped
"""
_HOLDS_LOADED_ROWS = sql.SQL(
    "select exists (select from elt.loads where (source, resource) = (%s, %s)"
    " and load_id::text = (select _load_id::text from {} limit 1))"
)


def check(cursor: Cursor, table: sql.Identifier) -> None:
    """Refuse a raw table that no load made.

    Raises:
        ConfigurationError: rename or drop it, or let loads use it.
    """
    cursor.execute(_IS_THERE, [table.as_string(cursor)])
    if cursor.fetchall() == [(True,)] and not _is_ours(cursor, table):
        raise ConfigurationError(
            f"{'.'.join(table.strings)} is there already and no load of this project made it, so "
            "none changes it. Rename or drop it; or let loads use it, by the statement in "
            'docs/loading.md, "A table that was made by hand".'
        )


def _is_ours(cursor: Cursor, table: sql.Identifier) -> bool:
    cursor.execute(_DEFAULTS, [table.as_string(cursor)])
    defaults = [default for (default,) in cursor]
    if not defaults:
        return False
    if LOAD_ID_SETTING in defaults[0]:
        return True
    schema, resource = table.strings
    source = schema.removeprefix("raw_")
    cursor.execute(_HOLDS_LOADED_ROWS.format(table), [source, resource])
    return cursor.fetchall() == [(True,)]
