"""Promises about the next load's requests: the cursor, windows by hand, and after a failure."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError, ConfigurationError, UnavailableError
from flows.load import loader as loading
from flows.load.checkpoints import Checkpoint
from flows.load.options import LoadOptions, window_to_read
from flows.load.row_writer import RowWriter
from flows.page import Resume
from flows.source import Cursor, Resource, Window
from tests.load.memory_api import EVERYTHING, MemoryApi, items, load_api

Query = Callable[..., list[tuple[Any, ...]]]

STATES = "select state from elt.loads order by load_id"
IDS = "select id from raw_shop.items order by id"
PAGES = [
    [{"id": 1, "at": "2024-03-01T10:00:00Z"}],
    [{"id": 2, "at": "2024-03-05T00:30:00+02:00"}],
    [{"id": 3, "at": "2024-03-03"}],
]
BY_AT = items(cursor=Cursor("at", lookback=timedelta(days=2)))


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NOW = day("2024-03-10T15:00:00")
MARCH = Window(day("2024-03-01"), day("2024-04-01"))


def cursor_at(query: Query) -> datetime | None:
    found: datetime | None = query("select cursor_at from elt.checkpoints")[0][0]
    return found and found.astimezone(UTC)


def load_until_failure(
    connection: Connection, page: int, resource: Resource = BY_AT, options: LoadOptions = EVERYTHING
) -> None:
    with pytest.raises(UnavailableError, match="the API is away"):
        load_api(connection, MemoryApi(PAGES, fails_at=page), resource, options)


def test_the_first_load_requests_everything_and_the_next_from_before_the_newest(
    connection: Connection, query: Query
) -> None:
    """The newest is 2024-03-04 22:30 UTC; two days before it, at midnight."""
    api = MemoryApi(PAGES)
    load_api(connection, api, BY_AT)
    assert cursor_at(query) == day("2024-03-04T22:30:00")
    load_api(connection, api, BY_AT)
    assert api.asked == [(Window(), None), (Window(since=day("2024-03-02")), None)]


def test_older_records_do_not_move_the_cursor_back(connection: Connection, query: Query) -> None:
    load_api(connection, MemoryApi(PAGES), BY_AT)
    load_api(connection, MemoryApi(PAGES[:1]), BY_AT)
    load_api(connection, MemoryApi([]), BY_AT)
    assert cursor_at(query) == day("2024-03-04T22:30:00")


@pytest.mark.parametrize(
    ("cursor", "checkpoint", "window"),
    [
        pytest.param(Cursor("at"), None, Window(), id="no start"),
        pytest.param(Cursor("at", start=MARCH.since), None, Window(MARCH.since), id="a start"),
        pytest.param(
            Cursor("at", timedelta(days=1)), day("2024-03-05T09:00"), Window(day("2024-03-04")),
            id="a lookback",
        ),
        pytest.param(
            Cursor("at", timedelta(hours=10)), day("2024-03-05T09:00"), Window(day("2024-03-04")),
            id="a lookback over midnight",
        ),
        pytest.param(
            Cursor("at", timedelta(days=9), MARCH.since), day("2024-03-05"), Window(MARCH.since),
            id="a lookback over the start",
        ),
        pytest.param(
            Cursor("at", start=MARCH.since, step=timedelta(days=1)), day("2024-03-05T09:00"),
            Window(day("2024-03-05"), day("2024-03-10")), id="steps, up to yesterday",
        ),
    ],
)  # fmt: skip
def test_a_window_begins_at_the_midnight_before_the_lookback(
    cursor: Cursor, checkpoint: datetime | None, window: Window
) -> None:
    asked = window_to_read(items(cursor=cursor), LoadOptions(), Checkpoint(checkpoint), NOW)
    assert asked == window


def test_full_refresh_asks_from_the_start() -> None:
    resource = items(cursor=Cursor("at", start=MARCH.since))
    checkpoint = Checkpoint(day("2024-03-05"))
    asked = window_to_read(resource, LoadOptions(full_refresh=True), checkpoint, NOW)
    assert asked == Window(MARCH.since)


def test_a_window_by_hand_is_requested_unchanged_and_leaves_the_cursor(
    connection: Connection, query: Query
) -> None:
    load_api(connection, MemoryApi(PAGES[:1]), BY_AT)
    api = MemoryApi(PAGES)
    load_api(connection, api, BY_AT, LoadOptions(MARCH))
    assert api.asked == [(MARCH, None)]
    assert query(IDS) == [(1,), (2,), (3,)]
    assert cursor_at(query) == day("2024-03-01T10:00")


def test_a_window_by_hand_that_fails_leaves_the_cursor_too(
    connection: Connection, query: Query
) -> None:
    load_api(connection, MemoryApi(PAGES[:1]), BY_AT)
    load_until_failure(connection, 2, options=LoadOptions(MARCH))
    load_api(connection, MemoryApi(PAGES[:1]), BY_AT)
    assert cursor_at(query) == day("2024-03-01T10:00")


def test_a_window_by_hand_may_lie_before_the_start() -> None:
    resource = items(cursor=Cursor("at", start=day("2024-06-01")))
    assert window_to_read(resource, LoadOptions(MARCH), Checkpoint(), NOW) == MARCH


@pytest.mark.parametrize("until", ["2024-03-01", "2024-02-01"])
def test_an_empty_window_is_refused(until: str) -> None:
    with pytest.raises(ConfigurationError, match=r"since \(2024-03-01\) must be before until"):
        LoadOptions(Window(day("2024-03-01"), day(until)))


@pytest.mark.parametrize("window", [Window(since=NOW), Window(until=NOW)])
def test_full_refresh_of_a_window_is_refused(window: Window) -> None:
    """It would delete what lies outside."""
    with pytest.raises(ConfigurationError, match="full_refresh reads everything"):
        LoadOptions(window, full_refresh=True)


@pytest.mark.parametrize("value", ["yesterday", 1709251200])
def test_a_cursor_that_is_no_time_is_an_error(connection: Connection, value: Any) -> None:
    with pytest.raises(BadPayloadError, match="not an ISO 8601 date or time"):
        load_api(connection, MemoryApi([[{"id": 1, "at": value}]]), BY_AT)


@pytest.mark.parametrize("page", [1, 2])
def test_a_load_that_fails_keeps_what_it_committed_and_the_next_resumes(
    connection: Connection, query: Query, page: int
) -> None:
    load_until_failure(connection, page)
    assert query(IDS) == [(number,) for number in range(1, page + 1)]
    assert query("select state, extracted, error from elt.loads") == [
        ("failed", page, "the API is away")
    ]
    assert cursor_at(query) is None
    api = MemoryApi(PAGES)
    entry = load_api(connection, api, BY_AT)
    assert api.asked == [(Window(), Resume("0", str(page), None))]
    assert (entry.state, entry.inserted) == ("succeeded", len(PAGES) - page)
    assert query(IDS) == [(1,), (2,), (3,)]
    assert cursor_at(query) == day("2024-03-04T22:30")


def test_a_resumed_load_remembers_the_newest_record_of_the_failed_one(
    connection: Connection, query: Query
) -> None:
    """Where the API sends the newest first, the second load sees only older ones."""
    load_until_failure(connection, 2)
    load_api(connection, MemoryApi(PAGES), BY_AT)
    assert cursor_at(query) == day("2024-03-04T22:30")


def test_a_load_that_fails_again_and_again_goes_on_each_time(
    connection: Connection, query: Query
) -> None:
    load_until_failure(connection, 1)
    load_until_failure(connection, 2)
    load_api(connection, MemoryApi(PAGES), BY_AT)
    assert query("select state, extracted from elt.loads order by load_id") == [
        ("failed", 1), ("failed", 1), ("succeeded", 1),
    ]  # fmt: skip


def test_rows_after_the_last_checkpoint_are_read_again(
    connection: Connection, query: Query
) -> None:
    load_until_failure(connection, 1, items(checkpoint_rows=2))
    with pytest.raises(Exception, match="does not exist"):
        query(IDS)
    load_api(connection, MemoryApi(PAGES), items(checkpoint_rows=2))
    assert query(IDS) == [(1,), (2,), (3,)]


def test_a_resume_point_keeps_the_slice_it_is_in(connection: Connection) -> None:
    load_until_failure(connection, 1, options=LoadOptions(MARCH))
    api = MemoryApi(PAGES)
    load_api(connection, api, BY_AT, LoadOptions(MARCH))
    assert api.asked == [(MARCH, Resume("0", "1", MARCH.since))]


def test_a_resume_point_of_half_a_day_ago_is_too_old(connection: Connection, query: Query) -> None:
    """Pages have shifted by then; the cursor still stands before the failed load."""
    load_until_failure(connection, 1)
    query("update elt.checkpoints set saved_at = now() - interval '13 hours'")
    api = MemoryApi(PAGES)
    load_api(connection, api, BY_AT)
    assert api.asked == [(Window(), None)]


@pytest.mark.parametrize("options", [LoadOptions(full_refresh=True), LoadOptions()])
def test_replace_that_fails_leaves_the_old_table_and_begins_anew(
    connection: Connection, query: Query, options: LoadOptions
) -> None:
    old = [{"id": 7, "at": "2024-01-01"}]
    resource = BY_AT if options.full_refresh else items(disposition="replace")
    load_api(connection, MemoryApi([old]), resource)
    load_until_failure(connection, 2, resource, options)
    assert query(IDS) == [(7,)]
    api = MemoryApi(PAGES)
    load_api(connection, api, resource, options)
    assert api.asked == [(Window(), None)]
    assert query(IDS) == [(1,), (2,), (3,)]


def test_any_failure_closes_the_ledger_entry(connection: Connection, query: Query) -> None:
    with pytest.raises(BadPayloadError):
        load_api(connection, MemoryApi([PAGES[0], b"<html>"]), BY_AT)
    broken: list[Any] = [PAGES[0], {}.keys()]
    with pytest.raises(TypeError, match="dict_keys is not JSON"):
        load_api(connection, MemoryApi(broken), BY_AT)
    assert query("select state, left(error, 10), ended_at is null from elt.loads") == [
        ("failed", "page 1 ans", False),
        ("failed", "TypeError:", False),
    ]


def test_append_goes_on_where_its_last_window_ended(connection: Connection) -> None:
    """Its cursor is the window's end: the newest row's own day would be appended again."""
    stepped = items(key=(), cursor=Cursor("at", start=day("2024-03-01"), step=timedelta(days=5000)))
    api = MemoryApi(PAGES)
    load_api(connection, api, stepped)
    load_api(connection, api, stepped)
    first, second = (window for window, _ in api.asked)
    assert (first.since, second.since) == (day("2024-03-01"), first.until)


def test_append_goes_on_there_with_another_cursor_field(connection: Connection) -> None:
    """Its windows don't depend on the field, and reading from the start would repeat all rows."""
    api = MemoryApi(PAGES)
    load_api(connection, api, STEPPED)
    assert STEPPED.time_cursor is not None
    renamed = replace(STEPPED, cursor=replace(STEPPED.time_cursor, field="changed_at"))
    load_api(connection, api, renamed)
    first, second = (window for window, _ in api.asked)
    assert second.since == first.until


