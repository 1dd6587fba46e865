"""Copies of published tables, to which dbt adds: the same rows, indexes, constraints and names."""

from collections.abc import Callable

import pytest
from psycopg2.errors import UniqueViolation
from psycopg2.extensions import connection as Connection

from flows.dbt_build import scratch_schemas
from flows.dbt_build.publish import Relation, RelationName, publish
from flows.dbt_build.published_copies import copy_published

Query = Callable[..., list[tuple]]

ITEMS = Relation(RelationName("snapshots__audit", "items"), RelationName("snapshots", "items"))
ITEMS_TABLE = """
create table snapshots.items (
    id int constraint "my key" primary key,
    "a USING b" text,
    price numeric constraint is_positive check (price > 0) not null,
    n int unique
)
"""
ODD_INDEX = """
create unique index "the %first{} USING" on snapshots.items (("a USING b" || '%{}')) where price > 5
"""
INDEXES = """
select replace(indexdef, 'snapshots__audit.', 'snapshots.') from pg_indexes
where schemaname = %s and tablename = 'items' order by 1
"""
CONSTRAINTS = """
select conname, pg_get_constraintdef(oid) from pg_constraint
where conrelid = to_regclass(%s) order by 1
"""


def copy(connection: Connection) -> None:
    with connection, connection.cursor() as cursor:
        scratch_schemas.drop_leftovers(cursor, "__audit")
        scratch_schemas.prepare(cursor, [ITEMS.audited])
        copy_published(cursor, [ITEMS])


def test_a_build_that_fails_has_added_to_a_copy_alone(connection: Connection, query: Query) -> None:
    """And what the next one publishes holds all that was there, and nothing of the failed one."""
    query("create schema snapshots")
    query("create table snapshots.items as select 1 as id, 'first' as version")
    for version in ("bad", "second"):
        copy(connection)
        query("insert into snapshots__audit.items values (1, %s)", version)
        assert query("select version from snapshots.items") == [("first",)]
    with connection, connection.cursor() as cursor:
        publish(cursor, [ITEMS], {ITEMS.published: frozenset()})
    assert query("select version from snapshots.items order by 1") == [("first",), ("second",)]


def test_a_copy_has_the_indexes_and_constraints_of_what_is_published_by_name(
    connection: Connection, query: Query
) -> None:
    query("create schema snapshots")
    query(ITEMS_TABLE)
    query(ODD_INDEX)
    query("create index items_id_idx1 on snapshots.items (n) include (price)")
    query("create index items_id_idx on snapshots.items (n desc)")
    query("insert into snapshots.items values (1, 'x', 2, 3)")
    copy(connection)
    assert query(INDEXES, "snapshots__audit") == query(INDEXES, "snapshots")
    assert len(query(INDEXES, "snapshots")) == 5
    copied = query(CONSTRAINTS, "snapshots__audit.items")
    assert copied == query(CONSTRAINTS, "snapshots.items")
    with pytest.raises(UniqueViolation, match="my key"):
        query("insert into snapshots__audit.items values (1, 'y', 2, 4)")
    with connection, connection.cursor() as cursor:
        publish(cursor, [ITEMS], {ITEMS.published: frozenset()})
    assert len(query(INDEXES, "snapshots")) == 5


def test_a_copy_goes_on_counting_and_computing(connection: Connection, query: Query) -> None:
    query("create schema snapshots")
    query("create unlogged table snapshots.items (id int generated always as identity, price int,"
          " doubled int generated always as (price * 2) stored)")  # fmt: skip
    query("insert into snapshots.items (price) values (1), (2)")
    copy(connection)
    query("insert into snapshots__audit.items (price) values (3)")
    copied = query("select id, price, doubled from snapshots__audit.items order by 2")
    assert [row[1:] for row in copied] == [(1, 2), (2, 4), (3, 6)]
    assert len({row[0] for row in copied}) == 3
    assert query("select relpersistence from pg_class where relname = 'items'") == [("u",), ("u",)]


def test_what_is_not_published_or_a_view_has_no_copy(connection: Connection, query: Query) -> None:
    copy(connection)
    query("create schema snapshots; create view snapshots.items as select 1 as id")
    copy(connection)
    assert query("select to_regclass('snapshots__audit.items')") == [(None,)]
