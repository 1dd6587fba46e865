"""Promises about resume points that an API no longer accepts, such as expired page tokens."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import (
    BadPayloadError,
    BadRequestError,
    ConfigurationError,
    EltError,
    NotFoundError,
    UnavailableError,
)
from flows.load.options import LoadOptions
from flows.page import Page, Resume
from flows.source import Cursor, Window
from tests.load.memory_api import EVERYTHING, MemoryApi, items, load_api

Query = Callable[..., list[tuple[Any, ...]]]

PAGES = [[{"id": 1}, {"id": 2}], [{"id": 3}, {"id": 4}], [{"id": 5}]]
LOADS = "select state, inserted, unchanged, deleted from elt.loads order by load_id"
IDS = "select id from raw_shop.items order by id"
# One window holds all records: the step is longer than the time since its start.
WINDOWS: dict[str, Any] = {
    "key": (),
    "cursor": Cursor("at", start=datetime(2026, 1, 1, tzinfo=UTC), step=timedelta(days=9e3)),
}
REFUSED = {
    "400": BadRequestError("answered 400: invalid page token"),
    "410": NotFoundError("answered 410: this cursor is gone"),
    "200": BadPayloadError("answered 200: no list of records"),
}

each_refusal = pytest.mark.parametrize("refusal", REFUSED.values(), ids=REFUSED)


class ForgetfulApi(MemoryApi):
    """It takes no resume point that it has given before."""

    refusal: EltError = REFUSED["400"]
    refuses_all = False

    def __call__(self, window: Window, resume: Resume | None) -> Iterator[Page]:
        if resume is not None or self.refuses_all:
            self.asked.append((window, resume))
            raise self.refusal
        yield from super().__call__(window, resume)


def interrupted(connection: Connection, refusal: EltError, **declared: Any) -> ForgetfulApi:
    """An API that was away after two pages of a load, and now refuses to go on from there."""
    api = ForgetfulApi(PAGES, fails_at=2)
    api.refusal = refusal
    with pytest.raises(UnavailableError):
        load_api(connection, api, items(**declared))
    api.fails_at = None
    api.asked.clear()
    return api


@each_refusal
def test_a_merge_reads_its_window_from_the_beginning(
    connection: Connection, query: Query, refusal: EltError, caplog: pytest.LogCaptureFixture
) -> None:
    api = interrupted(connection, refusal)
    load_api(connection, api, items())
    assert query(IDS) == [(1,), (2,), (3,), (4,), (5,)]
    assert [resume is None for _, resume in api.asked] == [False, True]
    assert "did not complete and can't be resumed" in caplog.text


@each_refusal
def test_an_append_in_windows_deletes_what_it_stored_of_the_window_and_reads_it_again(
    connection: Connection, query: Query, refusal: EltError
) -> None:
    load_api(connection, MemoryApi([[{"id": 0}]]), items(**WINDOWS))
    api = interrupted(connection, refusal, **WINDOWS)
    load_api(connection, api, items(**WINDOWS))
    assert query(LOADS)[1:] == [("failed", 4, 0, 0), ("succeeded", 5, 0, 4)]
    assert query(IDS) == [(0,), (1,), (2,), (3,), (4,), (5,)]
    assert [window.until for window, _ in api.asked] == [api.asked[0][0].until] * 2


def test_rows_of_several_unfinished_loads_are_deleted_together(
    connection: Connection, query: Query
) -> None:
    api = MemoryApi(PAGES, fails_at=1)
    for fails_at in (1, 2):
        api.fails_at = fails_at
        with pytest.raises(UnavailableError):
            load_api(connection, api, items(**WINDOWS))
    load_api(connection, ForgetfulApi(PAGES), items(**WINDOWS))
    assert query(LOADS) == [("failed", 2, 0, 0), ("failed", 2, 0, 0), ("succeeded", 5, 0, 4)]
    assert query(IDS) == [(1,), (2,), (3,), (4,), (5,)]


def test_a_load_that_restarts_may_be_interrupted_and_restarted_itself(
    connection: Connection, query: Query
) -> None:
    api = interrupted(connection, REFUSED["400"], **WINDOWS)
    api.fails_at = 1
    with pytest.raises(UnavailableError):
        load_api(connection, api, items(**WINDOWS))
    api.fails_at = None
    load_api(connection, api, items(**WINDOWS))
    assert query(LOADS) == [("failed", 4, 0, 0), ("failed", 2, 0, 4), ("succeeded", 5, 0, 2)]
    assert query(IDS) == [(1,), (2,), (3,), (4,), (5,)]


def test_rejects_of_what_is_read_again_are_not_left_open(
    connection: Connection, query: Query
) -> None:
    pages: list[Any] = [[{"id": 1}, "no object"], *PAGES[1:]]
    api = ForgetfulApi(pages, fails_at=2)
    declared = {**WINDOWS, "max_rejects": 9}
    with pytest.raises(UnavailableError):
        load_api(connection, api, items(**declared))
    api.fails_at = None
    load_api(connection, api, items(**declared))
    assert query("select load_id, replayed_by from elt.rejects order by 1") == [(1, 2), (2, None)]


def test_nothing_is_deleted_before_the_api_answers_again(
    connection: Connection, query: Query
) -> None:
    api = interrupted(connection, REFUSED["400"], **WINDOWS)
    api.refuses_all = True
    with pytest.raises(BadRequestError):
        load_api(connection, api, items(**WINDOWS))
    assert query(IDS) == [(1,), (2,), (3,), (4,)]
    api.refuses_all = False
    load_api(connection, api, items(**WINDOWS))
    assert query(IDS) == [(1,), (2,), (3,), (4,), (5,)]


def test_an_append_without_windows_says_what_to_do(connection: Connection, query: Query) -> None:
    api = interrupted(connection, REFUSED["400"], key=())
    with pytest.raises(BadRequestError, match=r"invalid page token .* once with full_refresh"):
        load_api(connection, api, items(key=()))
    assert query(IDS) == [(1,), (2,), (3,), (4,)]
    load_api(connection, api, items(key=()), LoadOptions(full_refresh=True))
    assert query(IDS) == [(1,), (2,), (3,), (4,), (5,)]


def test_a_later_page_that_is_refused_is_an_error_of_its_own(
    connection: Connection, query: Query
) -> None:
    """The API accepted the resume point; the next load resumes from the new checkpoint."""

    class Breaking(MemoryApi):
        def __call__(self, window: Window, resume: Resume | None) -> Iterator[Page]:
            for page in super().__call__(window, resume):
                yield page
                raise REFUSED["400"]

    with pytest.raises(ConfigurationError, match="invalid page token"):
        load_api(connection, Breaking(PAGES), items())
    api = Breaking(PAGES)
    with pytest.raises(ConfigurationError, match="invalid page token"):
        load_api(connection, api, items())
    assert len(api.asked) == 1
    load_api(connection, MemoryApi(PAGES), items(), EVERYTHING)
    assert query(IDS) == [(1,), (2,), (3,), (4,), (5,)]
