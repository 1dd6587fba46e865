"""The next load upgrades the ledger of an older version and keeps its rows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.load import ledger
from flows.load.replay import replay
from flows.page import Resume
from flows.source import Cursor, Partition, Window
from tests.load.memory_api import MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

# As `flows/load/ledger.sql` was at commit 313b971, with a load that failed half-way.
pytestmark = pytest.mark.no_ledger
OLD = """
create schema elt;

create table elt.loads (
    load_id bigint generated always as identity primary key,
    source text not null,
    resource text not null,
    partition text not null,
    run_id text,
    state text not null check (state in ('running', 'succeeded', 'failed', 'abandoned')),
    started_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    pages bigint not null default 0,
    extracted bigint not null default 0,
    inserted bigint not null default 0,
    updated bigint not null default 0,
    unchanged bigint not null default 0,
    rejected bigint not null default 0,
    deleted bigint not null default 0,
    error text,
    constraint nothing_is_lost check (extracted = inserted + updated + unchanged + rejected)
);

create table elt.checkpoints (
    source text not null,
    resource text not null,
    partition text not null,
    cursor_at timestamptz,
    cursor_seen_at timestamptz,
    resume jsonb,
    saved_at timestamptz not null default clock_timestamp(),
    load_id bigint not null references elt.loads,
    primary key (source, resource, partition)
);

create table elt.rejects (
    reject_id bigint generated always as identity primary key,
    load_id bigint not null references elt.loads,
    rejected_at timestamptz not null default clock_timestamp(),
    reason text not null,
    record text not null
);

insert into elt.loads (source, resource, partition, state, pages, extracted, inserted, rejected)
values ('shop', 'items', '', 'failed', 1, 2, 1, 1);

insert into elt.checkpoints (source, resource, partition, resume, load_id)
values ('shop', 'items', '', '{"first_url": "0", "url": "1", "since": null}', 1);

insert into elt.rejects (load_id, reason, record) values (1, 'is odd', '{"id": 2}');

create schema raw_shop;

create table raw_shop.items (
    id bigint primary key,
    _loaded_at timestamptz not null default now(),
    _load_id bigint not null default current_setting('elt.load_id')::bigint
);

insert into raw_shop.items (id, _load_id) values (1, 1);
"""
KEPT = (
    "select load_id, state, extracted, rejected, record from elt.loads"
    " join elt.rejects using (load_id)"
)
COLUMNS = (
    "select table_name, column_name, data_type from information_schema.columns"
    " where table_schema = 'elt' order by 1, ordinal_position"
)
INDEXES = "select indexdef from pg_indexes where schemaname = 'elt' order by 1"
VERSION = "select obj_description('elt'::regnamespace)"


@pytest.fixture
def old(query: Query) -> list[tuple[Any, ...]]:
    """The rows of the older version."""
    query(OLD)
    return query(KEPT)


def test_the_next_load_upgrades_an_older_ledger_and_uses_it(
    connection: Connection, query: Query, old: list[tuple[Any, ...]]
) -> None:
    api = MemoryApi([[{"id": 1}], [{"id": 3}]])
    entry = load_api(connection, api, items())
    assert api.asked == [(Window(), Resume("0", "1", None))]
    assert (entry.load_id, entry.state, entry.inserted) == (2, "succeeded", 1)
    assert query(KEPT) == old
    assert query(VERSION)[0][0].startswith("The ledger of all loads, version ")


def test_a_cursor_of_an_older_version_is_used_as_one_of_the_declared_field(
    connection: Connection, query: Query, old: list[tuple[Any, ...]]
) -> None:
    query("update elt.checkpoints set cursor_at = '2026-01-05 12:00Z', resume = null")
    api = MemoryApi([[{"id": 3, "at": "2026-01-06"}]])
    load_api(connection, api, items(cursor=Cursor("at")))
    assert api.asked == [(Window(datetime(2026, 1, 5, tzinfo=UTC)), None)]
    assert query("select cursor_at, cursor_number, cursor_field from elt.checkpoints") == [
        (datetime(2026, 1, 6, tzinfo=UTC), None, "at")
    ]


def test_a_completed_ledger_is_shaped_as_a_new_one(
    connection: Connection, query: Query, old: list[tuple[Any, ...]]
) -> None:
    load_pages(connection, [{"id": 1}])
    completed = query(COLUMNS), query(INDEXES), query(VERSION)
    query("drop schema elt, raw_shop cascade")
    load_pages(connection, [{"id": 1}])
    assert (query(COLUMNS), query(INDEXES), query(VERSION)) == completed


def test_what_an_older_version_set_aside_is_replayed(
    database: URL, query: Query, old: list[tuple[Any, ...]]
) -> None:
    [entry] = replay(lambda: psycopg2.connect(libpq(database)), "shop", items(), Partition())
    assert entry.inserted == 1
    assert query("select replayed_by from elt.rejects") == [(2,)]


def test_a_ledger_with_views_on_it_is_completed(
    connection: Connection, query: Query, old: list[tuple[Any, ...]]
) -> None:
    query("create view public.loads as select * from elt.loads")
    load_pages(connection, [{"id": 1}])
    assert query("select count(*) from public.loads") == [(2,)]


def test_loads_at_the_same_time_complete_an_older_ledger_once(
    database: URL, query: Query, old: list[tuple[Any, ...]]
) -> None:
    def prepare(_: int) -> None:
        with closing(psycopg2.connect(libpq(database))) as own, own, own.cursor() as cursor:
            ledger.prepare(cursor, "raw_shop")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(prepare, range(8)))
    assert query(KEPT) == old


@pytest.mark.parametrize("schema", ["raw_shop", "elt"])
def test_who_waited_for_a_ledger_finds_it_complete(
    database: URL, connection: Connection, query: Query, schema: str
) -> None:
    """Its session has looked for the schema before, and found none."""

    def prepare() -> None:
        with closing(psycopg2.connect(libpq(database))) as other, other, other.cursor() as second:
            ledger.prepare(second, schema)

    with ThreadPoolExecutor(1) as threads, connection.cursor() as first:
        ledger.prepare(first, schema)
        waiting = threads.submit(prepare)
        while query("select count(*) from pg_locks where not granted") != [(1,)]:
            assert not waiting.done()
        connection.commit()
        waiting.result()


def test_a_complete_ledger_is_left_alone(connection: Connection) -> None:
    load_pages(connection, [{"id": 1}])
    with connection, connection.cursor() as cursor:
        ledger.prepare(cursor, "raw_shop")
        cursor.execute("select pg_current_xact_id_if_assigned()")
        assert cursor.fetchone() == (None,), "something was written"
