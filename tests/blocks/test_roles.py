"""Promises of the roles: what each may do, and what it may not."""

import os
from collections.abc import Callable
from contextlib import closing
from functools import partial

import psycopg2
import pytest
from conftest import rows
from psycopg2 import errors
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from blocks import roles
from deployments.local.postgres import libpq
from flows.dbt_build import records
from flows.dbt_build.publish import Name, Relation, publish
from flows.errors import ConfigurationError
from flows.load import ledger
from flows.load.schemas import ensure
from flows.load.views import without_dependent_views

pytestmark = pytest.mark.skipif(
    "TEST_POSTGRES_URL" in os.environ,
    reason="these roles are the whole server's, without passwords",
)

Query = Callable[..., list[tuple]]

STATE = """
select 'role', rolname, rolinherit::text, rolsuper::text from pg_roles
where rolname in ('loader', 'transformer', 'reporter')
union all
select 'schema', nspname, pg_get_userbyid(nspowner), nspacl::text from pg_namespace
where nspname !~ '^pg_'
union all
select 'relation', oid::regclass::text, pg_get_userbyid(relowner), relacl::text from pg_class
where relnamespace::regnamespace::text !~ '^(pg_|information_schema)' and relkind in ('r', 'v')
union all
select 'default', defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclacl::text
from pg_default_acl
union all
select 'database', datname, datacl::text, '' from pg_database where datname = current_database()
union all
select 'member', roleid::regrole::text, member::regrole::text, '' from pg_auth_members
order by 1, 2, 3, 4
"""
FACTS = Relation(Name("marts__audit", "facts"), Name("marts", "facts"))


def grant_roles(database: URL) -> None:
    with closing(psycopg2.connect(libpq(database))) as admin, admin, admin.cursor() as cursor:
        roles.ensure(cursor)


def of(database: URL, role: str) -> Query:
    """Statements as that role, each in a session of its own."""
    return partial(rows, database.set(username=role))


def session(database: URL, role: str) -> "closing[Connection]":
    return closing(psycopg2.connect(libpq(database.set(username=role))))


@pytest.fixture
def warehouse(database: URL) -> URL:
    """Loaded by the loader, built and published by the transformer; the roles came first."""
    grant_roles(database)
    with session(database, roles.LOADER) as connection, connection, connection.cursor() as cursor:
        ledger.prepare(cursor, "raw_shop")
        cursor.execute("create table raw_shop.items (id bigint primary key, price bigint)")
        cursor.execute("insert into raw_shop.items values (1, 10)")
    build(database)
    return database


def build(database: URL) -> None:
    """What dbt and the publisher do, in short."""
    with session(database, roles.TRANSFORMER) as connection:
        with connection, connection.cursor() as cursor:
            records.prepare(cursor)
            for schema in ("staging", "marts__audit"):
                ensure(cursor, schema)
            cursor.execute(
                "create or replace view staging.items as select id, price from raw_shop.items"
            )
            cursor.execute("create table marts__audit.facts as select * from staging.items")
        with connection, connection.cursor() as cursor:
            publish(cursor, [FACTS], {FACTS.published})


