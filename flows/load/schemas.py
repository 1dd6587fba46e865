"""Schemas that hold tables of this project's own, and which version of them."""

import hashlib

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor


def version(of: str, statements: str) -> str:
    """What a schema's comment says once the statements have made its tables."""
    return f"{of}, version {hashlib.sha256(statements.encode()).hexdigest()[:8]}."


def is_there(cursor: Cursor, schema: str) -> bool:
    """Whether a schema is there."""
    cursor.execute("select to_regnamespace(quote_ident(%s)) is not null", [schema])
    return bool(cursor.fetchall()[0][0])


def ensure(cursor: Cursor, schema: str) -> None:
    """Create a schema that is not there; `if not exists` would ask for the right even if it is."""
    if not is_there(cursor, schema):
        cursor.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))


def is_of(cursor: Cursor, schema: str, version: str) -> bool:
    """Whether a schema is there and its tables are of that version."""
    cursor.execute(
        "select obj_description(to_regnamespace(quote_ident(%s)), 'pg_namespace')", [schema]
    )
    return cursor.fetchall() == [(version,)]


def complete(cursor: Cursor, schema: str, version: str, statements: str) -> None:
    """Create or complete a schema's tables; the caller sees to it that nobody else does so."""
    ensure(cursor, schema)
    if not is_of(cursor, schema, version):
        cursor.execute(statements)
        comment = sql.SQL("comment on schema {} is {}")
        cursor.execute(comment.format(sql.Identifier(schema), sql.Literal(version)))
