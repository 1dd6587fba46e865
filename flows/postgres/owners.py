"""Acts as the owner of an object that belongs to another role."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor


@contextmanager
def as_owner(cursor: Cursor, owner: str) -> Iterator[None]:
    """Switch to an object's owner, if permitted and if its privileges are not inherited."""
    cursor.execute("select pg_has_role(%s, 'member') and not pg_has_role(%s, 'usage')", [owner] * 2)
    if cursor.fetchall() == [(False,)]:
        yield
        return
    cursor.execute(sql.SQL("set local role {}").format(sql.Identifier(owner)))
    yield
    cursor.execute("reset role")
