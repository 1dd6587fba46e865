"""Schemas in which dbt builds before anything is published: audit and trial schemas.

A schema is ours if it contains the table `RECORD`, which is created with it. That table lists the
relations that builds make there. Only those are dropped, and never with `cascade`: relations that
somebody else put there are kept, and so are views that read one of ours.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

from psycopg2 import errors, sql
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build.publish import RelationName, drop
from flows.errors import ConfigurationError
from flows.limits import check_length
from flows.postgres import schemas
from flows.postgres.grants import KINDS

RECORD = "_built_relations"
_CREATE_RECORD = "create table {} (relation text primary key)"
_COMMENT = "comment on table {} is {}"
_SAYS = "What dbt builds of this project made in this schema; they drop nothing else in it."
_OWN = """
select nspname
from pg_class
join pg_namespace on pg_namespace.oid = relnamespace
where relname = %(record)s and relkind = 'r' and pg_has_role(relowner, 'usage')
    and right(nspname, length(%(suffix)s)) = %(suffix)s
order by nspname
"""
_OTHERS = """
select nspname
from pg_namespace
where right(nspname, length(%(suffix)s)) = %(suffix)s and nspname <> all (%(own)s)
order by nspname
"""
# Without parameters, for whose sake a `%` in a schema's name would have to be doubled.
_RELATIONS = """
select relname, relname in (select relation from {record}) and pg_has_role(relowner, 'usage')
from pg_class
where relnamespace = to_regnamespace(quote_ident({schema}))
    and relname <> {name} and relkind = any ({kinds})
order by oid desc
"""
_FORGET = """
delete from {record}
where relation not in (
    select relname from pg_class where relnamespace = to_regnamespace(quote_ident({schema}))
)
"""
_REMEMBER = "insert into {} select unnest({}::text[]) on conflict do nothing"


def own_schemas(cursor: Cursor, suffix: str) -> list[str]:
    """The schemas with that suffix that builds created."""
    cursor.execute(_OWN, {"record": RECORD, "suffix": suffix})
    return [schema for (schema,) in cursor]


def others_schemas(cursor: Cursor, suffix: str) -> list[str]:
    """The schemas with that suffix that no build created."""
    cursor.execute(_OTHERS, {"suffix": suffix, "own": own_schemas(cursor, suffix)})
    return [schema for (schema,) in cursor]


def prepare(cursor: Cursor, relations: Iterable[RelationName]) -> None:
    """Create the schemas that dbt needs for these relations, and record the relations.

    Raises:
        ConfigurationError: when a schema or relation of that name exists and is not ours (dbt would
            replace it), or when a schema's name is too long.
    """
    for schema, names in groupby(sorted(relations), key=lambda name: name.schema):
        check_length("The schema", schema)
        if schemas.exists(cursor, schema):
            _refuse_others_schema(cursor, schema)
        else:
            schemas.ensure(cursor, schema)
            _create_record(cursor, schema)
        wanted = [name.relation for name in names]
        _refuse_others_relations(cursor, schema, wanted)
        _remember(cursor, schema, wanted)


def adopt(cursor: Cursor, relations: Collection[RelationName]) -> None:
    """Record relations that earlier versions made without a record; others stay unknown.

    Skips schemas that do not exist, or that belong to a role this one is not a member of.
    """
    for schema in sorted({name.schema for name in relations}):
        if _may_adopt(cursor, schema):
            _create_record(cursor, schema)
            made = {name.relation for name in relations if name.schema == schema}
            _remember(
                cursor, schema, [each for each, _ in _relations(cursor, schema) if each in made]
            )


def drop_leftovers(
    cursor: Cursor, suffix: str, only: Collection[RelationName] | None = None
) -> None:
    """Drop leftovers of earlier builds from our schemas with that suffix; if given, `only` those.

    Raises:
        ConfigurationError: when something else depends on them.
    """
    own = own_schemas(cursor, suffix)
    made = [
        RelationName(schema, relation)
        for schema in own
        for relation, is_ours in _relations(cursor, schema)
        if is_ours
    ]
    _drop_all(cursor, [name for name in made if only is None or name in only])
    forget_missing(cursor, own)


def unknown(cursor: Cursor, suffix: str) -> list[RelationName]:
    """The relations in our schemas that no build made, or that another role owns now."""
    return [
        RelationName(schema, relation)
        for schema in own_schemas(cursor, suffix)
        for relation, is_ours in _relations(cursor, schema)
        if not is_ours
    ]


def drop_schemas(cursor: Cursor, suffix: str) -> None:
    """Drop our schemas with that suffix, and the relations that builds made there.

    Raises:
        ConfigurationError: when one contains something else, or something else depends on it.
    """
    drop_leftovers(cursor, suffix)
    if others := unknown(cursor, suffix):
        raise ConfigurationError(
            f"Not made by a build, so neither these nor their schema are dropped: "
            f"{_join_names(others)}. Move or drop them, then run this again."
        )
    for schema in own_schemas(cursor, suffix):
        drop(cursor, RelationName(schema, RECORD))
        try:
            cursor.execute(sql.SQL("drop schema {}").format(sql.Identifier(schema)))
        except errors.DependentObjectsStillExist as error:
            raise ConfigurationError(
                f"Schema {schema} is not dropped, because it contains objects that no build made: "
                f"{error.diag.message_detail}. Move or drop them, then run this again."
            ) from error


def forget_missing(cursor: Cursor, own: Iterable[str]) -> None:
    """Remove relations from the record that were dropped or published."""
    for schema in own:
        statement = sql.SQL(_FORGET)
        cursor.execute(statement.format(record=_record(schema), schema=sql.Literal(schema)))


def _drop_all(cursor: Cursor, relations: Sequence[RelationName]) -> None:
    """Drop relations in the order of their dependencies.

    Raises:
        ConfigurationError: when something else depends on one of them; none is dropped then.
    """
    waiting = list(relations)
    while waiting:
        refused = {name: why for name in waiting if (why := _try_drop(cursor, name))}
        if len(refused) == len(waiting):
            reasons = "; ".join(refused.values())
            raise ConfigurationError(
                "Leftovers of an earlier build can't be dropped, because something else depends on "
                f"them: {reasons}. Drop or change that, then run this again."
            )
        waiting = list(refused)


def _try_drop(cursor: Cursor, name: RelationName) -> str | None:
    """Drop a relation; if a dependant prevents it, return Postgres's description of that."""
    cursor.execute("savepoint dropping")
    try:
        drop(cursor, name)
    except errors.DependentObjectsStillExist as error:
        cursor.execute("rollback to savepoint dropping")
        return error.diag.message_detail or str(error)
    cursor.execute("release savepoint dropping")
    return None


