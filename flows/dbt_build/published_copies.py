"""Copies of published tables, for incremental models and snapshots.

dbt adds to the copy, which replaces the published table once its tests have passed. So each build
starts from the published rows, and a failed build leaves no rows for the next one.
"""

from collections.abc import Iterable

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build.publish import Relation
from flows.dbt_build.table_parts import add, parts_of

_TABLE = """
select oid, relpersistence = 'u' from pg_class where oid = to_regclass(%s) and relkind = 'r'
"""
# Indexes and constraints keep their names: `create index if not exists` in hooks relies on it.
_CREATE = "create {} table {} (like {} including all excluding indexes)"
_COLUMNS = """
select attname, attidentity <> '' from pg_attribute
where attrelid = %s and attnum > 0 and not attisdropped and attgenerated = ''
order by attnum
"""
_INSERT = "insert into {copy} ({columns}) overriding system value select {columns} from {published}"
_CONTINUE_SEQUENCE = """
select setval(
    pg_get_serial_sequence({copy}, {column}),
    nextval(pg_get_serial_sequence({published}, {column})),
    false
)
"""
_COPIED = ("primary key", "unique constraint", "exclusion constraint", "index", "unique index")


def copy_published(cursor: Cursor, relations: Iterable[Relation]) -> None:
    """Copy each published table to its audit schema; skip relations not yet published."""
    cursor.execute("set local row_security = off")  # a policy fails the copy instead of hiding rows
    for relation in relations:
        cursor.execute(_TABLE, [relation.published.quoted.as_string(cursor)])
        if row := cursor.fetchone():
            oid, is_unlogged = row
            _create(cursor, relation, is_unlogged)
            _fill(cursor, relation, oid)
            # After the rows. `like` copied the checks; publishing adds the foreign keys.
            parts = [part for part in parts_of(cursor, oid) if part.kind in _COPIED]
            add(cursor, relation.audited.quoted, parts)
            cursor.execute(sql.SQL("analyze {}").format(relation.audited.quoted))


def _create(cursor: Cursor, relation: Relation, is_unlogged: bool) -> None:
    unlogged = sql.SQL("unlogged" if is_unlogged else "")
    names = (relation.audited.quoted, relation.published.quoted)
    cursor.execute(sql.SQL(_CREATE).format(unlogged, *names))


def _fill(cursor: Cursor, relation: Relation, oid: int) -> None:
    cursor.execute(_COLUMNS, [oid])
    columns = cursor.fetchall()
    names = {"copy": relation.audited.quoted, "published": relation.published.quoted}
    column_list = sql.SQL(", ").join(sql.Identifier(column) for column, _ in columns)
    cursor.execute(sql.SQL(_INSERT).format(**names, columns=column_list))
    texts = {key: sql.Literal(name.as_string(cursor)) for key, name in names.items()}
    for column in [column for column, is_identity in columns if is_identity]:
        cursor.execute(sql.SQL(_CONTINUE_SEQUENCE).format(**texts, column=sql.Literal(column)))