def test_the_transformer_reads_what_is_loaded_and_writes_none_of_it(warehouse: URL) -> None:
    transformer = of(warehouse, roles.TRANSFORMER)
    assert transformer("select count(*) from raw_shop.items") == [(1,)]
    assert transformer("select count(*) from elt.loads") == [(0,)]
    for statement in (
        "delete from raw_shop.items",
        "update elt.checkpoints set cursor_at = now()",
        "create table raw_shop.mine ()",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            transformer(statement)


def test_the_loader_writes_no_mart_and_reads_none(warehouse: URL) -> None:
    for statement in (
        "insert into marts.facts values (2, 2)",
        "drop table marts.facts",
        "select * from marts.facts",
        "update dbt.builds set state = 'published'",
        "create table marts.mine ()",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            of(warehouse, roles.LOADER)(statement)


def test_the_reporter_reads_published_marts_and_nothing_else(warehouse: URL) -> None:
    """After the first build, and after the next one too."""
    reporter = of(warehouse, roles.REPORTER)
    assert reporter("select price from marts.facts") == [(10,)]
    of(warehouse, roles.LOADER)("update raw_shop.items set price = 11")
    build(warehouse)
    assert reporter("select price from marts.facts") == [(11,)]
    of(warehouse, roles.TRANSFORMER)("create table marts__audit.facts (id int)")
    for table in (
        "raw_shop.items",
        "elt.loads",
        "staging.items",
        "marts__audit.facts",
        "dbt.builds",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            reporter(f"select * from {table}")  # noqa: S608 (ours)
    for statement in (
        "delete from marts.facts",
        "create table marts.mine ()",
        "create schema mine",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            reporter(statement)


def test_a_column_may_change_under_a_view_of_the_transformers(warehouse: URL) -> None:
    """The loader has none of the transformer's rights before and after that."""
    items = psycopg2.sql.Identifier("raw_shop", "items")
    of(warehouse, roles.TRANSFORMER)("grant select on staging.items to public")
    with session(warehouse, roles.LOADER) as connection, connection, connection.cursor() as cursor:
        with without_dependent_views(cursor, items):
            cursor.execute("alter table raw_shop.items alter price type text")
        cursor.execute("select current_user")
        assert cursor.fetchall() == [(roles.LOADER,)]
    view = (
        "select relowner::regrole::text, relacl::text like '%%=r/%%'"
        " from pg_class where oid = %s::regclass"
    )
    transformer = of(warehouse, roles.TRANSFORMER)
    assert transformer("select price from staging.items") == [("10",)]
    assert transformer(view, "staging.items") == [(roles.TRANSFORMER, True)]


def test_another_roles_view_on_a_mart_stops_the_next_publication_until_that_role_is_granted(
    warehouse: URL, query: Query
) -> None:
    query("drop role if exists analyst")
    query("create role analyst")
    try:
        query("grant select on marts.facts to analyst; grant usage on schema marts to analyst")
        query("create view public.mine as select price from marts.facts")
        query("alter view public.mine owner to analyst; grant create on schema public to analyst")
        with pytest.raises(ConfigurationError, match="Grant it that role"):
            build(warehouse)
        assert query("select price from public.mine") == [(10,)]
        query("grant analyst to transformer; drop table marts__audit.facts")
        of(warehouse, roles.LOADER)("update raw_shop.items set price = 11")
        build(warehouse)
        assert query("select price, pg_get_userbyid(relowner) from public.mine, pg_class"
                     " where relname = 'mine'") == [(11, "analyst")]  # fmt: skip
    finally:
        query("drop owned by analyst cascade")
        query("drop role analyst")


def test_twice_is_the_same_as_once(warehouse: URL, query: Query) -> None:
    once = query(STATE)
    assert len(once) > 10
    grant_roles(warehouse)
    assert query(STATE) == once


def test_what_one_role_made_goes_to_the_three(database: URL, query: Query) -> None:
    """A warehouse of before: all of it is the admin's, but for what an analyst made there."""
    query("drop role if exists analyst")
    query("create role analyst")
    for statement in (
        "create schema raw_shop; create table raw_shop.items as select 1 as id",
        "create schema marts; create table marts.facts (id bigint generated always as identity)",
        "create view marts.theirs as select 1 as one; alter view marts.theirs owner to analyst",
        "create schema marts__audit; create view marts__audit.left_over as select 1 as one",
    ):
        query(statement)
    grant_roles(database)
    owners = query(
        "select oid::regclass::text, pg_get_userbyid(relowner) from pg_class"
        " where relkind in ('r', 'v') and relnamespace::regnamespace::text ~ '^(raw_|marts)'"
        " order by 1"
    )
    assert owners == [
        ("marts.facts", "transformer"),
        ("marts.theirs", "analyst"),
        ("marts__audit.left_over", "transformer"),
        ("raw_shop.items", "loader"),
    ]
    assert of(database, roles.REPORTER)("select count(*) from marts.facts") == [(0,)]
    assert of(database, roles.TRANSFORMER)("select id from raw_shop.items") == [(1,)]
    query("drop owned by analyst cascade")
    query("drop role analyst")


def test_the_admin_need_not_be_a_superuser(database: URL, query: Query) -> None:
    """Only make roles, and own the database."""
    everybody = f"{roles.LOADER}, {roles.TRANSFORMER}, {roles.REPORTER}"
    query(f"drop role if exists {everybody}")
    query("create role admin login createrole")
    query(f'alter database "{database.database}" owner to admin')
    try:
        for _ in "ab":
            grant_roles(database.set(username="admin"))
        of(database, roles.LOADER)("create schema raw_shop")
        of(database, roles.LOADER)("create table raw_shop.items (id bigint)")
        assert of(database, roles.TRANSFORMER)("select count(*) from raw_shop.items") == [(0,)]
    finally:
        query(f'alter database "{database.database}" owner to current_user')
        for role in (*everybody.split(", "), "admin"):
            query(f"drop owned by {role} cascade")
        query(f"drop role {everybody}, admin")
