"""Promises of pages: the requests, their order, and where reading resumes."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.errors import ConfigurationError, OtherRequestError
from flows.extract.client import Client
from flows.extract.fetch import _slices, first_request, read_pages
from flows.extract.paginators import next_url, offset
from flows.extract.selectors import records_at
from flows.page import HttpRequest, Page, Resume
from flows.source import Cursor, IntegerCursor, Params, Partition, Resource, Rule, Source, Window
from tests.extract import reading
from tests.extract.reading import ANY_TIME, rows, stored
from tests.http_servers import Answer, Asked, Serve, Server

JANUARY_1 = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SHOP = Source("shop", "http://api", ())
WEEK = Window(JANUARY_1, JANUARY_1 + 7 * DAY)


def days(_: Partition, window: Window) -> Params:
    return {"from": f"{window.since:%d}", "to": f"{window.until:%d}"}


def resource(**changes: Any) -> Resource:
    declared = {"name": "orders", "path": "orders", "records": records_at("value")}
    return Resource(**declared | {"paging": next_url("next")} | changes)


def read(
    server: Server, orders: Resource, window: Window = ANY_TIME, resume: Resume | None = None
) -> list[Page]:
    return reading.read(server.url, orders, resume=resume, window=window)


def linked(links: dict[str, str | None]) -> reading.Api:
    """An API whose pages are paths, each with the link to the next one; each is there once."""
    left = dict(links)

    def answer(path: Asked) -> Answer:
        if path not in left:
            return Answer(status=404)
        return Answer(json.dumps({"value": [path], "next": left.pop(path)}).encode())

    return answer


def first(
    orders: Resource, values: dict[str, Any] | None = None, base: str = "http://api/v1"
) -> HttpRequest:
    shop = Source("shop", base, (orders,))
    return first_request(shop, orders, Partition("", values or {}), WEEK)


def test_spaces_in_parameters_are_percent_encoded() -> None:
    orders = resource(params={"$filter": "id gt 1"})
    assert first(orders).url == "http://api/v1/orders?%24filter=id%20gt%201"


def test_a_list_repeats_its_parameter() -> None:
    orders = resource(params={"status": ["open", "closed"], "page": 1, "deep": True})
    assert first(orders).url == "http://api/v1/orders?status=open&status=closed&page=1&deep=true"


def test_a_repeated_parameter_survives_paging() -> None:
    asked: list[str] = []

    def answer(path: Asked) -> Answer:
        asked.append(path.partition("?")[2])
        return Answer(b'{"value": [{"id": 1}]}' if len(asked) == 1 else b'{"value": []}')

    reading.read("http://api", resource(params={"id": ["1", "2"]}, paging=offset()), answer)
    assert asked == ["id=1&id=2", "id=1&id=2&offset=1"]


@pytest.mark.parametrize("value", [None, 1.5, {"a": 1}, JANUARY_1, ["a", None], b"a", [["a"]]])
def test_a_parameter_of_an_unsupported_type_is_refused_when_declared(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="orders: the query parameter 'since' has"):
        resource(params={"since": value})


def test_a_parameter_of_an_unsupported_type_from_a_function_is_refused() -> None:
    orders = resource(params=lambda partition, window: {"since": window.since})
    with pytest.raises(ConfigurationError, match="of type datetime"):
        first(orders)


def test_parameters_come_after_those_of_the_path() -> None:
    orders = resource(path="orders?state=open&state=late", params={"limit": "2"})
    assert first(orders).url == "http://api/v1/orders?state=open&state=late&limit=2"


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://api/v1", "orders", "http://api/v1/orders"),
        ("http://api/v1/", "/orders/", "http://api/v1/orders/"),
        ("http://api/v1/orders", "", "http://api/v1/orders"),
        ("http://api/v1/orders.csv", "", "http://api/v1/orders.csv"),
    ],
)
def test_a_path_is_appended_to_the_base_url(base: str, path: str, url: str) -> None:
    assert first(resource(path=path), base=base).url == url


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        (7, "7"),
        ("a/b", "a%2Fb"),
        ("é ?#%", "%C3%A9%20%3F%23%25"),
        ("{x}", "%7Bx%7D"),
        ("..a", "..a"),
    ],
)
def test_a_partitions_value_is_one_segment_of_the_path(value: Any, segment: str) -> None:
    lines = resource(path="orders/{order}/lines")
    assert first(lines, {"order": value, "other": 1}).url == f"http://api/v1/orders/{segment}/lines"


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_value_that_leads_to_another_path_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="would lead somewhere else"):
        first(resource(path="orders/{order}/lines"), {"order": value})


@pytest.mark.parametrize("path", ["orders/{order}", "orders/{}", "orders/{0}", "orders/{id", "a}"])
def test_a_path_that_cannot_be_filled_is_an_error_that_lists_the_values(path: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        first(resource(path=path), {"id": 1})
    assert repr(path) in str(failure.value)
    assert "They have: id." in str(failure.value)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("exports/{since:%Y-%m-%d}.json", "http://api/v1/exports/2024-01-01.json"),
        ("{since:%Y}/{until:%m/%d}", "http://api/v1/2024/01%2F08"),
        ("since/{since}", "http://api/v1/since/2024-01-01T00%3A00%3A00%2B00%3A00"),
        ("{order:04d}/{until:%d}", "http://api/v1/0007/08"),
    ],
)
def test_the_windows_ends_fill_the_path(path: str, url: str) -> None:
    assert first(resource(path=path), {"order": 7}).url == url


def test_ends_in_the_path_are_in_utc() -> None:
    """Midnight in Tokyo is the day before in UTC."""
    exports = resource(path="exports/{since:%Y-%m-%d}")
    window = Window(JANUARY_1.replace(tzinfo=timezone(timedelta(hours=9))))
    shop = Source("shop", "http://api", (exports,))
    assert first_request(shop, exports, Partition(), window).url == "http://api/exports/2023-12-31"


def test_a_partitions_value_wins_over_the_windows_end_of_its_name() -> None:
    assert first(resource(path="{since}"), {"since": "ever"}).url == "http://api/v1/ever"


def test_each_slices_path_has_its_own_ends(serve: Serve) -> None:
    server = serve(lambda path: Answer(json.dumps({"value": [path]}).encode()))
    by_path = resource(path="{since:%d}/{until:%d}", cursor=STEPPED.cursor)
    read(server, by_path, WEEK)
    assert sorted(server.asked) == ["/01/04", "/04/07", "/07/08"]


@pytest.mark.parametrize(
    ("cursor", "end", "remedy"),
    [
        (Cursor("at"), "since", "Give the resource's cursor a `start`."),
        (Cursor("at"), "until", "Give the resource's cursor a `start` and a `step`."),
        (IntegerCursor("id"), "after", "Give the resource's cursor a `start`."),
        (None, "since", "Declare a cursor with a `start`."),
    ],
)
def test_a_window_without_an_end_that_the_path_names_is_refused_with_a_remedy(
    cursor: Any, end: str, remedy: str
) -> None:
    exports = resource(path=f"exports/{{{end}}}", key=("id",), cursor=cursor)
    shop = Source("shop", "http://api", (exports,))
    says = re.escape(f"'{end}', but this window has none. {remedy}")
    with pytest.raises(ConfigurationError, match=says):
        first_request(shop, exports, Partition("", {"id": 1}), ANY_TIME)


def test_a_post_asks_with_its_body_and_headers(serve: Serve) -> None:
    def days_wanted(_: Partition, window: Window) -> dict[str, Any]:
        return {"from": f"{window.since:%d}", "note": "ü"}

    server = serve(lambda _: Answer(b'{"value": []}'))
    declared = {"method": "POST", "headers": {"X-Version": "2"}, "body": days_wanted}
    read(server, resource(**declared), WEEK)
    (asked,) = server.asked
    assert (asked.method, asked.headers["X-Version"]) == ("POST", "2")
    assert asked.headers["Content-Type"] == "application/json"
    assert json.loads(asked.body) == {"from": "01", "note": "ü"}


@pytest.mark.parametrize("body", [{"at": JANUARY_1}, {"limit": float("nan")}], ids=["time", "NaN"])
def test_a_body_that_is_no_json_is_a_configuration_error(body: Any) -> None:
    with pytest.raises(ConfigurationError, match="orders: its body is not JSON"):
        first(resource(method="POST", body=body))


def test_pages_are_fetched_when_asked_for(serve: Serve) -> None:
    server = serve(linked({"/orders": "/b", "/b": None}))
    source = Source("shop", server.url, (resource(),))
    with Client(source) as client:
        pages = read_pages(client, source, resource(), Partition(), ANY_TIME)
        assert server.asked == []
        next(pages)
        assert server.asked == ["/orders"]


def test_all_pages_but_the_last_have_a_point_to_go_on_from(serve: Serve) -> None:
    server = serve(linked({"/orders": "/b", "/b": "/c", "/c": None}))
    pages = read(server, resource())
    assert [p.resume and p.resume.url for p in pages] == [server.url + "b", server.url + "c", None]


moments = st.timedeltas(timedelta(), 9999 * DAY).map(lambda age: JANUARY_1 - age)


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


def test_slices_of_local_days_are_days_when_the_clocks_change() -> None:
    cursor = Cursor("at", start=JANUARY_1, step=DAY, zone="Europe/Berlin")
    october = [datetime(2024, 10, day, 22, tzinfo=UTC) for day in (24, 25, 26)]
    november = [datetime(2024, 10, day, 23, tzinfo=UTC) for day in (27, 28)]
    ends = [*october, *november]
    slices = list(_slices(Window(ends[0], ends[-1]), resource(cursor=cursor)))
    assert [(part.since, part.until) for part in slices] == list(pairwise(ends))
    by_day = resource(cursor=cursor, params={"q": "{since:%d.%m.} {last:%d.%m.}"})
    days = [parse_qs(first_request(SHOP, by_day, Partition(), part).url) for part in slices]
    assert [next(iter(each.values())) for each in days] == [
        ["25.10. 25.10."], ["26.10. 26.10."], ["27.10. 27.10."], ["28.10. 28.10."],
    ]  # fmt: skip


def test_a_header_names_an_end_of_the_window() -> None:
    orders = resource(
        headers={"If-Modified-Since": "{since:%a, %d %b %Y %H:%M:%S GMT}", "X-To": "{until}"},
        cursor=Cursor("at", format="epoch_s"),
        key=("id",),
    )
    window = Window(JANUARY_1)
    sent = first_request(SHOP, orders, Partition(), window).headers
    assert sent == {"If-Modified-Since": "Mon, 01 Jan 2024 00:00:00 GMT"}


@pytest.mark.parametrize("lag", [timedelta(), DAY])
def test_a_window_that_has_not_begun_asks_for_nothing(serve: Serve, lag: timedelta) -> None:
    server = serve(linked({}))
    orders = resource(cursor=Cursor("at", lag=lag), key=("id",))
    assert read(server, orders, Window(WEEK.until, WEEK.since)) == []


def test_an_empty_window_asks_for_nothing(serve: Serve) -> None:
    server = serve(linked({}))
    stepped = resource(params=days, cursor=Cursor("at", start=JANUARY_1, step=3 * DAY))
    assert read(server, stepped, Window(JANUARY_1, JANUARY_1)) == []


def paged(path: Asked) -> Answer:
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
        rest = read(server, orders, window, stored(done.resume))
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
def test_a_resume_point_of_another_first_request_is_refused(
    serve: Serve, orders: Resource, window: Window
) -> None:
    server = serve(paged)
    done = read(server, STEPPED, WEEK)[2]
    server.asked.clear()
    with pytest.raises(OtherRequestError, match="orders: its first request is not that"):
        read(server, orders, window, done.resume)
    assert server.asked == []


def test_a_resume_point_between_slices_is_refused(serve: Serve) -> None:
    """Reading would go on with the first slice that begins after it."""
    server = serve(paged)
    done = read(server, STEPPED, WEEK)[2].resume
    assert done is not None and WEEK.since is not None
    shifted = replace(done, since=WEEK.since + DAY / 2)
    with pytest.raises(OtherRequestError, match="its slices are others"):
        read(server, STEPPED, WEEK, shifted)


@pytest.mark.parametrize(("then", "left"), [("ignore", 4), ("stop", 0)])
def test_a_rule_ends_a_slice_or_everything(serve: Serve, then: Any, left: int) -> None:
    """The first slice of three is not there; each of the others has two pages."""

    def answer(path: Asked) -> Answer:
        return Answer(status=404) if "from=01" in path else paged(path)

    server = serve(answer)
    rules = (Rule(then, status=404),)
    stepped = resource(params=days, cursor=STEPPED.cursor, rules=rules)
    pages = read(server, stepped, WEEK)
    assert (pages[0].is_empty, pages[0].rows) == (True, [])
    assert (pages[0].resume is None) == (left == 0)
    assert rows(pages[1:]) == sorted(server.asked[1:]) == ALL_STEPS[2 : 2 + left]


@pytest.mark.parametrize(("status", "is_cut"), [(204, True), (410, False)])
def test_a_rule_says_that_lists_end_so_for_its_own_status_only(status: int, is_cut: bool) -> None:
    def api(path: Asked) -> Answer:
        body = json.dumps({"value": [1], "next": "?page=2"}).encode()
        return Answer(status=status) if "page=2" in path else Answer(body)

    linked_pages = resource(rules=(Rule("end", status=410),))
    pages = reading.read("http://api/", linked_pages, api)
    assert [page.is_cut for page in pages] == [False, is_cut]