def test_append_by_a_cursor_alone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="duplicates rows at its edge"):
        items(key=(), cursor=Cursor("at"))


def test_replace_reads_everything_each_time() -> None:
    cursor = Cursor("at", start=day("2024-03-01"))
    for replacing in (items(disposition="replace", cursor=cursor), items(cursor=cursor)):
        window = window_to_read(replacing, LoadOptions(), Checkpoint(day("2024-03-07")), NOW)
        wanted = "2024-03-01" if replacing.writes == "replace" else "2024-03-07"
        assert window.since == day(wanted)


CHECKPOINTS = (
    "select array_agg(id order by id) from raw_shop.items group by _loaded_at order by _loaded_at"
)
SEVEN = [[{"id": number}] for number in range(1, 8)]


def test_a_load_that_is_slow_makes_a_checkpoint_when_its_seconds_are_over(
    connection: Connection, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock advances by ten seconds at each call: once per page."""
    clock = count(step=10)
    monkeypatch.setattr(loading, "monotonic", lambda: next(clock))
    load_api(connection, MemoryApi(SEVEN), items(checkpoint_rows=100, checkpoint_seconds=25))
    assert query(CHECKPOINTS) == [([1, 2, 3],), ([4, 5, 6],), ([7],)]


def test_a_load_of_large_pages_makes_a_checkpoint_when_it_holds_too_many_bytes(
    connection: Connection, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "CHECKPOINT_BYTES", 2 * len(b'[{"id": 1}]'))
    load_api(connection, MemoryApi(SEVEN), items(checkpoint_rows=100))
    assert query(CHECKPOINTS) == [([1, 2],), ([3, 4],), ([5, 6],), ([7],)]


def test_a_replace_of_large_pages_holds_no_more_of_them_and_commits_once(
    connection: Connection, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It brings them into its stage."""
    held: list[int] = []
    store = RowWriter.store

    def watched(rows: Any, cursor: Any, flush: bool) -> None:
        held.append(len(rows._batches))
        store(rows, cursor, flush)

    monkeypatch.setattr(RowWriter, "store", watched)
    monkeypatch.setattr(loading, "CHECKPOINT_BYTES", 2 * len(b'[{"id": 1}]'))
    load_api(connection, MemoryApi(SEVEN), items(checkpoint_rows=100, disposition="replace"))
    assert held == [2, 2, 2, 1]
    assert query(CHECKPOINTS) == [([1, 2, 3, 4, 5, 6, 7],)]


@pytest.mark.parametrize("pages", [1, 2])
def test_an_append_goes_on_from_a_checkpoint_by_time(
    connection: Connection, query: Query, pages: int
) -> None:
    resource = items(key=(), checkpoint_rows=100, checkpoint_seconds=0)
    load_until_failure(connection, pages, resource)
    load_api(connection, MemoryApi(PAGES), resource)
    assert query(IDS) == [(1,), (2,), (3,)]


STEPPED = items(key=(), cursor=Cursor("at", start=day("2024-03-01"), step=timedelta(days=5000)))


def test_an_append_resumes_however_late_and_reads_to_its_original_end(
    connection: Connection, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another end would restart it, and a restart would store its first rows twice."""
    windows = [day("2024-03-10T15:00:00"), day("2024-03-12T15:00:00"), day("2024-03-12T16:00:00")]
    real = loading.window_to_read
    monkeypatch.setattr(loading, "window_to_read", lambda *given: real(*given[:-1], windows.pop(0)))
    load_until_failure(connection, 1, STEPPED)
    query("update elt.checkpoints set saved_at = now() - interval '3 days'")
    api = MemoryApi(PAGES)
    load_api(connection, api, STEPPED)
    first = Window(day("2024-03-01"), day("2024-03-10"))
    assert api.asked == [(first, Resume("0", "1", first.since))]
    assert query(IDS) == [(1,), (2,), (3,)]
    load_api(connection, api, STEPPED)
    assert api.asked[-1] == (Window(day("2024-03-10"), day("2024-03-12")), None)


def test_a_range_by_hand_does_not_cut_in_on_an_append(connection: Connection, query: Query) -> None:
    """Its resume point would be lost, and its rows stored twice."""
    load_until_failure(connection, 1, STEPPED)
    with pytest.raises(ConfigurationError, match="its last load is not complete"):
        load_api(connection, MemoryApi(PAGES), STEPPED, LoadOptions(MARCH))
    load_api(connection, MemoryApi(PAGES), STEPPED)
    assert query(IDS) == [(1,), (2,), (3,)]
    load_api(connection, MemoryApi([]), STEPPED, LoadOptions(MARCH))


def test_a_range_by_hand_that_failed_holds_up_no_append(connection: Connection) -> None:
    load_until_failure(connection, 1, STEPPED, LoadOptions(MARCH))
    api = MemoryApi(PAGES)
    load_api(connection, api, STEPPED)
    assert api.asked[0][0].until != MARCH.until
    load_api(connection, MemoryApi([]), STEPPED, LoadOptions(MARCH))


BEGUN = MemoryApi(PAGES, fails_at=2, first="March")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(LoadOptions(), id="then a load without a range"),
        pytest.param(LoadOptions(Window(MARCH.since, day("2024-03-20"))), id="then another range"),
    ],
)
def test_a_range_by_hand_that_failed_leaves_no_rows_to_a_load_of_another_range(
    connection: Connection, query: Query, other: LoadOptions
) -> None:
    """Its resume point is lost, so that its rows would be stored twice when it is repeated."""
    with pytest.raises(UnavailableError):
        load_api(connection, BEGUN, STEPPED, LoadOptions(MARCH))
    assert query(IDS) == [(1,), (2,)]
    load_api(connection, MemoryApi([[{"id": 9, "at": "2024-05-01"}]]), STEPPED, other)
    assert query(IDS) == [(9,)]
    load_api(connection, replace(BEGUN, fails_at=None), STEPPED, LoadOptions(MARCH))
    assert query(IDS) == [(1,), (2,), (3,), (9,)]
    deleted = "select state, inserted, deleted from elt.loads order by load_id"
    assert query(deleted) == [("failed", 2, 0), ("succeeded", 1, 2), ("succeeded", 3, 0)]


def test_a_range_by_hand_that_fails_again_and_again_is_read_on(
    connection: Connection, query: Query
) -> None:
    for fails_at in (1, 2):
        with pytest.raises(UnavailableError):
            load_api(connection, replace(BEGUN, fails_at=fails_at), STEPPED, LoadOptions(MARCH))
    load_api(connection, replace(BEGUN, fails_at=3), STEPPED, LoadOptions(MARCH))
    assert query("select inserted from elt.loads order by load_id") == [(1,), (1,), (1,)]


def test_all_failed_loads_of_a_range_are_undone_together(
    connection: Connection, query: Query
) -> None:
    for fails_at in (1, 2):
        with pytest.raises(UnavailableError):
            load_api(connection, replace(BEGUN, fails_at=fails_at), STEPPED, LoadOptions(MARCH))
    load_api(connection, MemoryApi([]), STEPPED)
    assert query(IDS) == []


def test_an_append_whose_declaration_changed_half_way_stores_no_row_twice(
    connection: Connection, query: Query
) -> None:
    load_until_failure(connection, 2, STEPPED)
    load_api(connection, MemoryApi(PAGES, first="larger pages"), STEPPED)
    assert query(IDS) == [(1,), (2,), (3,)]


def test_an_append_without_windows_whose_declaration_changed_says_what_to_do(
    connection: Connection, query: Query
) -> None:
    """What it has stored may be no longer there to be read again."""
    load_until_failure(connection, 2, items(key=()))
    with pytest.raises(ConfigurationError, match=r"first request .* load once with full_refresh"):
        load_api(connection, MemoryApi(PAGES, first="larger pages"), items(key=()))
    assert query(IDS) == [(1,), (2,)]


@pytest.mark.parametrize("rejects", [0, 1], ids=["", "with too many rejects"])
def test_an_append_goes_on_where_its_full_refresh_ended(
    connection: Connection, rejects: int
) -> None:
    """The newest row's own day would be appended again."""
    api = MemoryApi([*PAGES, ["reject"] * rejects])
    try:
        load_api(connection, api, STEPPED, LoadOptions(full_refresh=True))
    except BadPayloadError:
        assert rejects
    load_api(connection, api, items(**vars(STEPPED) | {"max_rejects": 9}))
    (first, _), (second, _) = api.asked
    assert second.since == first.until


LAGGING = Cursor("at", lag=timedelta(minutes=5))
QUARTERS = Cursor("at", format="epoch_s", align=timedelta(minutes=15))
HOURS = Cursor("at", start=day("2024-03-09"), step=timedelta(hours=1))
IN_TOKYO = Cursor("at", start=day("2024-03-09"), step=timedelta(days=1), zone="Asia/Tokyo")


@pytest.mark.parametrize(
    ("cursor", "window"),
    [
        pytest.param(
            LAGGING, Window(day("2024-03-10"), day("2024-03-10T14:55")), id="a lag: up to a minute"
        ),
        pytest.param(QUARTERS, Window(day("2024-03-10T13:30")), id="full quarters of an hour"),
        pytest.param(
            replace(QUARTERS, lookback=timedelta(minutes=20)), Window(day("2024-03-10T13:15")),
            id="a lookback from a quarter",
        ),
        pytest.param(
            replace(QUARTERS, lag=timedelta(minutes=1)),
            Window(day("2024-03-10T13:30"), day("2024-03-10T14:45")), id="a lag and quarters",
        ),
        pytest.param(
            HOURS, Window(day("2024-03-10T13:00"), day("2024-03-10T15:00")), id="steps of an hour"
        ),
        pytest.param(
            replace(HOURS, lag=timedelta(minutes=5)),
            Window(day("2024-03-10T13:00"), day("2024-03-10T14:00")), id="hours with a lag",
        ),
        pytest.param(
            replace(HOURS, align=timedelta(days=1)), Window(day("2024-03-10"), day("2024-03-10")),
            id="hours of full days",
        ),
        pytest.param(
            IN_TOKYO, Window(day("2024-03-09T15:00"), day("2024-03-10T15:00")),
            id="days of another zone",
        ),
    ],
)  # fmt: skip
def test_a_window_ends_with_a_full_unit_behind_the_lag(cursor: Cursor, window: Window) -> None:
    """It is 15:00:30, and the newest value is of 13:40."""
    checkpoint = Checkpoint(day("2024-03-10T13:40"))
    now = NOW + timedelta(seconds=30)
    assert window_to_read(items(cursor=cursor), LoadOptions(), checkpoint, now) == window


@pytest.mark.parametrize(
    "changes",
    [
        {"step": timedelta(days=1)},
        {"align": timedelta(hours=6)},
        {"step": timedelta(days=1), "zone": "Asia/Tokyo"},
    ],
    ids=["step", "align", "zone"],
)
def test_an_append_goes_on_where_it_ended_whatever_its_windows_were(
    changes: dict[str, Any],
) -> None:
    """From the full unit before, it would append rows again."""
    ended = Checkpoint(day("2024-03-08T16:00"))  # 01:00 in Tokyo
    resource = items(key=(), cursor=replace(HOURS, start=day("2024-03-01"), **changes))
    assert window_to_read(resource, LoadOptions(), ended, NOW).since == ended.cursor


def test_days_by_hand_are_those_of_the_cursors_zone() -> None:
    asked = window_to_read(items(cursor=IN_TOKYO), LoadOptions(MARCH), Checkpoint(), NOW)
    assert asked == Window(day("2024-02-29T15:00"), day("2024-03-31T15:00"))


def test_the_cursor_stays_behind_the_lag(connection: Connection, query: Query) -> None:
    """Rows that are newer are kept, and requested again: some of their time may come later."""
    now = datetime.now(UTC)
    rows = [{"id": number, "at": (now - timedelta(hours=number)).isoformat()} for number in (1, 9)]
    resource = items(cursor=Cursor("at", lag=timedelta(hours=5)))
    load_api(connection, MemoryApi([rows]), resource)
    assert query("select count(*) from raw_shop.items") == [(2,)]
    at = cursor_at(query)
    assert at is not None
    assert timedelta(hours=5) <= now - at < timedelta(hours=5, minutes=2)


def test_an_interrupted_load_keeps_the_end_of_its_window(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another end, its first request would differ, and it would start again each time."""
    times = [NOW, NOW + timedelta(minutes=7), NOW + timedelta(minutes=9)]
    real = loading.window_to_read
    monkeypatch.setattr(loading, "window_to_read", lambda *given: real(*given[:-1], times.pop(0)))
    lagging = items(cursor=LAGGING)
    load_until_failure(connection, 1, lagging)
    api = MemoryApi(PAGES)
    load_api(connection, api, lagging)
    load_api(connection, api, lagging)
    assert [window.until for window, _ in api.asked] == [
        day("2024-03-10T14:55"),
        day("2024-03-10T15:04"),
    ]
    assert api.asked[0][1] == Resume("0", "1", None)
