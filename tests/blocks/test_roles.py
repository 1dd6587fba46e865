"""Promises of the roles: what each may do, and what it may not."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg2
import pytest
from conftest import rows
from psycopg2 import errors
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from blocks import roles
from commands import psql
from deployments.local.postgres import libpq
from flows.dbt_build import history
from flows.dbt_build.publish import Relation, RelationName, publish
from flows.errors import ConfigurationError
from flows.load import ledger
from flows.postgres.dependent_views import without_dependent_views
from flows.postgres.schemas import ensure
from tests.load.memory_api import load_pages

pytestmark = [
    pytest.mark.skipif(
        "TEST_POSTGRES_URL" in os.environ,
        reason="these roles are the whole server's, without passwords",
    ),
    pytest.mark.no_ledger,
]

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
FACTS = Relation(RelationName("marts__audit", "facts"), RelationName("marts", "facts"))


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


def build(database: URL, role: str = roles.TRANSFORMER) -> None:
    """What dbt and the publisher do, in short."""
    with session(database, role) as connection:
        with connection, connection.cursor() as cursor:
            history.prepare(cursor)
            for schema in ("staging", "marts__audit"):
                ensure(cursor, schema)
            cursor.execute(
                "create or replace view staging.items as select id, price from raw_shop.items"
            )
            cursor.execute("create table marts__audit.facts as select * from staging.items")
        with connection, connection.cursor() as cursor:
            publish(cursor, [FACTS], {FACTS.published: frozenset()})


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


OWNERS = """
select nspname || coalesce('.' || relname, ''), pg_get_userbyid(coalesce(relowner, nspowner))
from pg_namespace
left join (
    select relnamespace, relname, relowner from pg_class where relkind in ('r', 'v')
    union all select oid, null, null from pg_namespace
) as its on relnamespace = pg_namespace.oid
where nspname ~ '^(elt|dbt|raw_.*|marts.*|staging)$' order by 1
"""
ETL = "etl_of_before"


@pytest.fixture
def etl(database: URL, query: Query) -> Iterator[Connection]:
    """One role that loads and builds, as all did before there were three; its session."""
    query(f"drop role if exists {ETL}; create role {ETL} login")
    query(f'grant create on database "{database.database}" to {ETL}')
    with session(database, ETL) as connection:
        yield connection
    query(f"drop owned by {ETL} cascade; drop role {ETL}")


def load_and_build(connection: Connection, database: URL) -> None:
    """What a load and a build leave."""
    load_pages(connection, [{"id": 1, "price": 10}])
    build(database, str(connection.info.user))


def test_what_one_role_made_goes_to_the_three(database: URL, etl: Connection, query: Query) -> None:
    """All of it, and nothing that somebody made by hand in between."""
    load_and_build(etl, database)
    of(database, ETL)("create table marts__audit.left_over (id int)")
    made = {name for name, _ in query(OWNERS)}
    by_hand = {"raw_shop.notes", "elt.notes", "dbt.notes"}
    for table in by_hand:
        of(database, ETL)(f"create table {table} (id int)")
    query("create table marts.theirs (id int)")
    admin = query("select current_user::text")[0][0]
    grant_roles(database)
    owners = dict(query(OWNERS))
    assert len(made) > 15
    for name in made:
        wanted = roles.LOADER if name.startswith(("raw_", "elt")) else roles.TRANSFORMER
        assert (name, owners[name]) == (name, wanted)
    assert {name: owners[name] for name in (*by_hand, "marts.theirs")} == {
        **dict.fromkeys(by_hand, ETL), "marts.theirs": admin,
    }  # fmt: skip
    assert of(database, ETL)("select count(*) from raw_shop.notes") == [(0,)]
    assert of(database, roles.REPORTER)("select count(*) from marts.facts") == [(1,)]
    with pytest.raises(errors.InsufficientPrivilege):
        of(database, roles.REPORTER)("select * from marts.theirs")
    with pytest.raises(errors.InsufficientPrivilege):
        of(database, roles.TRANSFORMER)("select * from raw_shop.notes")
    with session(database, roles.LOADER) as connection:
        assert load_pages(connection, [{"id": 2, "price": 11}]).inserted == 1
    build(database)


@pytest.mark.parametrize(
    "older",
    [
        "comment on schema elt is null; comment on schema dbt is 'What the night left'",
        "alter table raw_shop.items alter _load_id drop default, alter _loaded_at drop default",
        "truncate raw_shop.items",
    ],
)
def test_what_an_older_version_made_is_known(
    database: URL, etl: Connection, query: Query, older: str
) -> None:
    """The first one wrote no comment on a schema, and gave `_load_id` no default."""
    load_and_build(etl, database)
    query(older)
    grant_roles(database)
    owners = dict(query(OWNERS))
    assert owners["elt"] == owners["elt.loads"] == owners["raw_shop.items"] == roles.LOADER
    assert owners["dbt"] == owners["dbt.builds"] == owners["marts.facts"] == roles.TRANSFORMER


def test_empty_schemas_that_an_admin_made_are_used(database: URL, query: Query) -> None:
    query("create schema elt; create schema dbt; create schema staging; create schema marts")
    grant_roles(database)
    owners = [("dbt", roles.TRANSFORMER), ("elt", roles.LOADER),
              ("marts", roles.TRANSFORMER), ("staging", roles.TRANSFORMER)]  # fmt: skip
    assert query(OWNERS) == owners


def test_a_raw_schema_whose_first_load_stored_nothing_is_known(
    database: URL, etl: Connection, query: Query
) -> None:
    load_pages(etl, [])
    query("create schema raw_empty")
    grant_roles(database)
    owners = dict(query(OWNERS))
    assert owners["raw_shop"] == roles.LOADER
    assert owners["raw_empty"] != roles.LOADER


def test_schemas_of_somebody_elses_are_left_as_they_are(
    database: URL, etl: Connection, query: Query
) -> None:
    """Whatever their names; the others are handed over."""
    load_and_build(etl, database)
    query("create schema raw_bank; create table raw_bank.accounts (id int, _load_id bigint)")
    query("insert into raw_bank.accounts values (1, 1)")
    query("create schema snapshots; create table snapshots.holidays (id int)")
    query("create schema failures__audit")
    theirs = r"^(raw_bank|snapshots|failures__audit)"
    before = [row for row in query(STATE) if re.match(theirs, row[1])]
    grant_roles(database)
    assert len(before) == 5
    assert [row for row in query(STATE) if re.match(theirs, row[1])] == before
    assert dict(query(OWNERS))["marts.facts"] == roles.TRANSFORMER


@pytest.mark.parametrize("schema", ["elt", "dbt", "marts"])
def test_a_schema_of_somebody_elses_that_is_needed_is_refused_and_nothing_is_done(
    database: URL, query: Query, schema: str
) -> None:
    query(f"create schema {schema}; create table {schema}.loads (id int)")
    before = query(STATE)
    with pytest.raises(ConfigurationError, match=rf"Schema {schema} is there already.*Rename it"):
        grant_roles(database)
    assert query(STATE) == before


def test_psql_runs_the_file_and_does_all_of_it_or_nothing(database: URL, query: Query) -> None:
    """Without an option that makes it stop at an error."""
    file = str(Path(roles.__file__).with_suffix(".sql"))
    command = [str(psql.binary()), "--no-psqlrc", "--file", file, libpq(database)]

    def said() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    query("create schema marts; create table marts.theirs (id int)")
    before = query(STATE)
    assert re.search(
        r"ERROR: .*Schema marts is there already.*HINT: .*Rename it", said(), re.DOTALL
    )
    assert query(STATE) == before
    query("drop schema marts cascade; create schema raw_bank")
    warned = said()
    assert "ERROR" not in warned
    assert re.search(r"WARNING: .*raw_bank is left as it is", warned)
    assert "HINT:  If loads or builds are to write there: alter schema raw_bank owner" in warned
    assert query("select has_schema_privilege('reporter', 'marts', 'usage')") == [(True,)]


def test_somebody_elses_role_is_refused_until_its_owner_confirms_it(
    database: URL, query: Query
) -> None:
    """It would no longer have the rights that it inherits."""
    everybody = f"{roles.LOADER}, {roles.TRANSFORMER}, {roles.REPORTER}"
    query(f"drop role if exists {everybody}; drop role if exists analysts")
    query(f"create role analysts; create role {roles.LOADER} login in role analysts")
    try:
        before = query(STATE)
        with pytest.raises(ConfigurationError, match=r"role loader is there .*comment on role"):
            grant_roles(database)
        assert query(STATE) == before
        query(f"comment on role {roles.LOADER} is 'For blocks/roles.sql'")
        grant_roles(database)
        assert query("select to_regrole('reporter') is not null") == [(True,)]
    finally:
        query("drop role analysts")


def test_roles_of_an_older_version_and_those_that_have_nothing_yet_are_known(
    database: URL, query: Query
) -> None:
    query(f"drop role if exists {roles.LOADER}, {roles.TRANSFORMER}, {roles.REPORTER}")
    query(f"create role {roles.LOADER} login")
    grant_roles(database)
    for role in (roles.LOADER, roles.TRANSFORMER, roles.REPORTER):
        query(f"comment on role {role} is null")
    grant_roles(database)
    assert query("select shobj_description(to_regrole('reporter'), 'pg_authid') <> ''") == [(True,)]


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