def _record(schema: str) -> sql.Identifier:
    return sql.Identifier(schema, RECORD)


def _create_record(cursor: Cursor, schema: str) -> None:
    cursor.execute(sql.SQL(_CREATE_RECORD).format(_record(schema)))
    cursor.execute(sql.SQL(_COMMENT).format(_record(schema), sql.Literal(_SAYS)))


def _remember(cursor: Cursor, schema: str, relations: Sequence[str]) -> None:
    cursor.execute(sql.SQL(_REMEMBER).format(_record(schema), sql.Literal(list(relations))))


def _relations(cursor: Cursor, schema: str) -> list[tuple[str, bool]]:
    """The relations in one of our schemas, newest first, and whether a build made each."""
    statement = sql.SQL(_RELATIONS).format(
        record=_record(schema),
        schema=sql.Literal(schema),
        name=sql.Literal(RECORD),
        kinds=sql.Literal(list(KINDS)),
    )
    cursor.execute(statement)
    return [(relation, is_ours) for relation, is_ours in cursor]


def _may_adopt(cursor: Cursor, schema: str) -> bool:
    if schema in own_schemas(cursor, schema):
        return False
    cursor.execute(
        "select pg_has_role(nspowner, 'usage') from pg_namespace where nspname = %s", [schema]
    )
    return cursor.fetchall() == [(True,)]


def _refuse_others_schema(cursor: Cursor, schema: str) -> None:
    if schema not in own_schemas(cursor, schema):
        raise ConfigurationError(
            f"Schema {schema} already exists and no build of this role created it, so nothing "
            "is built in it. Rename it, or drop it if nobody needs it; then run this again."
        )


def _refuse_others_relations(cursor: Cursor, schema: str, wanted: Collection[str]) -> None:
    others = [
        RelationName(schema, relation)
        for relation, is_ours in _relations(cursor, schema)
        if relation in wanted and not is_ours
    ]
    if others:
        raise ConfigurationError(
            f"dbt would replace relations that no build of this role made: {_join_names(others)}. "
            "Move them to another schema, or drop them if nobody needs them; then run this again."
        )


def _join_names(names: Iterable[RelationName]) -> str:
    return ", ".join(f"{name.schema}.{name.relation}" for name in names)
