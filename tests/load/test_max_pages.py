"""Promises of `max_pages`: what a load does not reach, the next ones read."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import keyset
from flows.extract.selectors import records_at
from flows.load.ledger import Entry
from flows.load.loader import load
from flows.load.options import DEFAULT_OPTIONS, LoadOptions
from flows.page import Page, Resume
from flows.source import Cursor, Params, Partition, Resource, Source, Window
from tests.extract.reading import asked_params
from tests.http_servers import Answer, Asked, Serve

Query = Callable[..., list[tuple[Any, ...]]]

IDS = "select id from raw_shop.items order by id"
CURSOR = "select cursor_at, resume is not null from elt.checkpoints"
APPEND = {
    "key": (),
    "cursor": Cursor("at", start=datetime(2024, 1, 1, tzinfo=UTC), step=timedelta(days=3650)),
}


def since(_: Partition, window: Window) -> Params:
    return {"since": f"{window.since:%Y-%m-%d}"} if window.since else {}


@pytest.fixture
def days() -> dict[int, str]:
    """The API's rows: their ids and when they were changed."""
    return {day: f"2024-01-{day:02}" for day in range(1, 11)}


def newest_first(days: dict[int, str], asked: Asked) -> Answer:
    """Two rows a page, the newest first."""
    params = asked_params(asked)
    since, before = params.get("since", ""), params.get("before", "9999")
    rows = [{"id": number, "at": at} for number, at in days.items() if since <= at < before]
    rows.sort(key=lambda row: str(row["at"]), reverse=True)
    return Answer(json.dumps({"items": rows[:2], "more": len(rows) > 2}).encode())


def items(**declared: Any) -> Resource:
    common = {
        "params": since,
        "paging": keyset("at", param="before", more="more"),
        "key": ("id",),
        "cursor": Cursor("at"),
        "max_pages": 2,
    }
    return Resource("items", "items", records_at("items"), **{**common, **declared})


@pytest.fixture
def load_items(serve: Serve, connection: Connection, days: dict[int, str]) -> Callable[..., Entry]:
    url = serve(partial(newest_first, days)).url

    def load_them(resource: Resource, options: LoadOptions = DEFAULT_OPTIONS) -> Entry:
        source = Source("shop", url, (resource,))
        with Client(source) as client:

            def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
                return read_pages(client, source, resource, Partition(), window, resume)

            return load(connection, "shop", resource, Partition(), pages, options)

    return load_them


def ids(query: Query) -> list[int]:
    return [number for (number,) in query(IDS)]


def test_loads_read_on_until_everything_is_read_and_then_the_cursor_moves(
    load_items: Callable[..., Entry], query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    """However long ago the one before was: a load that started again would never come to an end."""
    caplog.set_level(logging.WARNING)
    for stored in ([7, 8, 9, 10], [3, 4, 5, 6, 7, 8, 9, 10]):
        assert load_items(items()).state == "succeeded"
        assert ids(query) == stored
        assert query(CURSOR) == [(None, True)]
        query("update elt.checkpoints set saved_at = saved_at - interval '2 days'")
    assert caplog.text.count("max_pages=2 ended the reading before everything was read") == 2
    load_items(items())
    assert ids(query) == list(range(1, 11))
    assert query(CURSOR) == [(datetime(2024, 1, 10, tzinfo=UTC), False)]
    assert caplog.text.count("max_pages=2") == 2


def test_a_row_that_changes_between_two_loads_costs_no_other_row(
    load_items: Callable[..., Entry], query: Query, days: dict[int, str]
) -> None:
    load_items(items())
    days[8] = "2024-01-11"
    for _ in range(3):
        load_items(items())
    assert query("select id, at from raw_shop.items order by id") == sorted(days.items())


def test_an_append_reads_on_and_stores_no_row_twice(
    load_items: Callable[..., Entry], query: Query
) -> None:
    for _ in range(4):
        load_items(items(**APPEND))
    assert ids(query) == list(range(1, 11))


def test_an_append_of_a_range_is_refused(load_items: Callable[..., Entry], query: Query) -> None:
    """Its rest could only be read by starting again, after another load, and that stores twice."""
    by_hand = LoadOptions(window=Window(datetime(2024, 1, 4, tzinfo=UTC)))
    with pytest.raises(ConfigurationError, match="items: max_pages=2 may end an append before"):
        load_items(items(**APPEND), by_hand)
    assert query("select pages, extracted from elt.loads") == [(0, 0)]


def test_a_limit_that_is_not_reached_moves_the_cursor(
    load_items: Callable[..., Entry], query: Query
) -> None:
    load_items(items(max_pages=5))
    assert query(CURSOR) == [(datetime(2024, 1, 10, tzinfo=UTC), False)]


@pytest.mark.parametrize("declared", [{"cursor": None}, {"disposition": "replace"}], ids=str)
def test_without_a_cursor_each_load_reads_the_first_pages(
    load_items: Callable[..., Entry], query: Query, declared: Any
) -> None:
    for _ in range(2):
        load_items(items(**declared))
        assert ids(query) == [7, 8, 9, 10]


def test_a_full_refresh_never_deletes_what_it_did_not_reach(
    load_items: Callable[..., Entry], query: Query
) -> None:
    load_items(items(max_pages=None))
    with pytest.raises(ConfigurationError, match=r"max_pages=2 ended the reading.*would delete"):
        load_items(items(), LoadOptions(full_refresh=True, accepts_shrinkage=True))
    assert ids(query) == list(range(1, 11))


def test_a_range_that_was_not_read_to_its_end_fails_and_is_read_on_when_repeated(
    load_items: Callable[..., Entry], query: Query
) -> None:
    """A backfill would otherwise take the range for done."""
    by_hand = LoadOptions(window=Window(datetime(2024, 1, 4, tzinfo=UTC)))
    with pytest.raises(BadPayloadError, match="max_pages=2 ended the reading before all of since"):
        load_items(items(), by_hand)
    assert ids(query) == [7, 8, 9, 10]
    assert load_items(items(), by_hand).state == "succeeded"
    assert ids(query) == [4, 5, 6, 7, 8, 9, 10]
