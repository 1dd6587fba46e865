"""Promises about the cursor field: where it is found, and which of its values count."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from psycopg2.extensions import connection as Connection

from flows.cursor_formats import times_of
from flows.errors import BadPayloadError, ConfigurationError, UnavailableError
from flows.load.options import LoadOptions
from flows.local_time import EARLIEST, LATEST
from flows.source import Cursor, IntegerCursor, Partition, Window
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
    assert times_of([text], "iso", UTC) == {at}


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("form", "value", "at"),
    [
        ("epoch_s", 1709208000, NOON),
        ("epoch_s", "1709208000", NOON),
        ("epoch_s", 1709208000.5, NOON + timedelta(seconds=0.5)),
        ("epoch_s", "1709208000.000100", NOON + timedelta(microseconds=100)),
        ("epoch_s", Decimal("1709208000.000100"), NOON + timedelta(microseconds=100)),
        ("epoch_s", -1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("epoch_ms", 1709208000123, NOON + timedelta(milliseconds=123)),
        ("epoch_us", 1709208000123456, NOON + timedelta(microseconds=123456)),
        ("%d.%m.%Y %H:%M", "29.02.2024 13:00", NOON),
        ("%d/%b/%Y:%H:%M:%S %z", "29/Feb/2024:08:00:00 -0400", NOON),
        ("iso", "2024-02-29T13:00:00", NOON),
        ("iso", "2024-02-29T12:00:00Z", NOON),
    ],
)
def test_a_time_is_read_in_its_declared_format_and_zone(
    form: str, value: object, at: datetime
) -> None:
    """In winter, Berlin is an hour ahead."""
    assert times_of([value, None], form, BERLIN) == {at}


@both_ways()
@pytest.mark.parametrize(
    ("cursor", "value", "says"),
    [
        (Cursor("at"), 1764150000, "'1764150000'.*not an ISO 8601.*Cursor.*epoch_s"),
        (Cursor("at"), 1764150000123, 'Declare.*format="epoch_ms"'),
        (Cursor("at"), 1764150000123456, 'Declare.*format="epoch_us"'),
        (Cursor("at"), 17, r"Declare IntegerCursor\(…\)"),
        (Cursor("at", format="epoch_s"), 1764150000123456, "not a time as 'epoch_s'.*epoch_us"),
        (Cursor("at", format="epoch_s"), "2024-01-01", "not a time as 'epoch_s'.*Cursor.format"),
        (Cursor("at", format="epoch_s"), True, "True, which is not a time as 'epoch_s'"),
        (Cursor("at", format="epoch_s"), [1], "not a time as 'epoch_s'"),
        (Cursor("at", format="%d.%m.%Y"), "2024-01-01", r"not a time as '%d\.%m\.%Y'"),
        (IntegerCursor("at"), 1.5, "1.5, which is not an integer"),
        (IntegerCursor("at"), "2024-01-01", "which is not an integer"),
        (IntegerCursor("at"), True, "True, which is not an integer"),
    ],
)
def test_a_value_of_another_format_is_an_error_that_names_the_one_to_declare(
    connection: Connection, records: Any, cursor: Any, value: Any, says: str
) -> None:
    with pytest.raises(BadPayloadError, match=says):
        load_pages(connection, [{"id": 1, "at": value}], records=records, cursor=cursor)


@both_ways()
@pytest.mark.parametrize(
    ("form", "values", "at"),
    [
        ("epoch_s", [1764150000, 1764149999, None], datetime(2025, 11, 26, 9, 40, tzinfo=UTC)),
        ("epoch_ms", [1764150000000], datetime(2025, 11, 26, 9, 40, tzinfo=UTC)),
        ("epoch_us", [1764150000000000], datetime(2025, 11, 26, 9, 40, tzinfo=UTC)),
        ("%d.%m.%Y", ["30.11.2025", "01.12.2024"], datetime(2025, 11, 30, tzinfo=UTC)),
    ],
)
def test_a_cursor_of_any_format_is_stored_as_a_time(
    connection: Connection, query: Query, records: Any, form: str, values: list[Any], at: datetime
) -> None:
    page = [{"id": number, "at": value} for number, value in enumerate(values)]
    api = MemoryApi([page])
    resource = items(records=records, cursor=Cursor("at", format=form))
    load_api(connection, api, resource)
    assert query(CURSOR_AT) == [(at,)]
    load_api(connection, api, resource)
    assert api.asked[-1][0] == Window(at.replace(hour=0, minute=0))


NUMBERS = "select cursor_number, cursor_seen_number, cursor_field, cursor_at from elt.checkpoints"
BIG = 2**70


@both_ways()
@pytest.mark.parametrize(
    ("values", "newest"),
    [([1, 2, 3], 3), ([0], 0), ([-5, None], -5), (["7", "12"], 12), ([BIG], BIG)],
)
def test_an_integer_cursor_goes_on_after_the_highest_number(
    connection: Connection, query: Query, records: Any, values: list[Any], newest: int
) -> None:
    page = [{"id": number, "seq": value} for number, value in enumerate(values)]
    api = MemoryApi([page])
    resource = items(records=records, cursor=IntegerCursor("seq"))
    load_api(connection, api, resource)
    assert query(NUMBERS) == [(newest, None, "seq", None)]
    load_api(connection, api, resource)
    assert [window for window, _ in api.asked] == [Window(), Window(number=newest + 1)]
    assert query(NUMBERS) == [(newest, None, "seq", None)]


def test_an_integer_cursor_has_a_start_and_a_lookback(connection: Connection) -> None:
    api = MemoryApi([[{"id": 100}]])
    resource = items(cursor=IntegerCursor("id", lookback=10, start=5))
    load_api(connection, api, resource)
    load_api(connection, api, resource)
    load_api(connection, MemoryApi([]), resource)
    api.pages = [[{"id": 3}]]
    load_api(connection, api, resource, LoadOptions(full_refresh=True, accepts_shrinkage=True))
    asked = [window.number for window, _ in api.asked]
    assert asked == [5, 91, 5]


def test_an_incomplete_load_remembers_its_highest_number(
    connection: Connection, query: Query
) -> None:
    """The highest comes first; the load that goes on sees only lower ones."""
    pages = [[{"id": 3}], [{"id": 2}], [{"id": 1}]]
    resource = items(cursor=IntegerCursor("id"))
    with pytest.raises(UnavailableError):
        load_api(connection, MemoryApi(pages, fails_at=2), resource)
    assert query(NUMBERS) == [(None, 3, "id", None)]
    load_api(connection, MemoryApi(pages), resource)
    assert query(NUMBERS) == [(3, None, "id", None)]


def test_each_partition_has_a_number_of_its_own(connection: Connection, query: Query) -> None:
    parts = tuple(Partition(name, {"shop": name}) for name in "ab")
    by_shop = items(
        cursor=IntegerCursor("id"),
        partitions=parts,
        partition_columns=("shop",),
        key=("shop", "id"),
    )
    for number, part in enumerate(parts, start=7):
        load_api(connection, MemoryApi([[{"id": number}]]), by_shop, partition=part)
    numbers = query("select partition, cursor_number from elt.checkpoints order by 1")
    assert numbers == [("a", 7), ("b", 8)]


@pytest.mark.parametrize(
    "other", [Cursor("at"), IntegerCursor("version"), Cursor("id", format="epoch_s")], ids=str
)
def test_a_cursor_that_is_exchanged_for_another_reads_everything_once(
    connection: Connection, query: Query, other: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its value says nothing about the other field: what is new would never be requested."""
    api = MemoryApi([[{"id": 9, "version": 1, "at": "2026-01-01"}]])
    load_api(connection, api, items(cursor=IntegerCursor("id")))
    with caplog.at_level(logging.WARNING, "flows.load"):
        load_api(connection, api, items(cursor=other))
    assert api.asked[-1] == (Window(), None)
    assert "The stored cursor is" in caplog.text
    load_api(connection, api, items(cursor=other))
    assert api.asked[-1][0] != Window()


