"""Promises about the cursor field: where it is found, and which of its values count."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import ConfigurationError
from flows.load.options import EARLIEST, LATEST, times_of
from flows.source import Cursor, Window
from tests.load.memory_api import WAYS, MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

CURSOR_AT = "select cursor_at from elt.checkpoints"
JANUARY_1 = datetime(2026, 1, 1, tzinfo=UTC)


def both_ways() -> Any:
    return pytest.mark.parametrize("records", WAYS.values(), ids=WAYS)


@both_ways()
def test_a_dotted_name_finds_a_nested_field(
    connection: Connection, query: Query, records: Any
) -> None:
    page = [{"id": 1, "meta": {"updated": "2026-01-01T00:00:00Z"}}]
    load_pages(connection, page, records=records, cursor=Cursor("meta.updated"))
    assert query(CURSOR_AT) == [(JANUARY_1,)]


@both_ways()
def test_a_field_of_just_that_name_comes_first(
    connection: Connection, query: Query, records: Any
) -> None:
    page = [{"id": 1, "meta.updated": "2026-01-01"}]
    load_pages(connection, page, records=records, cursor=Cursor("meta.updated"))
    assert query(CURSOR_AT) == [(JANUARY_1,)]


@both_ways()
def test_a_cursor_field_that_no_record_has_fails_the_load_and_keeps_its_rows(
    connection: Connection, query: Query, records: Any
) -> None:
    page = [{"id": 1, "updated": "2026-01-01"}]
    with pytest.raises(ConfigurationError, match=r"cursor field 'updatd'.*have: .*updated"):
        load_pages(connection, page, records=records, cursor=Cursor("updatd"))
    assert query("select id from raw_shop.items") == [(1,)]
    assert query(CURSOR_AT) == [(None,)]
    assert query("select state from elt.loads") == [("failed",)]


@both_ways()
def test_a_cursor_field_that_is_null_or_a_load_without_records_does_not_fail(
    connection: Connection, records: Any
) -> None:
    cursor = Cursor("updated")
    load_pages(connection, [{"id": 1, "updated": None}], records=records, cursor=cursor)
    load_pages(connection, [], records=records, cursor=cursor)


@both_ways()
def test_a_value_too_far_ahead_of_now_does_not_move_the_cursor(
    connection: Connection, query: Query, records: Any, caplog: pytest.LogCaptureFixture
) -> None:
    page = [{"id": 1, "at": "2026-01-01"}, {"id": 2, "at": "2999-01-01"}]
    with caplog.at_level(logging.WARNING, "flows.load"):
        load_pages(connection, page, records=records, cursor=Cursor("at"))
    assert query(CURSOR_AT) == [(JANUARY_1,)]
    assert query("select count(*) from raw_shop.items") == [(2,)]
    assert "1 values of the cursor field are too far in the future, up to 2999" in caplog.text


def test_a_stored_cursor_of_the_future_lets_the_next_load_read_everything(
    connection: Connection, query: Query
) -> None:
    api = MemoryApi([[{"id": 1, "at": "2026-01-01"}]])
    by_at = items(cursor=Cursor("at"))
    load_api(connection, api, by_at)
    query("update elt.checkpoints set cursor_at = '2999-01-01'")
    load_api(connection, api, by_at)
    assert api.asked[-1] == (Window(), None)
    assert query(CURSOR_AT) == [(JANUARY_1,)]


@pytest.mark.parametrize("text", ["0001-01-01", "0001-01-01T00:00:00+14:00"])
def test_a_lookback_over_the_beginning_of_the_calendar_asks_for_all(
    connection: Connection, text: str
) -> None:
    api = MemoryApi([[{"id": 1, "at": text}]])
    by_at = items(cursor=Cursor("at", lookback=timedelta(days=3)))
    load_api(connection, api, by_at)
    load_api(connection, api, by_at)
    assert api.asked[-1][0] == Window(EARLIEST)


NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2024-02-29T12:00:00Z", NOON),
        ("2024-02-29T12:00:00.5Z", NOON + timedelta(seconds=0.5)),
        ("2024-02-29T12:00:00.123456789Z", NOON + timedelta(microseconds=123456)),
        ("2024-02-29 14:00:00+0200", NOON),
        ("20240229T120000Z", NOON),
        ("2024-02-29T12:00Z", NOON),
        ("2024-02-29", NOON - timedelta(hours=12)),
        ("2024-02-28T24:00:00Z", NOON - timedelta(hours=12)),
        ("2024-02-29T11:59:60Z", NOON - timedelta(seconds=1)),
        ("9999-12-31T23:59:59-10:00", LATEST),
        ("0001-01-01T00:00:00+10:00", EARLIEST),
    ],
)
def test_a_time_is_read_the_same_by_every_python(text: str, at: datetime) -> None:
    """Python's own parser accepts different formats in 3.11 and 3.13."""
    times = times_of([text], LATEST)
    assert times.newest_at == at
