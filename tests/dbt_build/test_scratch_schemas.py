"""Schemas that builds work in: known by what they record, never by how they are called."""

import os
from collections.abc import Callable, Iterator

import pytest
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build import history, scratch_schemas
from flows.dbt_build.manifests import made_before, to_make
from flows.dbt_build.publish import RelationName
from flows.errors import ConfigurationError

Query = Callable[..., list[tuple]]

FACTS, REPORT = RelationName("marts__audit", "facts"), RelationName("marts__audit", "report")


@pytest.fixture
def cursor(connection: Connection) -> Iterator[Cursor]:
    """A cursor whose statements are all committed at once, as others see them."""
    connection.autocommit = True
    with connection.cursor() as opened:
        yield opened


@pytest.fixture
def built(cursor: Cursor) -> None:
    """A build made a table, and a view that reads it, and was not published."""
    scratch_schemas.prepare(cursor, [FACTS, REPORT])
    cursor.execute("create table marts__audit.facts (id int)")
    cursor.execute("create view marts__audit.report as select id from marts__audit.facts")


def drop_leftovers(cursor: Cursor) -> None:
    """Drop them as a build does, in one transaction."""
    cursor.execute("begin")
    try:
        scratch_schemas.drop_leftovers(cursor, "__audit")
    except ConfigurationError:
        cursor.execute("rollback")
        raise
    cursor.execute("commit")


def is_there(query: Query, name: str) -> bool:
    return query("select to_regclass(%s) is not null", name) == [(True,)]


@pytest.mark.usefixtures("built")
def test_only_what_builds_made_is_dropped(cursor: Cursor, query: Query) -> None:
    query("create table marts__audit.mine (id int)")
    for schema in ("crm__audit", "raw_bank__audit"):
        query(f"create schema {schema}; create table {schema}.facts (id int)")
    drop_leftovers(cursor)
    assert not is_there(query, "marts__audit.facts")
    assert not is_there(query, "marts__audit.report")
    for kept in ("marts__audit.mine", "crm__audit.facts", "raw_bank__audit.facts"):
        assert is_there(query, kept)
    assert scratch_schemas.unknown(cursor, "__audit") == [RelationName("marts__audit", "mine")]


@pytest.mark.usefixtures("built")
def test_a_view_of_somebody_elses_on_a_leftover_is_named_and_stays(
    cursor: Cursor, query: Query
) -> None:
    query("create view public.mine as select id from marts__audit.report")
    with pytest.raises(ConfigurationError, match=r"view mine depends on view marts__audit\.report"):
        drop_leftovers(cursor)
    assert is_there(query, "public.mine")
    assert is_there(query, "marts__audit.facts")
    query("drop view public.mine")
    drop_leftovers(cursor)
    assert not is_there(query, "marts__audit.facts")


def test_a_schema_whose_suffix_postgres_would_cut_is_refused(cursor: Cursor, query: Query) -> None:
    """Of 63 bytes, the schema that readers see and the one of a build would be one."""
    published = "m" * 63
    with pytest.raises(
        ConfigurationError, match=f"{published}__audit.* 70 bytes.* truncates .* 63"
    ):
        scratch_schemas.prepare(cursor, [FACTS, RelationName(f"{published}__audit", "facts")])
    assert query("select to_regnamespace(%s) is null", published) == [(True,)]


def test_a_schema_that_no_build_created_is_not_built_in(cursor: Cursor, query: Query) -> None:
    query("create schema marts__audit")
    with pytest.raises(ConfigurationError, match="Schema marts__audit already exists"):
        scratch_schemas.prepare(cursor, [FACTS])


@pytest.mark.usefixtures("built")
def test_a_table_in_our_schema_that_dbt_would_replace_is_refused(
    cursor: Cursor, query: Query
) -> None:
    query("create table marts__audit.dim (id int)")
    dim = RelationName("marts__audit", "dim")
    with pytest.raises(ConfigurationError, match=r"no build of this role made: marts__audit\.dim"):
        scratch_schemas.prepare(cursor, [dim])
    query("drop table marts__audit.dim")
    scratch_schemas.prepare(cursor, [dim])


@pytest.mark.usefixtures("built")
def test_published_relations_leave_the_record_of_their_schema(cursor: Cursor, query: Query) -> None:
    query("drop view marts__audit.report")
    query("alter table marts__audit.facts set schema public")
    scratch_schemas.forget_missing(cursor, ["marts__audit"])
    query("create table marts__audit.facts as select 1 as mine")
    drop_leftovers(cursor)
    assert is_there(query, "marts__audit.facts")


@pytest.mark.usefixtures("built")
def test_what_another_role_owns_stays(cursor: Cursor, query: Query) -> None:
    roles = [f"{each}_{os.getpid()}" for each in ("builder", "analyst")]
    builder, analyst = roles
    for role in roles:
        query(f"create role {role}")
    try:
        query(f"alter schema marts__audit owner to {builder}")
        query(f"alter table marts__audit.{scratch_schemas.RECORD} owner to {builder}")
        query(f"alter table marts__audit.facts owner to {analyst}")
        cursor.execute(f"set role {builder}")
        with pytest.raises(ConfigurationError, match=r"marts__audit\.facts"):
            scratch_schemas.prepare(cursor, [FACTS])
        assert FACTS in scratch_schemas.unknown(cursor, "__audit")
    finally:
        cursor.execute("reset role")
        for role in roles:
            query(f"drop owned by {role} cascade")
            query(f"drop role {role}")


def node(schema: str, name: str) -> dict[str, object]:
    return {
        "unique_id": f"model.warehouse.{name}",
        "resource_type": "model",
        "schema": schema,
        "alias": name,
        "config": {"materialized": "table"},
    }


def test_what_earlier_versions_made_is_known_from_their_manifests(
    cursor: Cursor, query: Query
) -> None:
    """Those kept no record. What no manifest names, and raw tables, are not adopted."""
    for schema in ("marts__audit", "crm__audit", "raw_bank__audit"):
        query(f"create schema {schema}; create table {schema}.facts (id int)")
    query("create table marts__audit.mine (id int)")
    history.prepare(cursor)
    build_id = history.begin(cursor, None, "A test.", "code", {})
    nodes = {"a": node("marts", "facts"), "b": node("raw_bank", "facts"), "c": node("hr", "facts")}
    history.mark_published(cursor, build_id, {"nodes": nodes}, [], [])
    query("update dbt.builds set is_recorded = null")

    scratch_schemas.adopt(cursor, made_before(history.unrecorded_manifests(cursor), "__audit"))
    drop_leftovers(cursor)
    assert not is_there(query, "marts__audit.facts")
    for kept in ("marts__audit.mine", "crm__audit.facts", "raw_bank__audit.facts"):
        assert is_there(query, kept)
    assert scratch_schemas.own_schemas(cursor, "__audit") == ["marts__audit"]

    history.begin(cursor, None, "A build that records.", "code", {})
    assert list(history.unrecorded_manifests(cursor)) == []


@pytest.mark.parametrize("schema", ["marts", "raw_bank__audit", "elt__audit", "dbt__audit"])
def test_a_model_in_a_schema_that_no_build_may_write_is_refused(schema: str) -> None:
    manifest = {"nodes": {"model.warehouse.facts": node(schema, "facts")}}
    with pytest.raises(ConfigurationError, match=r"dbt would build model\.warehouse\.facts"):
        to_make(manifest, ["model.warehouse.facts"], "__audit")
