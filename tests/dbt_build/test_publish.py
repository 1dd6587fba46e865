"""Publishing: all at once, and what consumers made on the old relations stays."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.dbt_build import publish as module
from flows.dbt_build.publish import Relation, RelationName, publish
from flows.errors import ConfigurationError, UnavailableError

Query = Callable[..., list[tuple]]

pytestmark = pytest.mark.no_ledger
FACTS = Relation(RelationName("marts__audit", "facts"), RelationName("marts", "facts"))
REPORT = Relation(RelationName("marts__audit", "report"), RelationName("marts", "report"))


@pytest.fixture
def schemas(query: Query) -> None:
    """Version 1 is published, version 2 waits: a table, and a view that reads it."""
    query("create schema marts; create schema marts__audit")
    query("create table marts.facts as select 1 as id, 'old' as version")
    query("create view marts.report as select version from marts.facts")
    query("create table marts__audit.facts as select 2 as id, 'new' as version")
    query("create view marts__audit.report as select version from marts__audit.facts")


CONSTRAINTS = """
select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
where connamespace in ('marts'::regnamespace, 'public'::regnamespace) and contype <> 'n'
order by 1, 2
"""


def run(connection: Connection, *relations: Relation) -> None:
    with connection, connection.cursor() as cursor:
        publish(
            cursor, relations, dict.fromkeys((each.published for each in relations), frozenset())
        )


@pytest.mark.usefixtures("schemas")
def test_grants_indexes_and_views_of_others_stay(connection: Connection, query: Query) -> None:
    query("create unique index by_id on marts.facts (id)")
    query("grant select on marts.facts to public")
    query("create view public.mine as select id from marts.facts")
    run(connection, FACTS, REPORT)
    assert query("select * from marts.report") == [("new",)]
    assert query("select * from public.mine") == [(2,)]
    assert query(
        "select indexname, indexdef like '% UNIQUE %' from pg_indexes where schemaname = 'marts'"
    ) == [("by_id", True)]
    assert query("select relacl::text like '%=r/%' from pg_class where relname = 'facts'") == [
        (True,)
    ]
    assert query("select count(*) from pg_class where relnamespace = 'marts__audit'::regnamespace"
                 " and relkind in ('r', 'v')") == [(0,)]  # fmt: skip


@pytest.mark.usefixtures("schemas")
def test_what_was_attached_to_columns_stays_where_they_are_still_there(
    connection: Connection, query: Query
) -> None:
    for statement in (
        "alter table marts.facts add column gone text",
        "grant select (id, gone), update (id) on marts.facts to public",
        "comment on table marts.facts is 'by hand'",
        "comment on column marts.facts.id is 'by hand'",
        "comment on column marts.facts.version is 'by hand'",
        "comment on column marts.facts.gone is 'by hand'",
        "comment on column marts__audit.facts.version is 'from dbt'",
        "create view public.mine as select id from marts.facts",
        "grant select (id) on public.mine to public",
        "comment on column public.mine.id is 'mine'",
    ):
        query(statement)
    run(connection, FACTS, REPORT)
    granted = (
        "select table_name::text, column_name::text, privilege_type::text"
        " from information_schema.column_privileges where grantee = 'PUBLIC'"
        " and table_schema in ('marts', 'public') order by 1, 2, 3"
    )
    assert query(granted) == [
        ("facts", "id", "SELECT"),
        ("facts", "id", "UPDATE"),
        ("mine", "id", "SELECT"),
    ]
    comments = (
        "select objoid::regclass::text, objsubid, description from pg_description"
        " where classoid = 'pg_class'::regclass and objoid in"
        " ('marts.facts'::regclass, 'public.mine'::regclass) order by 1, 2"
    )
    assert query(comments) == [
        ("marts.facts", 0, "by hand"),
        ("marts.facts", 1, "by hand"),
        ("marts.facts", 2, "from dbt"),
        ("mine", 1, "mine"),
    ]


RULES_BY_HAND = """
create function public.stop() returns trigger language plpgsql as 'begin return null; end';
create trigger stopped before insert on marts.facts for each row execute function public.stop();
alter table marts.facts disable trigger stopped;
alter table marts.facts enable row level security;
create policy recent on marts.facts for select to public using (id > 1);
create view public.mine as select id from marts.facts;
create trigger mine instead of insert on public.mine for each row execute function public.stop();
create rule quiet as on delete to public.mine do instead nothing;
alter view public.mine alter column id set default 7;
"""
RULES = """
select tgname::text || ' ' || tgenabled::text from pg_trigger where not tgisinternal
union all select rulename from pg_rewrite where rulename = 'quiet'
union all select polname || ' ' || pg_get_expr(polqual, polrelid) from pg_policy
union all select relname || ' is secured' from pg_class where relrowsecurity
union all select 'default ' || pg_get_expr(adbin, adrelid) from pg_attrdef
order by 1
"""


@pytest.mark.usefixtures("schemas")
def test_triggers_policies_rules_and_defaults_stay(connection: Connection, query: Query) -> None:
    query(RULES_BY_HAND)
    query("alter table marts__audit.facts enable row level security")
    query("create policy recent on marts__audit.facts using (id > 2)")  # a hook's goes before
    run(connection, FACTS, REPORT)
    assert query(RULES) == [
        ("default 7",),
        ("facts is secured",),
        ("mine O",),
        ("quiet",),
        ("recent (id > 2)",),
        ("stopped D",),
    ]


@pytest.mark.usefixtures("schemas")
def test_a_policy_stays_and_one_that_can_not_stops_it_all(
    connection: Connection, query: Query
) -> None:
    query("alter table marts.facts enable row level security")
    query("create policy recent on marts.facts for select to public using (version = 'new')")
    run(connection, FACTS)
    assert query("select pg_get_expr(polqual, polrelid) from pg_policy") == [
        ("(version = 'new'::text)",)
    ]
    query("create table marts__audit.facts as select 3 as id")
    with pytest.raises(ConfigurationError, match="a consumer's object depends on"):
        run(connection, FACTS, REPORT)


@pytest.mark.usefixtures("schemas")
def test_a_grantee_that_may_grant_still_may(connection: Connection, query: Query) -> None:
    query("drop role if exists analyst")
    query("create role analyst")
    try:
        query("grant select on marts.facts to analyst with grant option")
        run(connection, FACTS, REPORT)
        may = "select has_table_privilege('analyst', 'marts.facts', 'select with grant option')"
        assert query(may) == [(True,)]
    finally:
        query("drop owned by analyst")
        query("drop role analyst")


@pytest.mark.usefixtures("schemas")
def test_what_is_new_gets_the_default_grants_of_its_schema(
    connection: Connection, query: Query
) -> None:
    query("alter default privileges in schema marts grant select on tables to public")
    query("create table marts__audit.fresh as select 1 as id")
    run(connection, Relation(RelationName("marts__audit", "fresh"), RelationName("marts", "fresh")))
    assert query("select has_table_privilege('public', 'marts.fresh', 'select')") == [(True,)]


@pytest.mark.usefixtures("schemas")
def test_a_view_that_would_not_survive_stops_it_all(connection: Connection, query: Query) -> None:
    query("create view public.mine as select id from marts.facts")
    query("alter table marts__audit.facts drop column id")
    with pytest.raises(ConfigurationError, match="a consumer's object depends on"):
        run(connection, FACTS, REPORT)
    assert query("select * from marts.report") == [("old",)]
    assert query("select * from public.mine") == [(1,)]


@pytest.mark.usefixtures("schemas")
def test_a_materialized_view_of_a_consumers_stops_it_all_by_name(
    connection: Connection, query: Query
) -> None:
    query("create materialized view public.mine as select id from marts.facts")
    with pytest.raises(ConfigurationError, match=r'"public"\."mine" is a materialized view'):
        run(connection, FACTS, REPORT)
    assert query("select * from marts.report") == [("old",)]
    query("drop materialized view public.mine")
    run(connection, FACTS, REPORT)
    assert query("select * from marts.report") == [("new",)]


@pytest.mark.usefixtures("schemas")
def test_what_no_build_published_is_not_replaced(connection: Connection, query: Query) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"no build made marts\.facts.*Rename or drop it"),
        connection,
        connection.cursor() as cursor,
    ):
        publish(cursor, [FACTS, REPORT], {REPORT.published: frozenset()})
    assert query("select version from marts.facts") == [("old",)]
    assert query("select version from marts.report") == [("old",)]


@pytest.mark.usefixtures("schemas")
def test_a_reader_that_keeps_its_lock_is_named(
    connection: Connection,
    query: Query,
    database: URL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_SECONDS", 1)
    reader = psycopg2.connect(libpq(database))
    try:
        reader.cursor().execute("select * from marts.facts")
        with pytest.raises(UnavailableError, match=f"held by process {reader.info.backend_pid} "):
            run(connection, FACTS, REPORT)
    finally:
        reader.close()
    assert query("select * from marts.report") == [("old",)]


@pytest.mark.usefixtures("schemas")
def test_constraints_by_hand_and_foreign_keys_to_marts_stay(
    connection: Connection, query: Query
) -> None:
    """The mart `lines` is not part of the build; the others refer to a key made by hand."""
    query("alter table marts.facts add constraint mine primary key (id), add check (id > 0)")
    query("alter table marts.facts alter column version set not null")
    query("create table marts.lines (id int constraint to_facts references marts.facts)")
    query("create table public.notes (id int references marts.facts on delete cascade)")
    query("alter table marts.facts add constraint itself foreign key (id) references marts.facts")
    query("insert into marts.lines values (1)")
    with pytest.raises(
        ConfigurationError, match=r"key to_facts of marts\.lines can't.* this build left"
    ):
        run(connection, FACTS, REPORT)
    assert query("select * from marts.report") == [("old",)]

    query("insert into marts__audit.facts values (1, 'new')")
    before = query(CONSTRAINTS)
    run(connection, FACTS, REPORT)
    assert query(CONSTRAINTS) == before
    assert len(before) == 5
    assert query("select count(*) from marts.facts") == [(2,)]
    not_null = "select attname from pg_attribute where attrelid = 'marts.facts'::regclass"
    assert query(f"{not_null} and attnum > 0 and attnotnull order by 1") == [("id",), ("version",)]

    query("create table marts__audit.facts as select 1 as id, null::text as version")
    with pytest.raises(ConfigurationError, match=r"constraint version of .* can't be kept"):
        run(connection, FACTS)
    query("drop table marts__audit.facts")

    query("create table marts__audit.facts as select 1 as id union all select 1")
    with pytest.raises(ConfigurationError, match=r'primary key mine of "marts"\."facts" can\'t'):
        run(connection, FACTS)


@pytest.mark.usefixtures("schemas")
def test_a_foreign_key_that_dbts_role_may_not_change_is_named(
    connection: Connection, query: Query
) -> None:
    builder, other = (f"{each}_{os.getpid()}" for each in ("builder", "other"))
    query(f"create role {builder}; create role {other}")
    try:
        query("alter table marts.facts add primary key (id)")
        query("create schema private; create table private.notes (id int references marts.facts)")
        query(f"alter table private.notes owner to {other}")
        for schema in ("marts", "marts__audit"):
            query(f"grant all on schema {schema} to {builder}")
            query(f"alter table {schema}.facts owner to {builder}")
            query(f"alter view {schema}.report owner to {builder}")
        connection.cursor().execute(f"set role {builder}")
        message = rf"key notes_id_fkey of private\.notes .* role {other}"
        with pytest.raises(ConfigurationError, match=message):
            run(connection, FACTS, REPORT)
        assert query("select * from marts.report") == [("old",)]
    finally:
        connection.rollback()
        for role in (builder, other):
            query(f"drop owned by {role} cascade")
            query(f"drop role {role}")


@pytest.mark.usefixtures("schemas")
def test_an_index_whose_expression_fails_for_a_new_row_is_named(
    connection: Connection, query: Query
) -> None:
    query("update marts.facts set version = '1'")
    query("create index as_number on marts.facts ((version::int))")
    with pytest.raises(ConfigurationError, match=r"index as_number of .* can't be kept"):
        run(connection, FACTS, REPORT)
    query("drop index marts.as_number; create index too_long on marts.facts (version)")
    query("update marts__audit.facts set version ="
          " (select string_agg(md5(i::text), '') from generate_series(1, 999) as i)")  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"index too_long of .* can't be kept"):
        run(connection, FACTS, REPORT)


@pytest.mark.usefixtures("schemas")
def test_an_index_that_a_session_commits_while_publishing_waits_for_it_stays(
    connection: Connection, query: Query, database: URL
) -> None:
    owner = psycopg2.connect(libpq(database))
    owner.cursor().execute("create index by_hand on marts.facts (id)")
    with ThreadPoolExecutor() as pool:
        publishing = pool.submit(run, connection, FACTS, REPORT)
        waiting = (
            "select count(*) from pg_stat_activity"
            " where wait_event_type = 'Lock' and datname = current_database()"
        )
        while query(waiting) == [(0,)] and not publishing.done():
            pass
        owner.commit()
        publishing.result()
    owner.close()
    assert query("select version from marts.facts") == [("new",)]
    assert query("select indexname from pg_indexes where schemaname = 'marts'") == [("by_hand",)]


@pytest.mark.usefixtures("schemas")
def test_what_only_an_earlier_build_made_is_gone(connection: Connection, query: Query) -> None:
    """An index of a column that is no longer there; a constraint and a grant that left the code."""
    query("drop view marts.report, marts__audit.report")
    query("create index by_version on marts__audit.facts (version)")
    query("alter table marts__audit.facts add primary key (id), add check (id > 1)")
    query("alter table marts__audit.facts alter column version set not null")
    query("grant select on marts__audit.facts to public")
    made = {FACTS.published: frozenset[str]()}
    for columns in ("id, 1 as other", "-id as id"):
        with connection, connection.cursor() as cursor:
            made = publish(cursor, [FACTS], made)
        query(f"create table marts__audit.facts as select {columns} from marts.facts")  # noqa: S608
        query("create index if not exists by_hand on marts.facts (id)")
    with connection, connection.cursor() as cursor:
        publish(cursor, [FACTS], made)
    assert query("select id from marts.facts") == [(-2,)]
    assert query(CONSTRAINTS) == []
    assert query("select indexname from pg_indexes where schemaname = 'marts'") == [("by_hand",)]
    assert query("select has_table_privilege('public', 'marts.facts', 'select')") == [(False,)]


@pytest.mark.usefixtures("schemas")
def test_a_copy_keeps_what_an_earlier_build_attached(connection: Connection, query: Query) -> None:
    """Hooks of an incremental model may attach it in the first build only."""
    query("create function public.stop() returns trigger language plpgsql"
          " as 'begin return null; end'")  # fmt: skip
    for statement in (
        "drop view marts.report, marts__audit.report",
        "create trigger stopped before insert on marts__audit.facts"
        " for each row execute function public.stop()",
        "alter table marts__audit.facts enable row level security",
        "create policy recent on marts__audit.facts for select to public using (id > 1)",
        "grant select on marts__audit.facts to public",
    ):
        query(statement)
    made = {FACTS.published: frozenset[str]()}
    with connection, connection.cursor() as cursor:
        first = made = publish(cursor, [FACTS], made)
    query("create policy by_hand on marts.facts for delete to public using (true)")
    for _ in range(2):
        query("create table marts__audit.facts (like marts.facts)")
        with connection, connection.cursor() as cursor:
            made = publish(cursor, [replace(FACTS, is_copy=True)], made)
    assert query(RULES) == [
        ("by_hand true",),
        ("facts is secured",),
        ("recent (id > 1)",),
        ("stopped O",),
    ]
    assert query("select has_table_privilege('public', 'marts.facts', 'select')") == [(True,)]
    assert made == first


@pytest.mark.usefixtures("schemas")
def test_a_materialized_view_of_a_build_is_replaced(connection: Connection, query: Query) -> None:
    total = Relation(RelationName("marts__audit", "total"), RelationName("marts", "total"))
    query("create materialized view marts.total as select count(*) as n from marts.facts")
    query("create view public.mine as select n from marts.total")
    query("create index by_n on marts.total (n)")
    query("create materialized view marts__audit.total as select 7 as n from marts__audit.facts")
    run(connection, total, FACTS, REPORT)
    assert query("select n from public.mine") == [(7,)]
    assert query("select tablename from pg_indexes where indexname = 'by_n'") == [("total",)]


@pytest.mark.usefixtures("schemas")
def test_an_index_may_have_the_name_of_an_old_one_but_not_of_another_relation(
    connection: Connection, query: Query
) -> None:
    other = Relation(RelationName("marts__audit", "other"), RelationName("marts", "other"))
    query("create table marts.other as select 1 as id; create table marts__audit.other (id int)")
    query("create index by_id on marts.other (id); create index by_id on marts__audit.facts (id)")
    with connection, connection.cursor() as cursor:
        made = {
            FACTS.published: frozenset[str](),
            other.published: frozenset({"index USING btree (id)"}),
        }
        publish(cursor, [FACTS, other], {**made, REPORT.published: frozenset[str]()})
    query("create table marts__audit.facts (id int, version text)")
    query("create index other on marts__audit.facts (id)")
    with pytest.raises(ConfigurationError, match="something else has the name"):
        run(connection, FACTS)
