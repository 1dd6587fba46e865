"""Promises about a COMMIT whose reply never arrived, and the retry that follows."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import BadPayloadError, UnavailableError
from flows.load.ledger import Entry
from flows.load.options import LoadOptions
from flows.load.replay import replay
from flows.source import Cursor, Partition, Resource
from tests.load.cutting_proxy import CuttingProxy, cutting_proxy
from tests.load.memory_api import MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

PAGES = [[{"id": page * 10 + row} for row in range(10)] for page in range(3)]
WITH_REJECTS = [*PAGES[:2], [*PAGES[2], "no object"]]
IN_STEPS = Cursor("at", start=datetime(2024, 3, 1, tzinfo=UTC), step=timedelta(days=9999))
RUN = LoadOptions(run_id="run 1")
APPEND: dict[str, Any] = {"key": ()}
COUNT = "select count(*) from raw_shop.items"
EMPTY = "drop schema if exists raw_shop, elt cascade"


@pytest.fixture
def proxy(database: URL) -> Iterator[CuttingProxy]:
    with cutting_proxy(database) as started:
        yield started


def wait_for_the_end_of_cut_sessions(query: Query, *spared: int) -> None:
    """Until then a session may hold its lock, also one whose load has succeeded."""
    deadline = time.monotonic() + 10
    while query(
        "select from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
        " and pid <> all (%s)",
        list(spared),
    ):
        assert time.monotonic() < deadline, "the session goes on"


def load_until_it_is_answered(
    proxy: CuttingProxy, query: Query, resource: Resource, pages: list[Any]
) -> Entry | BadPayloadError:
    """Load as Prefect does: in the same run, again and again while Postgres is away."""
    try:
        with closing(psycopg2.connect(libpq(proxy.url))) as connection:
            return load_api(connection, MemoryApi(pages), resource, RUN)
    except BadPayloadError as error:
        return error
    except UnavailableError:
        assert proxy.has_cut
        wait_for_the_end_of_cut_sessions(query)
        return load_until_it_is_answered(proxy, query, resource, pages)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("pages", [PAGES, WITH_REJECTS], ids=["", "too many rejects"])
@pytest.mark.parametrize(
    "declared",
    [
        pytest.param({"key": ()}, id="append"),
        pytest.param({"key": (), "cursor": IN_STEPS}, id="append in steps"),
        pytest.param({"key": (), "checkpoint_rows": 999}, id="append, one commit"),
        pytest.param({}, id="merge"),
        pytest.param({"disposition": "replace"}, id="replace"),
        pytest.param({"disposition": "replace", "key": ()}, id="replace without a key"),
    ],
)
def test_a_cut_while_any_commit_is_answered_leaves_each_row_once(
    proxy: CuttingProxy, query: Query, declared: dict[str, Any], pages: list[Any]
) -> None:
    """The same if the load failed for its rejects: the retry reports that again."""
    cuts = 0
    while True:
        wait_for_the_end_of_cut_sessions(query)
        query(EMPTY)
        proxy.plan(cuts_at=cuts + 1)
        outcome = load_until_it_is_answered(proxy, query, items(**declared), pages)
        if not proxy.has_cut:
            break
        cuts += 1
        found = query("select count(*), count(distinct id) from raw_shop.items")
        assert (cuts, found) == (cuts, [(30, 30)])
        assert isinstance(outcome, BadPayloadError if pages is WITH_REJECTS else Entry)
    assert cuts >= 7


def test_a_cut_while_any_commit_of_a_replay_is_answered_leaves_each_row_once(
    proxy: CuttingProxy, connection: Connection, query: Query
) -> None:
    connect = partial(psycopg2.connect, libpq(proxy.url))
    cuts = 0
    while True:
        wait_for_the_end_of_cut_sessions(query, connection.info.backend_pid)
        query(EMPTY)
        soon = [{"id": number, "v": "soon"} for number in range(3)]
        bad = items(key=(), columns={"v": "date"}, max_rejects=9)
        load_api(connection, MemoryApi([soon]), bad)
        proxy.plan(cuts_at=cuts + 1)
        try:
            replay(connect, "shop", items(key=()), Partition(), RUN)
        except UnavailableError:
            wait_for_the_end_of_cut_sessions(query, connection.info.backend_pid)
            replay(connect, "shop", items(key=()), Partition(), RUN)
        if not proxy.has_cut:
            break
        cuts += 1
        assert query(COUNT) == [(3,)]
    assert cuts >= 7


def test_a_run_appends_a_partition_once(connection: Connection, query: Query) -> None:
    first = load_pages(connection, *PAGES, options=RUN, **APPEND)
    again = load_pages(connection, *PAGES, options=RUN, **APPEND)
    assert again == first
    assert query(COUNT) == [(30,)]
    assert query("select count(*) from elt.loads") == [(1,)]


@pytest.mark.parametrize(
    "options", [LoadOptions(run_id="run 2"), LoadOptions()], ids=["another", "none"]
)
def test_another_run_and_a_load_without_one_append_again(
    connection: Connection, query: Query, options: LoadOptions
) -> None:
    for _ in range(2):
        load_pages(connection, *PAGES, options=options, **APPEND)
        load_pages(connection, *PAGES, options=LoadOptions(run_id="run 2"), **APPEND)
        load_pages(connection, *PAGES, options=RUN, **APPEND)
    loads = 2 if options.run_id else 4
    assert query(COUNT) == [(30 * loads,)]


def test_a_retry_of_an_append_that_failed_half_way_goes_on(
    connection: Connection, query: Query
) -> None:
    with pytest.raises(UnavailableError):
        load_api(connection, MemoryApi(PAGES, fails_at=2), items(**APPEND), RUN)
    assert load_pages(connection, *PAGES, options=RUN, **APPEND).inserted == 10
    assert query(COUNT) == [(30,)]


def test_a_retry_of_an_append_with_too_many_rejects_says_so_again(
    connection: Connection, query: Query
) -> None:
    said = []
    for _ in range(2):
        with pytest.raises(BadPayloadError, match="1 records could not be stored") as raised:
            load_pages(connection, *WITH_REJECTS, options=RUN, **APPEND)
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert query(COUNT) == [(30,)]
    assert query("select state, error, ended_at is null from elt.loads") == [
        ("failed", said[0], False)
    ]


def test_a_full_refresh_of_the_same_run_reads_again(connection: Connection) -> None:
    load_pages(connection, *PAGES, options=RUN, **APPEND)
    anew = replace(RUN, full_refresh=True)
    assert load_pages(connection, *PAGES, options=anew, **APPEND).deleted == 30
    assert load_pages(connection, *PAGES, options=anew, **APPEND).deleted == 30
