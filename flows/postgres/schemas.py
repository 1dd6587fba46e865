"""Schemas with this project's own tables, and the version of these tables."""

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
    """A schema with this project's own tables.

    Attributes:
        holds: the start of the schema's comment, set when its tables are created.
        statements: create the tables, or upgrade those of an older version.
        table: one of the tables; identifies the schema if its comment is lost.
        columns: the columns that this table has in every version.
    """

    name: str
    holds: str
    statements: str
    table: str
    columns: frozenset[str]

    @property
    def version(self) -> str:
        """The schema's comment, set once the statements have created its tables."""
        checksum = hashlib.sha256(self.statements.encode()).hexdigest()[:8]
        return f"{self.holds}, version {checksum}."


def exists(cursor: Cursor, schema: str) -> bool:
    """Whether there is such a schema; to_regnamespace may not see one made in the same moment."""
    cursor.execute("select exists (select from pg_namespace where nspname = %s)", [schema])
    return bool(cursor.fetchall()[0][0])


def ensure(cursor: Cursor, schema: str) -> None:
    """Create a schema if missing; `if not exists` would need the privilege even if it exists."""
    if not exists(cursor, schema):
        cursor.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))


def is_complete(cursor: Cursor, own: OwnSchema) -> bool:
    """Whether the schema exists and its tables are of the current version."""
    cursor.execute(_COMMENT, [own.name])
    return cursor.fetchall() == [(own.version,)]


def is_ours(cursor: Cursor, own: OwnSchema) -> bool:
    """Whether this project created the schema's tables: by its comment, or by one of the tables."""
    cursor.execute(_COMMENT, [own.name])
    [(comment,)] = cursor.fetchall()
    if comment and comment.startswith(f"{own.holds}, version "):
        return True
    table = sql.Identifier(own.name, own.table).as_string(cursor)
    cursor.execute(_HAS_COLUMNS, [table, list(own.columns)])
    return cursor.fetchall() == [(True,)]


def complete(cursor: Cursor, own: OwnSchema) -> None:
    """Create the schema or upgrade its tables; the caller must prevent concurrent calls.

    Raises:
        ConfigurationError: when the schema exists and somebody else's objects are in it.
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
