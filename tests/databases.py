"""Empty databases for tests: to empty one and use it again takes a tenth of making a new one.

A database with something that emptying can't undo, such as a setting of its own or an extension, is
dropped instead. The ledger, whose hundred statements take as long as a whole test, stays in it,
without rows, unless a test changed its tables. So does one session, because a new one takes as long
as ten statements.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.engine import URL

from deployments.local.postgres import drop_database, ensure_database, libpq
from flows.load import ledger
from flows.postgres import schemas

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
# Every change of a table, a column or a comment writes a row of a catalog anew.
_LEDGER_VERSION = """
with tables as (select oid from pg_class where relnamespace = to_regnamespace('elt')),
written (what, id, by) as (
    select 1, oid, xmin::text from pg_namespace where nspname = 'elt'
    union all select 2, objsubid, xmin::text from pg_description
    where objoid in (select to_regnamespace('elt')::oid union select oid from tables)
    union all select 3, oid, xmin::text from pg_class where oid in (select oid from tables)
    union all select 4, attnum, xmin::text from pg_attribute
    where attrelid in (select oid from tables)
    union all select 5, oid, xmin::text from pg_attrdef where adrelid in (select oid from tables)
    union all select 6, oid, xmin::text from pg_constraint
    where connamespace = to_regnamespace('elt')
    union all select 7, oid, xmin::text from pg_trigger where tgrelid in (select oid from tables)
    union all select 8, oid, xmin::text from pg_proc where pronamespace = to_regnamespace('elt')
    union all select 9, oid, xmin::text from pg_type where typnamespace = to_regnamespace('elt')
)
select md5(string_agg(concat_ws(' ', what, id, by), ';' order by what, id, by)) from written
"""
_LEDGER_TABLES = """
select oid::regclass::text from pg_class
where relnamespace = to_regnamespace('elt') and relkind = 'r'
"""
_LEDGER_BYTES = """
select coalesce(sum(pg_relation_size(oid)), 0) from pg_class
where relnamespace = to_regnamespace('elt') and relkind = 'r'
"""
MOST_LEDGER_BYTES = 2_000_000
_EMPTY_LEDGER = """
set local session_replication_role = replica;
do $$
declare
    found record;
begin
    for found in
        select relkind, oid::regclass as name from pg_class
        where relnamespace = to_regnamespace('elt') and relkind in ('r', 'S')
    loop
        if found.relkind = 'r' then
            execute format('delete from %s', found.name);
        else
            perform setval(found.name, 1, false);
        end if;
    end loop;
end
$$
"""
_CREATE_PUBLIC = """
create schema public authorization pg_database_owner;
grant usage on schema public to public
"""


_idle: dict[URL, Connection] = {}


@contextlib.contextmanager
def session(url: URL) -> Iterator[Connection]:
    """A session on a database: the one that is kept for it, if it is idle, or a new one."""
    kept = _idle.pop(url, None)
    if kept is None:
        with closing(psycopg2.connect(libpq(url))) as opened:
            yield opened
        return
    opened = kept if _is_usable(kept) else psycopg2.connect(libpq(url))
    try:
        yield opened
    finally:
        _idle[url] = opened


def _is_usable(opened: Connection) -> bool:
    """Whether the server has not ended it."""
    try:
        with opened, opened.cursor() as cursor:
            cursor.execute("select")
    except psycopg2.Error:
        return False
    return True


@dataclass(frozen=True)
class _Database:
    """A database; `ledger` is the version of its ledger, None if it is to have none."""

    url: URL
    uses: int
    ledger: str | None

    @property
    def name(self) -> str:
        return str(self.url.database)


class Databases:
    """Databases of a server, each used by one test at a time."""

    def __init__(self, server: URL) -> None:
        self._server = server
        self._numbers = count(1)
        self._without_ledger: list[_Database] = []
        self._with_ledger: list[_Database] = []

    @contextlib.contextmanager
    def empty(self, has_ledger: bool = False) -> Iterator[URL]:
        """An empty database, for one test; or one whose ledger has no entry."""
        unused = self._with_ledger if has_ledger else self._without_ledger
        database = unused.pop() if unused else self._create(has_ledger)
        yield database.url
        if database.uses + 1 < USES and _emptied(database):
            unused.append(replace(database, uses=database.uses + 1))
        else:
            self._drop(database)

    def close(self) -> None:
        """Drop them all."""
        for unused in (self._without_ledger, self._with_ledger):
            while unused:
                self._drop(unused.pop())

    def _create(self, has_ledger: bool) -> _Database:
        """A new database; one that a killed process with the same number left is dropped."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        drop_database(self._server, name)
        url = ensure_database(self._server, name)
        _idle[url] = psycopg2.connect(libpq(url))
        return _Database(url, 0, _create_ledger(url) if has_ledger else None)

    def _drop(self, database: _Database) -> None:
        _idle.pop(database.url).close()
        drop_database(self._server, database.name)


def _create_ledger(url: URL) -> str:
    """Create the ledger, and return its version."""
    with session(url) as opened, opened, opened.cursor() as cursor:
        schemas.complete(cursor, ledger.OWN)
        return str(_value(cursor, _LEDGER_VERSION))


def _emptied(database: _Database) -> bool:
    """End all other sessions and empty it; False if it still differs from a new one."""
    with session(database.url) as opened:
        with opened, opened.cursor() as cursor:
            cursor.execute(_END_SESSIONS)
            if not _is_as_created(cursor):
                return False
            _drop_schemas(cursor, [] if database.ledger is None else [ledger.OWN.name])
            if database.ledger is not None and not _is_emptied(cursor, database.ledger):
                return False
        opened.autocommit = True
        with opened.cursor() as cursor:
            cursor.execute("discard all")
            if database.ledger is not None:
                _vacuum_ledger(cursor)
        opened.autocommit = False
    return True


def _drop_schemas(cursor: Cursor, kept: Sequence[str]) -> None:
    cursor.execute(_SCHEMAS)
    dropped = [sql.Identifier(name) for (name,) in cursor if name not in kept]
    if dropped:
        cursor.execute(sql.SQL("drop schema {} cascade").format(sql.SQL(", ").join(dropped)))
    cursor.execute(_CREATE_PUBLIC)


def _is_emptied(cursor: Cursor, version: str) -> bool:
    """Delete the ledger's rows; False if it is another version's, or it takes long."""
    if _value(cursor, _LEDGER_BYTES) > MOST_LEDGER_BYTES:
        return False
    cursor.execute(_EMPTY_LEDGER)
    return bool(_value(cursor, _LEDGER_VERSION) == version)


def _vacuum_ledger(cursor: Cursor) -> None:
    """Without this, a new row would take the place of a deleted one, in any order."""
    cursor.execute(_LEDGER_TABLES)
    tables = ", ".join(name for (name,) in cursor)
    cursor.execute(f"vacuum {tables}")


def _value(cursor: Cursor, statement: str) -> Any:
    cursor.execute(statement)
    [(value,)] = cursor.fetchall()
    return value


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