def test_a_range_of_days_is_refused_for_an_integer_cursor(connection: Connection) -> None:
    options = LoadOptions(Window(JANUARY_1))
    with pytest.raises(ConfigurationError, match="items is read by the number 'id', not by date"):
        load_api(connection, MemoryApi([]), items(cursor=IntegerCursor("id")), options)


@both_ways()
def test_an_integer_field_that_no_record_has_fails_the_load(
    connection: Connection, records: Any
) -> None:
    with pytest.raises(ConfigurationError, match=r"cursor field 'seq'.*have: id"):
        load_pages(connection, [{"id": 1}], records=records, cursor=IntegerCursor("seq"))


FRESH = LoadOptions(full_refresh=True, accepts_shrinkage=True)
OLD = [{"id": 1000, "at": "2026-01-09"}, {"id": 1001, "at": "2026-01-10"}]
NEW = [{"id": 1, "at": "2026-01-01"}, {"id": 2, "at": "2026-01-02"}]
STOOD = "select coalesce(cursor_number::text, cursor_at::date::text) from elt.checkpoints"
ANEW = pytest.mark.parametrize(
    "anew",
    [{"options": FRESH}, {"disposition": "replace", "max_shrinkage": 1}],
    ids=["", "replace"],
)
EITHER = pytest.mark.parametrize(
    ("cursor", "before", "after"),
    [(IntegerCursor("id"), "1001", "2"), (Cursor("at"), "2026-01-10", "2026-01-02")],
    ids=["number", "time"],
)


@EITHER
@ANEW
def test_a_full_refresh_sets_the_cursor_to_what_it_saw(
    connection: Connection, query: Query, cursor: Any, before: str, after: str, anew: Any
) -> None:
    """An API whose numbers begin again, or whose wrong dates were corrected."""
    load_pages(connection, OLD, cursor=cursor)
    assert query(STOOD) == [(before,)]
    load_pages(connection, NEW, cursor=cursor, **anew)
    assert query(STOOD) == [(after,)]


@EITHER
def test_a_full_refresh_with_too_many_rejects_leaves_no_new_record_behind_the_cursor(
    connection: Connection, query: Query, cursor: Any, before: str, after: str
) -> None:
    """Nor does it move the cursor past its rejects."""
    load_pages(connection, OLD, cursor=cursor)
    for rows, stands in ((OLD, before), (NEW, after), (OLD, after)):
        with pytest.raises(BadPayloadError, match="1 records could not be stored"):
            load_pages(connection, [*rows, "reject"], cursor=cursor, options=FRESH)
        assert query(STOOD) == [(stands,)]


@EITHER
def test_a_full_refresh_that_fails_leaves_the_cursor(
    connection: Connection, query: Query, cursor: Any, before: str, after: str
) -> None:
    load_pages(connection, OLD, cursor=cursor)
    api = MemoryApi([NEW, NEW], fails_at=1)
    with pytest.raises(UnavailableError):
        load_api(connection, api, items(cursor=cursor), FRESH)
    assert query(STOOD) == [(before,)]


def test_a_full_refresh_that_finds_nothing_has_no_cursor(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, OLD, cursor=IntegerCursor("id"))
    load_pages(connection, [], cursor=IntegerCursor("id"), options=FRESH)
    assert query(STOOD) == [(None,)]
