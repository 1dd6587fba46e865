"""Drops and recreates the views on a table while it is altered or replaced.

Postgres refuses to retype a column that a view uses. The views are dropped and recreated unchanged
in one transaction, so readers never see them missing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError
from flows.postgres.grants import KINDS, Attachments, attach, attachments_of
from flows.postgres.owners import as_owner

_DEPENDENTS = """
with recursive dependents (view, depth) as (
    select rule.ev_class, 1
    from pg_depend
    join pg_rewrite as rule on rule.oid = pg_depend.objid
    where pg_depend.classid = 'pg_rewrite'::regclass
        and pg_depend.refclassid = 'pg_class'::regclass
        and pg_depend.refobjid = any (%(tables)s::regclass[])
        and rule.ev_class <> pg_depend.refobjid
    union
    select rule.ev_class, dependents.depth + 1
    from dependents
    join pg_depend on pg_depend.refobjid = dependents.view
    join pg_rewrite as rule on rule.oid = pg_depend.objid
    where pg_depend.classid = 'pg_rewrite'::regclass
        and pg_depend.refclassid = 'pg_class'::regclass
        and rule.ev_class <> pg_depend.refobjid
)
select
    pg_class.oid,
    pg_namespace.nspname,
    pg_class.relname,
    pg_class.relkind::text,
    pg_get_viewdef(pg_class.oid),
    pg_get_userbyid(pg_class.relowner),
    pg_class.reloptions
from (select view, max(depth) as depth from dependents group by view) as deepest
join pg_class on pg_class.oid = deepest.view
join pg_namespace on pg_namespace.oid = pg_class.relnamespace
order by deepest.depth
"""


@dataclass(frozen=True)
class _View:
    name: sql.Identifier
    kind: str
    definition: str
    owner: str
    options: list[str] | None
    attached: Attachments


@contextmanager
def without_dependent_views(
    cursor: Cursor, *tables: sql.Identifier, replaced: bool = False
) -> Iterator[None]:
    """Drop the views that read `tables`, directly or through others, and recreate them at the end.

    Tables that do not exist have none. With `replaced`, views and materialized views among `tables`
    are dropped as well, and the caller recreates them.

    Raises:
        ConfigurationError: when another is a materialized view, which holds its own rows.
    """
    own = {table.as_string(cursor) for table in tables} if replaced else set()
    views = _dependents(cursor, tables)
    for view in reversed(views):
        name = view.name.as_string(cursor)
        if view.kind != "v" and name not in own:
            raise ConfigurationError(
                f"{name} is a materialized view on what has to change "
                f"({', '.join(table.as_string(cursor) for table in tables)}). Drop it, run this "
                "again, then recreate it."
            )
        with as_owner(cursor, view.owner):
            cursor.execute(sql.SQL("drop {} {}").format(sql.SQL(KINDS[view.kind]), view.name))
    yield
    for view in views:
        if view.name.as_string(cursor) not in own:
            with as_owner(cursor, view.owner):
                _recreate(cursor, view)


def _dependents(cursor: Cursor, tables: Sequence[sql.Identifier]) -> list[_View]:
    names = [table.as_string(cursor) for table in tables]
    cursor.execute(
        "select name from unnest(%s) as name where to_regclass(name) is not null", [names]
    )
    cursor.execute(_DEPENDENTS, {"tables": [name for (name,) in cursor]})
    return [
        _View(
            sql.Identifier(schema, name),
            kind,
            definition,
            owner,
            options,
            attachments_of(cursor, oid),
        )
        for oid, schema, name, kind, definition, owner, options in cursor.fetchall()
    ]


def _recreate(cursor: Cursor, view: _View) -> None:
    options = sql.SQL(f"with ({', '.join(view.options)})" if view.options else "")
    definition = sql.SQL(view.definition.rstrip(";"))
    cursor.execute(sql.SQL("create view {} {} as {}").format(view.name, options, definition))
    cursor.execute(
        sql.SQL("alter view {} owner to {}").format(view.name, sql.Identifier(view.owner))
    )
    attach(cursor, view.name, view.attached)
