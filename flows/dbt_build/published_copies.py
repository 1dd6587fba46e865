"""Copies of published tables, for incremental models and snapshots.

dbt adds to the copy, which replaces the published table once its tests have passed. So each build
starts from the published rows, and a failed build leaves no rows for the next one.
"""

from collections.abc import Iterable

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build.publish import Relation, RelationName

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
_CONSTRAINTS = """
select conname, pg_get_constraintdef(oid) from pg_constraint
where conrelid = %s and contype in ('p', 'u', 'x')
order by oid
"""
_INDEXES = """
select
    index_.relname,
    indisunique,
    substr(
        pg_get_indexdef(indexrelid),
        length(format(
            'CREATE %%sINDEX %%I ON %%I.%%I ',
            case when indisunique then 'UNIQUE ' else '' end,
            index_.relname, nspname, table_.relname
        ))
    )
from pg_index
join pg_class as index_ on index_.oid = indexrelid
join pg_class as table_ on table_.oid = indrelid
join pg_namespace on pg_namespace.oid = table_.relnamespace
where indrelid = %s and indisvalid
    and not exists (select from pg_constraint where conindid = indexrelid)
order by indexrelid
"""


def copy_published(cursor: Cursor, relations: Iterable[Relation]) -> None:
    """Copy each published table to its audit schema; skip relations not yet published."""
    cursor.execute("set local row_security = off")  # a policy fails the copy instead of hiding rows
    for relation in relations:
        cursor.execute(_TABLE, [relation.published.quoted.as_string(cursor)])
        if row := cursor.fetchone():
            oid, is_unlogged = row
            _create(cursor, relation, is_unlogged)
            _fill(cursor, relation, oid)
            _index(cursor, relation.audited, oid)
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


def _index(cursor: Cursor, copy: RelationName, oid: int) -> None:
    """Create the indexes and their constraints, after the rows are inserted."""
    cursor.execute(_CONSTRAINTS, [oid])
    for name, definition in cursor.fetchall():
        statement = sql.SQL("alter table {} add constraint {} {}")
        names = (copy.quoted, sql.Identifier(name))
        cursor.execute(statement.format(*names, sql.SQL(definition)))
    cursor.execute(_INDEXES, [oid])
    for name, is_unique, rest in cursor.fetchall():
        statement = sql.SQL("create {} index {} on {} {}")
        unique = sql.SQL("unique" if is_unique else "")
        cursor.execute(statement.format(unique, sql.Identifier(name), copy.quoted, sql.SQL(rest)))
