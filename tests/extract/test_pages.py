"""Promises of records, pagination and pages: what is read of an API, in which order, until when."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from conftest import Answer, Server
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.declaration import Cursor, Page, Params, Partition, Resource, Resume, Source, Window
from flows.errors import BadPayloadError
from flows.extract.client import Client
from flows.extract.pages import _slices, first_url, read_pages
from flows.extract.pagination import next_url
from flows.extract.records import columns_at, records_at

Serve = Callable[[Callable[[str], Answer]], Server]

JANUARY_1 = datetime(2024, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
ANY_TIME = Window()
WEEK = Window(JANUARY_1, JANUARY_1 + 7 * DAY)


def page(document: Any, url: str = "http://api/v1/orders?page=1") -> Page:
    return Page(json.dumps(document).encode(), url)


def days(_: Partition, window: Window) -> Params:
    return {"from": f"{window.since:%d}", "to": f"{window.until:%d}"}


def resource(**changes: Any) -> Resource:
    declared = {"name": "orders", "path": "orders", "records": records_at("value")}
    return Resource(**declared | {"paging": next_url("next")} | changes)


def read(
    server: Server, orders: Resource, window: Window = ANY_TIME, resume: Resume | None = None
) -> list[Page]:
    source = Source("shop", server.url, (orders,))
    with Client(source) as client:
        return list(read_pages(client, source, orders, Partition(), window, resume))


def linked(links: dict[str, str | None]) -> Callable[[str], Answer]:
    """An API whose pages are paths, each with the link to the next one; each is there once."""
    left = dict(links)

    def answer(path: str) -> Answer:
        if path not in left:
            return Answer(status=404)
        return Answer(json.dumps({"value": [path], "next": left.pop(path)}).encode())

    return answer


@pytest.mark.parametrize(
    ("path", "document"),
    [("", [1, 2]), ("value", {"value": [1, 2]}), ("data.items", {"data": {"items": [1, 2]}})],
)
def test_records_are_found_at_the_root_or_below(path: str, document: Any) -> None:
    assert records_at(path)(page(document)) == [1, 2]


@pytest.mark.parametrize(
    ("path", "document", "said"),
    [
        ("", {"value": []}, "a list of records at 'its root', but there is ['value']"),
        ("value", {"value": {"a": 1}}, "a list of records at 'value', but there is ['a']"),
        ("value", {"value": None}, "but there is NoneType"),
        ("value", {"error": "busy"}, "the field 'value' at 'value', but there is ['error']"),
        ("data.items", {"data": [1]}, "the field 'items' at 'data.items', but there is list"),
    ],
)
def test_records_at_another_place_are_an_error_that_says_what_is_there(
    path: str, document: Any, said: str
) -> None:
    with pytest.raises(BadPayloadError) as failure:
        records_at(path)(page(document))
    assert said in str(failure.value)


def test_columns_become_records_with_their_nulls() -> None:
    daily = {"time": ["2024-01-01", "2024-01-02"], "rain": [None, 1.5]}
    assert columns_at("daily")(page({"daily": daily})) == [
        {"time": "2024-01-01", "rain": None},
        {"time": "2024-01-02", "rain": 1.5},
    ]


@pytest.mark.parametrize("daily", [{}, {"time": [], "rain": []}])
def test_columns_without_values_are_no_records(daily: dict[str, Any]) -> None:
    assert columns_at("daily")(page({"daily": daily})) == []


@pytest.mark.parametrize(
    ("daily", "said"),
    [
        ({"time": [1, 2], "rain": [1]}, "different lengths under 'daily': {'time': 2, 'rain': 1}"),
        ({"time": [1], "rain": None}, "an object of arrays"),
        ([1], "an object of arrays"),
    ],
)
def test_columns_that_can_shift_are_an_error(daily: Any, said: str) -> None:
    with pytest.raises(BadPayloadError) as failure:
        columns_at("daily")(page({"daily": daily}))
    assert said in str(failure.value)


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("http://other/x?y=1", "http://other/x?y=1"),
        ("orders?page=2", "http://api/v1/orders?page=2"),
        ("/orders?page=2", "http://api/orders?page=2"),
        ("?page=2", "http://api/v1/orders?page=2"),
    ],
)
def test_the_next_page_is_absolute_or_relative_to_the_page(link: str, url: str) -> None:
    assert next_url("@next")(page({"@next": link})) == url


@pytest.mark.parametrize("document", [{}, {"next": None}, {"next": ""}, []])
def test_the_last_page_names_no_next_one(document: Any) -> None:
    assert next_url("next")(page(document)) is None


def test_a_next_page_that_is_no_url_is_an_error() -> None:
    with pytest.raises(BadPayloadError, match="has 2 as its next page under 'next'"):
        next_url("next")(page({"next": 2}))


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Please log in</body></html>",
        b'[{"id": 1}, {"id"',
        b'[{"id": NaN}]',
        b"[-Infinity]",
        b"",
        b"[" * 100_000,
    ],
    ids=["HTML", "cut", "NaN", "Infinity", "empty", "too deep"],
)
def test_a_body_that_is_not_json_is_an_error_that_shows_its_start(body: bytes) -> None:
    with pytest.raises(BadPayloadError) as failure:
        _ = Page(body, "http://api/orders", "text/html").document
    assert "http://api/orders answered" in str(failure.value)
    assert f"they begin {body[:200].decode()!r}" in str(failure.value)


def test_spaces_in_parameters_are_percent_encoded() -> None:
    orders = resource(params={"$filter": "id gt 1"})
    url = first_url(Source("shop", "http://api/v1", (orders,)), orders, Partition(), ANY_TIME)
    assert url == "http://api/v1/orders?%24filter=id%20gt%201"


def test_pages_are_fetched_when_asked_for(serve: Serve) -> None:
    server = serve(linked({"/orders": "/b", "/b": None}))
    source = Source("shop", server.url, (resource(),))
    with Client(source) as client:
        pages = read_pages(client, source, resource(), Partition(), ANY_TIME)
        assert server.asked == []
        next(pages)
        assert server.asked == ["/orders"]


def test_paging_in_a_circle_is_an_error(serve: Serve) -> None:
    server = serve(linked({"/orders": "/b", "/b": "/orders"}))
    with pytest.raises(BadPayloadError, match="circle"):
        read(server, resource())
    assert server.asked == ["/orders", "/b"]


def test_all_pages_but_the_last_have_a_point_to_go_on_from(serve: Serve) -> None:
    server = serve(linked({"/orders": "/b", "/b": "/c", "/c": None}))
    pages = read(server, resource())
    assert [p.resume and p.resume.url for p in pages] == [server.url + "b", server.url + "c", None]


moments = st.timedeltas(timedelta(), 9999 * DAY).map(lambda age: JANUARY_1 - age)


@settings(database=None, deadline=None)
@given(moments, st.timedeltas(timedelta(seconds=1), 400 * DAY), st.integers(1, 60))
def test_slices_cover_the_window_without_gap_or_overlap(
    since: datetime, length: timedelta, parts: int
) -> None:
    step = max(length / parts, timedelta(seconds=1))
    window = Window(since, since + length)
    slices = list(_slices(window, resource(cursor=Cursor("at", start=since, step=step))))
    ends = [part.until for part in slices]
    assert [part.since for part in slices] == [since, *ends[:-1]]
    assert ends[-1] == window.until
    assert all(part.until - part.since == step for part in slices[:-1])
    assert timedelta() < slices[-1].until - slices[-1].since <= step


def test_an_empty_window_asks_for_nothing(serve: Serve) -> None:
    server = serve(linked({}))
    stepped = resource(params=days, cursor=Cursor("at", start=JANUARY_1, step=3 * DAY))
    assert read(server, stepped, Window(JANUARY_1, JANUARY_1)) == []


def paged(path: str) -> Answer:
    """Two pages for every slice."""
    more = None if path.endswith("page=2") else f"{path}&page=2"
    return Answer(json.dumps({"value": [path], "next": more}).encode())


STEPPED = resource(params=days, cursor=Cursor("at", start=JANUARY_1, step=3 * DAY))
ALL_STEPS = [
    "/orders?from=01&to=04",
    "/orders?from=01&to=04&page=2",
    "/orders?from=04&to=07",
    "/orders?from=04&to=07&page=2",
    "/orders?from=07&to=08",
    "/orders?from=07&to=08&page=2",
]


def test_a_window_is_read_in_steps_oldest_first(serve: Serve) -> None:
    server = serve(paged)
    read(server, STEPPED, WEEK)
    assert server.asked == ALL_STEPS


@pytest.mark.parametrize(
    ("orders", "window"),
    [
        pytest.param(STEPPED, WEEK, id="stepped and paged"),
        pytest.param(resource(params=days), WEEK, id="paged"),
    ],
)
def test_reading_goes_on_after_any_page(serve: Serve, orders: Resource, window: Window) -> None:
    server = serve(paged)
    pages = read(server, orders, window)
    whole = list(server.asked)
    assert len(whole) > 1
    for number, done in enumerate(pages[:-1], start=1):
        server.asked.clear()
        rest = read(server, orders, window, done.resume)
        assert server.asked == whole[number:]
        assert [p.resume for p in rest] == [p.resume for p in pages[number:]]
    assert pages[-1].resume is None


def test_a_resume_point_outlives_the_end_of_the_window(serve: Serve) -> None:
    """A load that is gone on with after midnight reads up to the new day."""
    server = serve(paged)
    done = read(server, STEPPED, WEEK)[3]
    server.asked.clear()
    read(server, STEPPED, Window(WEEK.since, JANUARY_1 + 8 * DAY), done.resume)
    assert server.asked == ["/orders?from=07&to=09", "/orders?from=07&to=09&page=2"]


@pytest.mark.parametrize(
    ("orders", "window"),
    [
        pytest.param(STEPPED, Window(JANUARY_1 + DAY, WEEK.until), id="another window"),
        pytest.param(
            resource(params={"select": "all"}, cursor=STEPPED.cursor), WEEK, id="other parameters"
        ),
    ],
)
def test_a_resume_point_of_another_first_request_is_passed_over(
    serve: Serve, orders: Resource, window: Window
) -> None:
    server = serve(paged)
    done = read(server, STEPPED, WEEK)[2]
    server.asked.clear()
    resumed = read(server, orders, window, done.resume)
    asked = list(server.asked)
    server.asked.clear()
    assert [p.url for p in resumed] == [p.url for p in read(server, orders, window)]
    assert asked == server.asked
