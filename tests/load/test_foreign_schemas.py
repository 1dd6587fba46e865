"""Schemas that somebody else made keep what they hold: their names alone don't make them ours."""

from collections.abc import Callable
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.dbt_build import history
from flows.errors import ConfigurationError
from flows.load import ledger
from tests.load.memory_api import load_pages

Query = Callable[..., list[tuple[Any, ...]]]

pytestmark = pytest.mark.no_ledger
HELD = """
select pg_describe_object(classid, objid, objsubid) from pg_depend
where refclassid = 'pg_namespace'::regclass and deptype = 'n'
    and refobjid = any (array(select oid from pg_namespace where nspname in ('elt', 'dbt')))
"""
COMMENT = "select obj_description(to_regnamespace('{}'))"


def load(connection: Connection) -> None:
    load_pages(connection, [{"id": 1}])


def build(connection: Connection) -> None:
    """The first step of a build."""
    with connection, connection.cursor() as cursor:
        history.prepare(cursor)


BOTH = pytest.mark.parametrize(("schema", "use"), [("elt", load), ("dbt", build)])


@BOTH
@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("create table {}.customers (id int)", "table {}.customers"),
        ("create table {0}.loads (id int); create table {0}.builds (id int)", "table {}.loads"),
        ("create function {}.f() returns int language sql as 'select 1'", r"function {}.f\(\)"),
        ("create type {}.mood as enum ('good')", "type {}.mood"),
    ],
    ids=["a table", "a table of our name", "a function", "a type"],
)
def test_a_schema_that_somebody_else_made_is_refused_by_name_and_left_as_it_is(
    connection: Connection,
    query: Query,
    schema: str,
    use: Callable[[Connection], None],
    statement: str,
    named: str,
) -> None:
    query(f"create schema {schema}; comment on schema {schema} is 'ours, not yours'")
    query(statement.format(schema))
    before = query(HELD)
    said = rf"Schema {schema} .* not this project's.* holds .*{named.format(schema)}.* Rename"
    with pytest.raises(ConfigurationError, match=said):
        use(connection)
    assert query(HELD) == before
    assert query(COMMENT.format(schema)) == [("ours, not yours",)]


@BOTH
def test_an_empty_schema_is_used(
    connection: Connection, query: Query, schema: str, use: Callable[[Connection], None]
) -> None:
    """An admin made it for a role that may not create schemas."""
    query(f"create schema {schema}; comment on schema {schema} is 'for loads and builds'")
    query(f"alter default privileges in schema {schema} grant select on tables to public")
    use(connection)
    assert "version" in query(COMMENT.format(schema))[0][0]


@BOTH
def test_our_schema_is_known_by_its_tables_where_its_comment_is_lost(
    connection: Connection, query: Query, schema: str, use: Callable[[Connection], None]
) -> None:
    use(connection)
    for comment in ("null", "'What the night leaves behind'"):
        query(f"comment on schema {schema} is {comment}")
        use(connection)
        assert "version" in query(COMMENT.format(schema))[0][0]


@BOTH
def test_what_somebody_puts_into_our_schema_is_in_nobodys_way(
    connection: Connection, query: Query, schema: str, use: Callable[[Connection], None]
) -> None:
    use(connection)
    query(f"create table {schema}.customers (id int); comment on schema {schema} is null")
    use(connection)
    assert query(f"select count(*) from {schema}.customers") == [(0,)]  # noqa: S608 (ours)


def test_a_build_does_not_read_somebody_elses_ledger(connection: Connection, query: Query) -> None:
    query("create schema elt; create table elt.loads (id int)")
    with connection, connection.cursor() as cursor:
        assert (ledger.newest(cursor), history.raw_tables(cursor)) == (0, [])
