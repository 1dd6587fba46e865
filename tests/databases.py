"""Empty databases for tests: to empty one and use it again takes a tenth of making a new one.

A database with something that emptying can't undo, such as a setting of its own or an extension, is
dropped instead.
"""

import contextlib
import os
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.engine import URL

from deployments.local.postgres import ensure_database, libpq

# The system catalogs keep the entries of dropped tables until they are vacuumed.
USES = 100
FIRST_OID_OF_USERS = 16384
OUTSIDE_OF_SCHEMAS = (
    "pg_am", "pg_cast", "pg_default_acl", "pg_event_trigger", "pg_extension",
    "pg_foreign_data_wrapper", "pg_language", "pg_largeobject_metadata", "pg_publication",
    "pg_subscription", "pg_transform",
)  # fmt: skip
_END_SESSIONS = """
select pg_terminate_backend(pid, 5000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""
_IS_AS_CREATED = """
select datacl is null and pg_get_userbyid(datdba) = current_user and datconnlimit = -1
    and not exists (select from pg_db_role_setting where setdatabase = pg_database.oid)
    and not exists (select from pg_prepared_xacts where database = datname)
from pg_database where datname = current_database()
"""
_SCHEMAS = """
select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
"""
_CREATE_PUBLIC = """
create schema public authorization pg_database_owner;
grant usage on schema public to public
"""


class Databases:
    """Databases of a server, each used by one test at a time."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._numbers = count(1)
        self._empty: list[tuple[URL, int]] = []

    @contextlib.contextmanager
    def empty(self) -> Iterator[URL]:
        """An empty database, for one test."""
        url, uses = self._empty.pop() if self._empty else (self._create(), 0)
        yield url
        if uses + 1 < USES and _emptied(url):
            self._empty.append((url, uses + 1))
        else:
            self._drop(url)

    def close(self) -> None:
        """Drop them all."""
        while self._empty:
            self._drop(self._empty.pop()[0])

    def _create(self) -> URL:
        """A new database; one that a killed process with the same number left is dropped."""
        url = self._server.set(database=f"test_{os.getpid()}_{next(self._numbers)}")
        self._drop(url)
        return ensure_database(self._server, str(url.database))

    def _drop(self, url: URL) -> None:
        with closing(psycopg2.connect(libpq(self._server))) as opened:
            opened.autocommit = True
            with opened.cursor() as cursor:
                drop = sql.SQL("drop database if exists {} with (force)")
                cursor.execute(drop.format(sql.Identifier(str(url.database))))


def _emptied(url: URL) -> bool:
    """End all sessions and drop all schemas; False if the database still differs from a new one."""
    with closing(psycopg2.connect(libpq(url))) as opened, opened, opened.cursor() as cursor:
        cursor.execute(_END_SESSIONS)
        if not _is_as_created(cursor):
            return False
        cursor.execute(_SCHEMAS)
        schemas = [sql.Identifier(name) for (name,) in cursor]
        if schemas:
            cursor.execute(sql.SQL("drop schema {} cascade").format(sql.SQL(", ").join(schemas)))
        cursor.execute(_CREATE_PUBLIC)
        return True


def _is_as_created(cursor: Cursor) -> bool:
    """Whether its settings are a new database's, and everything made in it is in a schema."""
    cursor.execute(_IS_AS_CREATED)
    if cursor.fetchall() != [(True,)]:
        return False
    made = [
        sql.SQL("select from {} where oid >= {}").format(
            sql.Identifier("pg_catalog", name), sql.Literal(FIRST_OID_OF_USERS)
        )
        for name in OUTSIDE_OF_SCHEMAS
    ]
    cursor.execute(
        sql.SQL("select exists ({})").format(sql.SQL(" union all ").join(made)),
    )
    return cursor.fetchall() == [(False,)]
