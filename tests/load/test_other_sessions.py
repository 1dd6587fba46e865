"""Promises about other sessions: locks, loads at the same time, and sessions that die."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import UnavailableError
from flows.load import ledger
from flows.load.ledger import Address
from flows.load.loader import load
from flows.load.options import LoadOptions
from flows.load.replay import replay
from flows.page import Page, Resume
from flows.source import Partition, Window
from tests.load.memory_api import MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

PAGES = [[{"id": 1}], [{"id": 2}], [{"id": 3}]]
IDS = "select id from raw_shop.items order by id"
STATES = "select state from elt.loads order by load_id"


@pytest.fixture
def connect(database: URL) -> Callable[[], Connection]:
    return lambda: psycopg2.connect(libpq(database))


def test_a_second_load_of_a_partition_at_once_is_unavailable(
    connection: Connection, connect: Callable[[], Connection], query: Query
) -> None:
    api = MemoryApi(PAGES)

    def meddled(window: Window, resume: Resume | None) -> Iterator[Page]:
        for page in api(window, resume):
            with closing(connect()) as other, pytest.raises(UnavailableError, match="another run"):
                load_pages(other, *PAGES)
            yield page

    load(connection, "shop", items(), Partition(), meddled)
    assert query(STATES) == [("succeeded",)]
    with closing(connect()) as other:
        load_pages(other, *PAGES)


def wait_for_the_waiting(query: Query) -> None:
    """Return when some session waits for a lock that a load holds."""
    deadline = time.monotonic() + 10
    while query(
        "select count(*) from pg_locks join pg_stat_activity using (pid)"
        " where not granted and locktype = 'advisory' and datname = current_database()"
    ) != [(1,)]:
        assert time.monotonic() < deadline, "nobody waits"


def test_a_load_that_is_to_wait_waits_for_another_and_then_runs(
    connection: Connection, connect: Callable[[], Connection], query: Query
) -> None:
    api = MemoryApi(PAGES)

    def second() -> tuple[str, int]:
        with closing(connect()) as other:
            entry = load_pages(other, *PAGES, options=LoadOptions(waits=True))
            return entry.state, entry.unchanged

    with ThreadPoolExecutor(1) as thread:
        seconds = []

        def meddled(window: Window, resume: Resume | None) -> Iterator[Page]:
            for number, page in enumerate(api(window, resume)):
                if number == 1:
                    seconds.append(thread.submit(second))
                    wait_for_the_waiting(query)
                    assert query("select count(*) from elt.loads") == [(1,)]
                yield page

        load(connection, "shop", items(), Partition(), meddled)
        assert seconds[0].result(10) == ("succeeded", 3)
    assert query(STATES) == [("succeeded",), ("succeeded",)]


def test_a_replay_that_is_to_wait_waits_too(
    connection: Connection, connect: Callable[[], Connection], query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": "soon"}], columns={"v": "date"}, max_rejects=1)
    with closing(connect()) as holder, ThreadPoolExecutor(1) as thread:
        with holder, holder.cursor() as cursor:
            ledger.lock(cursor, Address("shop", "items", ""))
        waiting = thread.submit(
            replay, connect, "shop", items(), Partition(), LoadOptions(waits=True)
        )
        wait_for_the_waiting(query)
        holder.close()
        [entry] = waiting.result(10)
    assert entry.inserted == 1


def test_a_load_that_waits_in_vain_is_unavailable(
    connection: Connection, connect: Callable[[], Connection], query: Query
) -> None:
    load_pages(connection, *PAGES)
    with closing(connect()) as holder:
        with holder, holder.cursor() as cursor:
            ledger.lock(cursor, Address("shop", "items", ""))
        with connection, connection.cursor() as cursor:
            cursor.execute("set lock_timeout = '20ms'")
        with pytest.raises(UnavailableError, match="lock timeout"):
            load_pages(connection, *PAGES, options=LoadOptions(waits=True))
    assert query(STATES) == [("succeeded",)]
    assert load_pages(connection, *PAGES).state == "succeeded"


def test_a_load_that_failed_lets_others_load(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    with pytest.raises(UnavailableError, match="the API is away"):
        load_api(connection, MemoryApi(PAGES, fails_at=1), items())
    with closing(connect()) as other:
        assert load_pages(other, *PAGES).state == "succeeded"


def test_the_lock_is_free_when_its_holder_is_gone(
    connection: Connection, connect: Callable[[], Connection]
) -> None:
    holder = connect()
    with holder, holder.cursor() as cursor:
        ledger.lock(cursor, Address("shop", "items", ""))
    with pytest.raises(UnavailableError, match="another run"):
        load_pages(connection, *PAGES)
    holder.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            assert load_pages(connection, *PAGES).state == "succeeded"
            break
        except UnavailableError:
            assert time.monotonic() < deadline


@pytest.mark.no_ledger
def test_partitions_of_a_new_table_are_loaded_at_the_same_time(
    connect: Callable[[], Connection], query: Query
) -> None:
    """All wait for each other before their first commit, so each finds no table and no ledger."""
    cities = tuple(Partition(name, {"city": name}) for name in ("Bonn", "Oslo", "Rome", "Lima"))
    together = threading.Barrier(len(cities), timeout=10)
    resource = items(key=("city", "id"), partitions=cities, partition_columns=("city",))

    def load_city(city: Partition) -> str:
        api = MemoryApi([[{"id": n, f"of_{city.name}": n}] for n in range(20)])

        def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
            together.wait()
            yield from api(window, resume)

        with closing(connect()) as own:
            together.wait()
            return load(own, "shop", resource, city, pages).state

    with ThreadPoolExecutor(len(cities)) as threads:
        assert list(threads.map(load_city, cities)) == ["succeeded"] * 4
    assert query("select count(*), count(of_bonn), count(of_lima) from raw_shop.items") == [
        (80, 20, 20)
    ]


@pytest.mark.no_ledger
def test_sources_are_loaded_at_the_same_time_into_a_new_database(
    connect: Callable[[], Connection], query: Query
) -> None:
    together = threading.Barrier(4, timeout=10)

    def load_source(source: str) -> str:
        with closing(connect()) as own:
            together.wait()
            return load(own, source, items(), Partition(), MemoryApi(PAGES)).state

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(load_source, "abcd")) == ["succeeded"] * 4
    assert query("select count(*) from elt.loads") == [(4,)]


def test_a_load_whose_session_dies_keeps_what_it_committed_and_the_next_completes(
    connection: Connection, connect: Callable[[], Connection], query: Query
) -> None:
    api = MemoryApi(PAGES)

    def deadly(window: Window, resume: Resume | None) -> Iterator[Page]:
        pages = api(window, resume)
        yield next(pages)
        while query("select sum(pages) from elt.loads") != [(1,)]:
            """The reader is ahead of the load: wait for the checkpoint."""
        query("select pg_terminate_backend(%s, 10000)", connection.info.backend_pid)
        yield from pages

    with pytest.raises(UnavailableError, match="Postgres went away"):
        load(connection, "shop", items(), Partition(), deadly)
    assert query(IDS) == [(1,)]
    assert query(STATES) == [("running",)]
    with closing(connect()) as other:
        entry = load_api(other, api, items())
    assert api.asked[-1] == (Window(), Resume("0", "1", None))
    assert (entry.state, entry.inserted) == ("succeeded", 2)
    assert query(IDS) == [(1,), (2,), (3,)]
    assert query(STATES) == [("abandoned",), ("succeeded",)]
    assert query("select error, ended_at is null from elt.loads where load_id = 1") == [
        ("the process died before recording a result", False)
    ]


def test_a_closed_connection_is_unavailable(connect: Callable[[], Connection]) -> None:
    closed = connect()
    closed.close()
    with pytest.raises(UnavailableError, match="connection already closed"):
        load_pages(closed, *PAGES)


def test_a_statement_that_is_cancelled_is_unavailable(connection: Connection, query: Query) -> None:
    load_pages(connection, *PAGES)
    with connection, connection.cursor() as cursor:
        cursor.execute("set statement_timeout = '50ms'")
    with closing(psycopg2.connect(connection.dsn)) as reader, reader.cursor() as cursor:
        cursor.execute("select from raw_shop.items")
        with pytest.raises(UnavailableError, match="statement timeout"):
            load_pages(connection, [{"id": 4, "new": 1}])
    assert query(STATES) == [("succeeded",), ("failed",)]
    assert load_pages(connection, [{"id": 4, "new": 1}]).inserted == 1


def test_stages_of_one_session_do_not_mix(connection: Connection, query: Query) -> None:
    """A load that fails leaves its temporary table behind."""
    with pytest.raises(UnavailableError):
        load_api(connection, MemoryApi([[{"id": 9}]] * 2, fails_at=1), items(disposition="replace"))
    load_pages(connection, [{"id": 1}])
    assert query(IDS) == [(1,)]
