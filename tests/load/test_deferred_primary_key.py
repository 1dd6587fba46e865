"""A new table gets its key when its first load is complete; until then rows may repeat one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import UnavailableError
from flows.load import ledger, primary_key
from flows.load.loader import load
from flows.load.replay import replay
from flows.page import Page, Resume
from flows.source import Partition, Window
from tests.load.memory_api import WAYS, MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

PAGES = [[{"id": 1, "v": "a"}, {"id": 2, "v": "b"}], [{"id": 3, "v": "c"}], [{"id": 4, "v": "d"}]]
REPEATED = [*PAGES[:2], [{"id": 2, "v": "new"}]]
ROWS = "select id, v from raw_shop.items order by id"
KEY = (
    "select string_agg(attname, ', ') from pg_index join pg_attribute on attrelid = indrelid"
    " and attnum = any (indkey) where indrelid = 'raw_shop.items'::regclass and indisprimary"
)
NOTE = "select obj_description('raw_shop.items'::regclass)"
BY_WAY = pytest.mark.parametrize("way", WAYS)


def begun(connection: Connection, pages: list[Any], fails_at: int, **changes: Any) -> None:
    """Load pages into a new table up to one that can't be had."""
    with pytest.raises(UnavailableError):
        load_api(connection, MemoryApi(pages, fails_at), items(**changes))


@BY_WAY
def test_a_table_without_its_key_says_so_until_it_is_there(
    connection: Connection, query: Query, way: str
) -> None:
    begun(connection, PAGES, 2, records=WAYS[way])
    assert (query(KEY), query(NOTE)) == ([(None,)], [(primary_key.PUT_OFF,)])
    load_pages(connection, *PAGES, records=WAYS[way])
    assert (query(KEY), query(NOTE)) == ([("id",)], [(None,)])
    assert query(ROWS) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]


@BY_WAY
@pytest.mark.parametrize("fails_at", [1, 2])
def test_the_load_that_goes_on_keeps_the_last_row_of_a_key(
    connection: Connection, query: Query, fails_at: int, way: str
) -> None:
    begun(connection, REPEATED, fails_at, records=WAYS[way])
    load_pages(connection, *REPEATED, records=WAYS[way])
    assert query(ROWS) == [(1, "a"), (2, "new"), (3, "c")]
    counted = "select sum(extracted), sum(inserted), sum(updated), sum(unchanged) from elt.loads"
    assert query(counted) == [(4, 3, 0, 1)]


def test_a_load_that_begins_anew_leaves_no_row_twice(connection: Connection, query: Query) -> None:
    begun(connection, PAGES, 2)
    query("update elt.checkpoints set resume = null")
    load_pages(connection, *PAGES)
    assert query(ROWS) == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    assert query("select inserted, unchanged from elt.loads order by load_id") == [(0, 3), (4, 0)]


def test_a_wider_column_on_the_way_does_not_bring_an_old_row_back(
    connection: Connection, query: Query
) -> None:
    """Its rows are rewritten with new transaction ids."""
    load_pages(connection, [{"id": 1, "v": None}], [{"id": 1, "v": 5}])
    assert query(ROWS) == [(1, 5)]


def test_the_partition_that_completes_first_creates_the_key_for_the_other(
    connection: Connection, query: Query, database: URL
) -> None:
    """Both fill one new table; the second one has a row that the first one had."""
    other = MemoryApi([[{"id": 2, "v": "newer"}], [{"id": 9, "v": "z"}]])

    def meddled(window: Window, resume: Resume | None) -> Iterator[Page]:
        for number, page in enumerate(MemoryApi(PAGES)(window, resume)):
            yield page
            if number == 1:
                with closing(psycopg2.connect(libpq(database))) as second:
                    load_api(second, other, items(), partition=Partition("north"))

    load(connection, "shop", items(), Partition(), meddled)
    assert query(KEY) == [("id",)]
    assert query("select count(*), count(distinct id) from raw_shop.items") == [(5, 5)]


WAITS = (
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
    " and datname = current_database()"
)


def test_a_partition_that_creates_the_key_and_one_that_stores_do_not_block_each_other(
    connection: Connection, query: Query, database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one drops a row of the second one, and corrects the second one's entry."""
    real = ledger.state_and_token
    others: list[threading.Thread] = []
    failures: list[BaseException] = []

    def complete_another() -> None:
        try:
            with closing(psycopg2.connect(libpq(database))) as second:
                api = MemoryApi([[{"id": 2, "v": "newer"}]])
                load_api(second, api, items(), partition=Partition("north"))
        except BaseException as error:
            failures.append(error)

    def meddled(cursor: Any, load_id: int | None, seconds: float) -> Any:
        """Once the first row is committed, hold the entry until the other load waits or ends."""
        found = real(cursor, load_id, seconds)
        if not others and query("select sum(inserted) > 0 from elt.loads") == [(True,)]:
            others.append(threading.Thread(target=complete_another))
            others[0].start()
            while others[0].is_alive() and query(WAITS) == [(0,)]:
                pass
        return found

    monkeypatch.setattr(ledger, "state_and_token", meddled)
    load_pages(connection, *PAGES)
    others[0].join()
    assert failures == []
    assert query("select count(*), count(distinct id) from raw_shop.items") == [(4, 4)]
    assert query(KEY) == [("id",)]


def test_a_replay_into_a_table_without_its_key_gives_it_first(
    connection: Connection, query: Query, database: URL
) -> None:
    """Otherwise its rows, which are older than the second load's, would count as the newest."""
    pages = [[*PAGES[0], {"v": "without a key"}], *PAGES[1:]]
    begun(connection, pages, 1)
    begun(connection, pages, 2)
    query("""update elt.rejects set record = '{"id": 3, "v": "old"}'""")
    [entry] = replay(lambda: psycopg2.connect(libpq(database)), "shop", items(), Partition())
    assert (entry.extracted, entry.unchanged) == (1, 1)
    assert query(KEY) == [("id",)]
    assert query(ROWS) == [(1, "a"), (2, "b"), (3, "c")]


def test_a_table_that_never_had_a_key_gets_none(connection: Connection, query: Query) -> None:
    """Rows that `append` stored twice were sent twice."""
    load_pages(connection, [{"id": 1}], [{"id": 1}], key=(), disposition="append")
    with closing(connection.cursor()) as cursor:
        primary_key.create_deferred(cursor, sql.Identifier("raw_shop", "items"), ["id"])
    connection.commit()
    assert (query(KEY), query("select count(*) from raw_shop.items")) == ([(None,)], [(2,)])
