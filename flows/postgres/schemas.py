"""Schemas that hold tables of this project's own, and which version of them."""

import hashlib
from dataclasses import dataclass

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError

_COMMENT = "select obj_description(to_regnamespace(quote_ident(%s)), 'pg_namespace')"
_HAS_COLUMNS = """
select array(
    select attname::text from pg_attribute
    where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped
) @> %s::text[]
"""
_HELD = """
select pg_describe_object(classid, objid, objsubid)
from pg_depend
where refclassid = 'pg_namespace'::regclass and deptype = 'n'
    and refobjid = to_regnamespace(quote_ident(%s))
order by 1
"""
_SHOWN = 3


@dataclass(frozen=True)
class OwnSchema:
    """A schema for tables of this project's own.

    Attributes:
        holds: what the schema's comment begins with once its tables are made.
        statements: make the tables, or complete those that an older version made.
        table: one of the tables, by which the schema is known where that comment is lost.
        columns: what that table has in every version.
    """

    name: str
    holds: str
    statements: str
    table: str
    columns: frozenset[str]

    @property
    def version(self) -> str:
        """What the schema's comment says once the statements have made its tables."""
        checksum = hashlib.sha256(self.statements.encode()).hexdigest()[:8]
        return f"{self.holds}, version {checksum}."


def exists(cursor: Cursor, schema: str) -> bool:
    """Whether a schema is there."""
    cursor.execute("select to_regnamespace(quote_ident(%s)) is not null", [schema])
    return bool(cursor.fetchall()[0][0])


def ensure(cursor: Cursor, schema: str) -> None:
    """Create a schema that is not there; `if not exists` would ask for the right even if it is."""
    if not exists(cursor, schema):
        cursor.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))


def is_complete(cursor: Cursor, own: OwnSchema) -> bool:
    """Whether the schema is there and its tables are of today's version."""
    cursor.execute(_COMMENT, [own.name])
    return cursor.fetchall() == [(own.version,)]


def is_ours(cursor: Cursor, own: OwnSchema) -> bool:
    """Whether this project made the schema's tables, by its comment or by one of these tables."""
    cursor.execute(_COMMENT, [own.name])
    [(comment,)] = cursor.fetchall()
    if comment and comment.startswith(f"{own.holds}, version "):
        return True
    table = sql.Identifier(own.name, own.table).as_string(cursor)
    cursor.execute(_HAS_COLUMNS, [table, list(own.columns)])
    return cursor.fetchall() == [(True,)]


def complete(cursor: Cursor, own: OwnSchema) -> None:
    """Create the schema, or complete its tables; the caller sees to it that nobody else does so.

    Raises:
        ConfigurationError: when there is such a schema, and somebody else put something into it.
    """
    ensure(cursor, own.name)
    if is_complete(cursor, own):
        return
    _refuse_others(cursor, own)
    cursor.execute(own.statements)
    comment = sql.SQL("comment on schema {} is {}")
    cursor.execute(comment.format(sql.Identifier(own.name), sql.Literal(own.version)))


def _refuse_others(cursor: Cursor, own: OwnSchema) -> None:
    cursor.execute(_HELD, [own.name])
    held = [what for (what,) in cursor]
    if held and not is_ours(cursor, own):
        more = [f"{len(held) - _SHOWN} more"] if len(held) > _SHOWN else []
        raise ConfigurationError(
            f"Schema {own.name} already exists and is not this project's, so nothing is written "
            f"to it. It holds {', '.join([*held[:_SHOWN], *more])}. Rename it, or use another "
            "database; then run this again."
        )
