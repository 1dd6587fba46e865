"""Promises of both ways in which a merge writes: what differs by a list, or all rows at once."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from flows.load.merge import Target, WriteCounts, create_stage, merge
from flows.source import Partition, RowsOf
from tests.load.memory_api import load_pages

Query = Callable[..., list[tuple[Any, ...]]]
Values = Mapping[int, int | None]

WAYS = pytest.mark.parametrize("at_once", [False, True], ids=["by a list", "at once"])
TABLE = sql.Identifier("raw_shop", "items")
TARGET = Target(TABLE, ("id",), {}, {}, {})
NEW_LOAD = 9
ROWS = "select id, v from raw_shop.items"
STAMPS = "select id, ctid::text, xmin::text, _loaded_at, _load_id from raw_shop.items"
SCANS = """
select seq_scan, idx_scan from pg_stat_user_tables where relid = 'raw_shop.items'::regclass
"""
FILL = """
insert into raw_shop.items (id, v, _load_id)
select number, number, 1 from generate_series(2, %s) as number
"""
LARGE = 50_000


def merged(
    connection: Connection,
    rows: list[tuple[int, int | None]],
    at_once: bool,
    replays: int | None = None,
) -> WriteCounts:
    """Merge rows of `id` and `v`, in their order, as the load NEW_LOAD."""
    with connection, connection.cursor() as cursor:
        create_stage(cursor)
        cursor.execute("alter table pg_temp.stage add column id bigint, add column v bigint")
        for row in rows:
            cursor.execute("insert into pg_temp.stage (id, v) values (%s, %s)", row)
        ids = {"load_id": NEW_LOAD, "replays": replays}
        return merge(cursor, TARGET, ids, expects_updates=at_once)


def loaded(connection: Connection, values: Values) -> None:
    load_pages(connection, [{"id": key, "v": value} for key, value in values.items()])


@WAYS
def test_a_merge_touches_only_the_rows_that_differ(
    connection: Connection, query: Query, at_once: bool
) -> None:
    loaded(connection, {1: 10, 2: None, 3: 30, 4: 40, 5: None})
    before = {key: stamp for key, *stamp in query(STAMPS)}
    written = merged(
        connection, [(1, 10), (2, None), (3, 31), (4, None), (5, 50), (6, 60)], at_once
    )
    after = {key: stamp for key, *stamp in query(STAMPS)}
    assert (written.inserted, written.updated) == (1, 3)
    assert {key for key in before if after[key] == before[key]} == {1, 2}
    assert {key for key, stamp in after.items() if stamp[-1] == NEW_LOAD} == {3, 4, 5, 6}


@WAYS
def test_a_merge_of_any_rows_leaves_the_last_value_of_each_key_and_counts_them(
    connection: Connection, query: Query, at_once: bool
) -> None:
    chance = random.Random(7)  # noqa: S311 (the same numbers every time)
    present: dict[int, int | None] = {key: chance.choice([None, 0, 1]) for key in range(40)}
    loaded(connection, present)
    for _ in range(10):
        number = chance.choice([1, 5, 30])
        sent = [(chance.randrange(60), chance.choice([None, 0, 1])) for _ in range(number)]
        last = dict(sent)
        changed = {key for key, value in last.items() if present.get(key, value) != value}
        written = merged(connection, sent, at_once)
        assert written.inserted == len(last.keys() - present.keys())
        assert written.updated == len(changed)
        assert written.all_updated == (changed == last.keys())
        present |= last
        assert dict(query(ROWS)) == present


@WAYS
def test_a_replay_keeps_what_later_loads_wrote(
    connection: Connection, query: Query, at_once: bool
) -> None:
    loaded(connection, {1: 10, 2: 20})
    load_pages(connection, [{"id": 2, "v": 21}])
    written = merged(connection, [(1, 11), (2, 22), (3, 33)], at_once, replays=1)
    assert (written.inserted, written.updated) == (1, 1)
    assert dict(query(ROWS)) == {1: 11, 2: 21, 3: 33}


@WAYS
def test_a_small_merge_reads_no_more_of_a_large_table_than_its_rows(
    connection: Connection, query: Query, at_once: bool
) -> None:
    """Although nobody has analysed the table, and although the merge inserts as well."""
    loaded(connection, {1: 1})
    query(FILL, LARGE)
    with reading_little(connection):
        written = merged(connection, [(1, 1), (2, 3), (LARGE + 1, 0)], at_once)
    assert (written.inserted, written.updated) == (1, 1)


@contextmanager
def reading_little(connection: Connection) -> Iterator[None]:
    """Check that meanwhile nothing read the raw table from its start to its end."""
    before = scans(connection)
    yield
    after = scans(connection)
    assert after[0] == before[0]
    assert after[1] > before[1]


def scans(connection: Connection) -> tuple[int, int]:
    """How often the table was read as a whole, and by its key."""
    with connection, connection.cursor() as cursor:
        cursor.execute("select pg_stat_force_next_flush()")
    with connection, connection.cursor() as cursor:
        cursor.execute(SCANS)
        [found] = cursor.fetchall()
        return found


def test_the_pages_after_one_that_changed_every_row_are_merged_as_any_other(
    connection: Connection, query: Query
) -> None:
    loaded(connection, dict.fromkeys(range(1, 7), 0))
    before = {key: stamp for key, *stamp in query(STAMPS)}
    pages = [
        [{"id": 1, "v": 1}, {"id": 2, "v": 1}],
        [{"id": 3, "v": 0}, {"id": 4, "v": 1}, {"id": 7, "v": 0}],
        [{"id": 5, "v": 1}, {"id": 5, "v": 0}, {"id": 6, "v": 0}],
        [{"id": 1, "v": "now a text"}],
        [{"id": 2, "v": 1.5, "w": 2}],
    ]
    entry = load_pages(connection, *pages)
    assert (entry.inserted, entry.updated, entry.unchanged) == (1, 5, 4)
    assert query("select * from (select id, v, w from raw_shop.items) as found order by id") == [
        (1, "now a text", None),
        (2, "1.5", 2),
        (3, "0", None),
        (4, "1", None),
        (5, "0", None),
        (6, "0", None),
        (7, "0", None),
    ]
    assert {key: stamp[-1] for key, *stamp in query(STAMPS)} == {
        **{key: before[key][-1] for key in (3, 5, 6)},
        **dict.fromkeys((1, 2, 4, 7), entry.load_id),
    }


def test_rows_that_move_are_counted_on_every_page(
    connection: Connection, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    """Also on those after a page that changed every row."""
    orders = [Partition(str(number), {"order": number}) for number in (1, 2)]
    declared = {
        "partitions": RowsOf("orders", {"order": "id"}),
        "partition_columns": ("order",),
        "key_is_global": True,
    }
    pages = [{"id": 1}, {"id": 2}], [{"id": 3}, {"id": 4}]
    load_pages(connection, *pages, partition=orders[0], **declared)
    moved = load_pages(connection, *pages, partition=orders[1], **declared)
    assert moved.updated == 4
    assert "4 rows belonged to another partition before and moved" in caplog.text
