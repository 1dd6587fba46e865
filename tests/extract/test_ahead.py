"""Promises of pages fetched ahead: faster, and otherwise as if they were read one by one."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from flows.errors import BadPayloadError, ConfigurationError, NotFoundError, UnavailableError
from flows.extract import ahead
from flows.extract import client as clients
from flows.extract.ahead import THREAD_NAME
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import offset, page_number, response_header
from flows.extract.selectors import records_at
from flows.page import HttpRequest, Page, Resume
from flows.source import Cursor, Params, Partition, Resource, Source, Window
from tests.extract.reading import ANY_TIME, asked_params, rows
from tests.http_servers import Answer, Asked, Serve, Server

SIZE = 5
CONCURRENCY = 3
JANUARY_1 = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
POST = {"method": "POST", "body": {"limit": SIZE}}


def orders(**declared: Any) -> Resource:
    return Resource("orders", "orders", records_at("items"), **declared)


BY_OFFSET = orders(paging=offset(total="total"))
WAYS = {
    "offset": BY_OFFSET,
    "offset from 1": orders(paging=offset("start", first=1, total="total")),
    "offset in a body": orders(
        paging=offset(body_field="offset", total="total"), is_repeatable=True, **POST
    ),
    "page number": orders(paging=page_number(total_pages="pages")),
    "page number in a header": orders(paging=page_number(total_pages=response_header("Pages"))),
    "page number from 0": orders(paging=page_number(first=0, total_pages="pages")),
    "page number in a body": orders(
        paging=page_number(body_field="page", total_pages="pages"), is_repeatable=True, **POST
    ),
}
each_way = pytest.mark.parametrize("resource", WAYS.values(), ids=WAYS)


@dataclass
class Shop:
    """An API of numbers from 0; its total and the size of its pages may depend on the position.

    Attributes:
        before: may answer a request itself.
        stated: the total that a page states, by the real one.
        at_once: an answer waits a moment for more requests than this; 0 for no waiting.
    """

    resource: Resource = BY_OFFSET
    total: Callable[[int], int] = lambda _: 50
    size: Callable[[int], int] = lambda _: SIZE
    before: Callable[[int], Answer | None] = lambda _: None
    stated: Callable[[int], int] = lambda total: total
    at_once: int = 0
    most: int = 0
    _under_way: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, asked: Asked) -> Answer:
        with self._changed:
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            self._changed.notify_all()
            if self.at_once:
                self._changed.wait_for(lambda: self.most > self.at_once, timeout=0.05)
            self._under_way -= 1
        return self.before(start := self.start(asked)) or self.page(start)

    def start(self, asked: Asked) -> int:
        """The position of a request's first record."""
        found = json.loads(asked.body) if asked.body else asked_params(asked)
        first = 0 if self.resource is WAYS["page number from 0"] else 1
        pages = int(found.get("page", first)) - first
        return pages * SIZE or int(found.get("offset", 0)) or int(found.get("start", 1)) - 1

    def page(self, start: int) -> Answer:
        total = self.total(start)
        items = list(range(start, min(start + self.size(start), total)))
        body = {"items": items, "total": self.stated(total), "pages": total // SIZE}
        headers = {"Content-Type": "application/json", "Pages": str(total // SIZE)}
        return Answer(json.dumps(body).encode(), headers=headers)


def read(
    server: Server,
    resource: Resource,
    concurrency: int = CONCURRENCY,
    window: Window = ANY_TIME,
    resume: Resume | None = None,
    **settings: Any,
) -> Iterator[Page]:
    settings = {"concurrency": concurrency, "max_wait_seconds": 0, **settings}
    source = Source("ahead", server.url, (resource,), **settings)
    with Client(source) as client:
        yield from read_pages(client, source, resource, Partition(), window, resume)


def outcome(pages: Iterator[Page]) -> list[Any]:
    """What each page is and where reading would go on after it; then the error, if any."""
    found: list[Any] = []
    try:
        for page in pages:
            found.append((page.url, page.body, page.request, page.resume))  # noqa: PERF401 (keeps those before an error)
    except (BadPayloadError, NotFoundError) as error:
        found.append((type(error), str(error)))
    return found


def wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join()


CHANGES = {
    "nothing": {},
    "a total that grows": {"total": lambda start: 20 if start < 15 else 40},
    "a total that grows by the page": {"total": lambda start: min(start + 10, 45)},
    "a total that shrinks": {"total": lambda start: 50 if start < 10 else 20},
    "a total that vanishes": {"total": lambda start: 50 if start < 15 else -1},
    "a short page": {"size": lambda start: SIZE - 1 if start == 10 else SIZE},
    "a long page": {"size": lambda start: SIZE + 2 if start == 10 else SIZE},
    "a page without records": {"size": lambda start: 0 if start == 20 else SIZE},
    "a total that is too small": {"stated": lambda _: 12},
    "a missing page": {"before": lambda start: Answer(status=404) if start == 30 else None},
}


@each_way
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_pages_order_resume_points_and_errors_are_those_of_reading_one_by_one(
    serve: Serve, resource: Resource, change: Any
) -> None:
    server = serve(Shop(resource, **change))
    one_by_one = outcome(read(server, resource, 1))
    assert len(one_by_one) > 3
    already = len(server.asked)
    assert outcome(read(server, resource)) == one_by_one
    wait_for_threads()
    assert len(server.asked) <= 2 * already + CONCURRENCY


@each_way
def test_reading_resumes_after_any_page_as_if_pages_were_read_one_by_one(
    serve: Serve, resource: Resource
) -> None:
    server = serve(Shop(resource, total=lambda _: 25))
    pages = list(read(server, resource))
    assert len(pages) == 5
    for number, done in enumerate(pages[:-1], start=1):
        rest = outcome(read(server, resource, resume=done.resume))
        assert rest == outcome(iter(pages))[number:]


@each_way
@pytest.mark.parametrize("concurrency", [1, 3, 4])
def test_as_many_requests_are_under_way_as_the_source_allows(
    serve: Serve, resource: Resource, concurrency: int
) -> None:
    shop = Shop(resource, at_once=concurrency)
    assert rows(list(read(serve(shop), resource, concurrency))) == list(range(50))
    assert shop.most == concurrency


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param(orders(paging=offset()), id="no total"),
        pytest.param(
            orders(paging=offset(body_field="offset", total="total"), **POST),
            id="a POST that may not be repeated",
        ),
        pytest.param(
            orders(paging=page_number(body_field="page", total_pages="pages"), **POST),
            id="a POST by page number",
        ),
    ],
)
def test_what_is_unknown_or_may_not_be_repeated_is_never_sent_ahead(
    serve: Serve, resource: Resource
) -> None:
    shop = Shop(resource, at_once=1)
    assert rows(list(read(serve(shop), resource))) == list(range(50))
    assert shop.most == 1


def test_an_error_of_a_page_sent_ahead_is_raised_after_the_pages_before_it(serve: Serve) -> None:
    server = serve(Shop(before=lambda start: Answer(status=404) if start == 30 else None))
    pages = read(server, BY_OFFSET, 10)
    found = [next(pages) for _ in range(2)]
    wait_for_threads()
    assert "/orders?offset=30" in server.asked
    found += [next(pages) for _ in range(4)]
    with pytest.raises(NotFoundError, match="offset=30"):
        next(pages)
    assert rows(found) == list(range(30))


def test_an_error_of_a_page_that_is_never_asked_for_has_no_effect(serve: Serve) -> None:
    """The total shrinks on the second page, when the fourth is already refused."""
    shop = Shop(total=lambda start: 50 if start < 5 else 15)
    shop.before = lambda start: Answer(status=404) if start >= 15 else None
    server = serve(shop)
    pages = read(server, BY_OFFSET)
    found = [next(pages), next(pages)]
    wait_for_threads()
    assert "/orders?offset=15" in server.asked
    assert rows([*found, *pages]) == list(range(15))


def test_nothing_is_sent_ahead_before_the_second_page_is_asked_for(serve: Serve) -> None:
    server = serve(Shop())
    with closing(read(server, BY_OFFSET)) as pages:
        assert server.asked == []
        next(pages)
        assert THREAD_NAME not in {thread.name for thread in threading.enumerate()}
        assert server.asked == ["/orders"]


def test_one_page_makes_no_thread(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(ahead, "Thread")
    server = serve(Shop(total=lambda _: SIZE))
    assert rows(list(read(server, BY_OFFSET))) == list(range(SIZE))


@pytest.mark.parametrize("read_pages", [2, 3, 5])
def test_reading_that_ends_early_has_sent_at_most_so_many_more(
    serve: Serve, read_pages: int
) -> None:
    server = serve(Shop())
    with closing(read(server, BY_OFFSET)) as pages:
        for _ in range(read_pages):
            next(pages)
    wait_for_threads()
    assert read_pages <= len(server.asked) <= read_pages + CONCURRENCY


def test_a_retry_of_a_page_sent_ahead_is_not_sent_after_the_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth page is refused; its thread waits to try again until reading has ended."""
    waits, has_ended = threading.Event(), threading.Event()

    def sleep(_: float) -> None:
        waits.set()
        assert has_ended.wait(60)

    monkeypatch.setattr(clients, "sleep", sleep)
    server = serve(Shop(before=lambda start: Answer(status=503) if start == 15 else None))
    with closing(read(server, BY_OFFSET, max_wait_seconds=60)) as pages:
        next(pages)
        next(pages)
        assert waits.wait(60)
    has_ended.set()
    wait_for_threads()
    assert server.asked.count("/orders?offset=15") == 1


def test_the_most_pages_that_are_declared_bound_what_is_sent_ahead(serve: Serve) -> None:
    resource = orders(paging=offset(total="total"), max_pages=3)
    server = serve(Shop())
    assert len(list(read(server, resource, 8))) == 3
    wait_for_threads()
    assert sorted(server.asked) == ["/orders", "/orders?offset=10", "/orders?offset=5"]


def test_nothing_is_sent_ahead_while_too_many_bytes_wait(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One page is too much: while another one waits, no more are sent."""
    monkeypatch.setattr(ahead, "WAITING_BYTES", 1)
    server = serve(Shop())
    sent = []
    for _ in read(server, BY_OFFSET):
        wait_for_threads()
        sent.append(len(server.asked))
    assert len(sent) == sent[-1] == 10
    for number, (before, after) in enumerate(pairwise(sent), start=2):
        assert after == before or before <= number
    assert sent[1] > 3


def test_a_pause_that_the_api_asks_for_is_kept_by_requests_sent_ahead(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third page is refused; its thread waits until the one of the fourth waits as well."""
    waits: list[float] = []
    asked: list[list[str]] = []
    both_wait = threading.Event()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            asked.append(list(server.asked))
            both_wait.set()
        assert both_wait.wait(60)

    monkeypatch.setattr(clients, "sleep", sleep)
    busy = [Answer(status=429, headers={"Retry-After": "30"})]
    is_second_asked, is_refused = threading.Event(), threading.Event()

    def before(start: int) -> Answer | None:
        if start == SIZE:
            is_second_asked.set()
            assert is_refused.wait(60)
        if start == 2 * SIZE and busy:
            assert is_second_asked.wait(60)
            return busy.pop()
        return None

    real = clients.Pause.begin

    def begin(pause: Any, seconds: float) -> float:
        until = real(pause, seconds)
        is_refused.set()
        return until

    monkeypatch.setattr(clients.Pause, "begin", begin)
    server = serve(Shop(before=before))
    assert rows(list(read(server, BY_OFFSET, 2, max_wait_seconds=60))) == list(range(50))
    assert all(29 < seconds <= 30 for seconds in waits)
    assert sorted(asked[0]) == ["/orders", "/orders?offset=10", "/orders?offset=5"]


def test_an_api_that_is_down_fails_within_the_allowed_wait(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request after the first fails; each thread waits no longer than reading may."""
    waits: dict[int, float] = {}

    def sleep(seconds: float) -> None:
        thread = threading.get_ident()
        waits[thread] = waits.get(thread, 0) + seconds

    monkeypatch.setattr(clients, "sleep", sleep)
    server = serve(Shop(before=lambda start: Answer(status=503) if start else None))
    pages = read(server, BY_OFFSET, max_wait_seconds=10)
    next(pages)
    with pytest.raises(UnavailableError, match=r"offset=5: .* of at most 10 s"):
        next(pages)
    wait_for_threads()
    assert max(waits.values()) <= 10


def test_waits_at_the_same_time_count_once_and_later_ones_add_up(
    serve: Serve, slept: list[float]
) -> None:
    """Each page is refused once, with a wait of 4 s; 10 s are allowed."""
    left = set(range(SIZE, 200, SIZE))

    def before(start: int) -> Answer | None:
        is_refused = start in left
        left.discard(start)
        return Answer(status=503, headers={"Retry-After": "4"}) if is_refused else None

    pages = read(serve(Shop(total=lambda _: 200, before=before)), BY_OFFSET, max_wait_seconds=10)
    found = []
    with pytest.raises(UnavailableError, match="waited 8 s of at most 10 s"):
        found.extend(pages)
    wait_for_threads()
    assert CONCURRENCY < len(found) <= 2 * CONCURRENCY + 2


def test_a_server_that_ignores_the_position_is_a_loop(serve: Serve) -> None:
    server = serve(lambda _: Answer(b'{"items": [1], "total": 9}'))
    one_by_one = outcome(read(server, BY_OFFSET, 1))
    assert one_by_one[-1][0] is BadPayloadError
    assert outcome(read(server, BY_OFFSET)) == one_by_one


# Windows that are read in steps.


def between(_: Partition, window: Window) -> Params:
    return {"from": f"{window.since:%j}"}


IN_STEPS = orders(params=between, cursor=Cursor("at", start=JANUARY_1, step=DAY))
TEN_DAYS = Window(JANUARY_1, JANUARY_1 + 10 * DAY)


@dataclass
class Days:
    """An API of days, each with so many pages by link."""

    pages: Callable[[int], int] = lambda _: 1
    at_once: int = 0
    shop: Shop = field(init=False)

    def __post_init__(self) -> None:
        self.shop = Shop(at_once=self.at_once)

    def __call__(self, asked: Asked) -> Answer:
        plain = Asked("/orders")
        plain.body = b""
        self.shop(plain)
        params = asked_params(asked)
        day, page = int(params["from"]), int(params.get("page", 1))
        more = f"{page + 1}" if page < self.pages(day) else None
        return Answer(json.dumps({"items": [asked], "next": more}).encode())


def by_link(page: Page) -> str | None:
    number = json.loads(page.body)["next"]
    return number and f"{page.url.partition('&')[0]}&page={number}"


STEPPED = {
    "no paging": IN_STEPS,
    "paging": orders(params=between, cursor=IN_STEPS.cursor, paging=by_link),
}


@pytest.mark.parametrize("resource", STEPPED.values(), ids=STEPPED)
@pytest.mark.parametrize("concurrency", [1, 3])
def test_slices_of_one_page_are_read_side_by_side(
    serve: Serve, resource: Resource, concurrency: int
) -> None:
    days = Days(at_once=concurrency)
    pages = list(read(serve(days), resource, concurrency, TEN_DAYS))
    assert rows(pages) == [f"/orders?from={day:03}" for day in range(1, 11)]
    assert days.shop.most == concurrency


@pytest.mark.parametrize(
    "pages_of",
    [
        pytest.param(lambda _: 1, id="one page each"),
        pytest.param(lambda day: 1 + day % 3, id="one, two or three"),
        pytest.param(lambda day: 1 if day < 4 else 3, id="at first one"),
    ],
)
def test_slices_have_the_pages_and_resume_points_of_reading_one_by_one(
    serve: Serve, pages_of: Callable[[int], int]
) -> None:
    server = serve(Days(pages_of))
    resource = STEPPED["paging"]
    pages = list(read(server, resource, 1, TEN_DAYS))
    one_by_one, asked = outcome(iter(pages)), sorted(server.asked)
    server.asked.clear()
    assert outcome(read(server, resource, window=TEN_DAYS)) == one_by_one
    assert sorted(server.asked) == asked
    for number, done in enumerate(pages[:-1], start=1):
        rest = read(server, resource, window=TEN_DAYS, resume=done.resume)
        assert outcome(rest) == one_by_one[number:]


def test_slices_of_several_pages_are_read_one_after_the_other(serve: Serve) -> None:
    days = Days(lambda _: 2, at_once=1)
    assert len(list(read(serve(days), STEPPED["paging"], window=TEN_DAYS))) == 20
    assert days.shop.most == 1


def test_a_slice_that_has_waited_too_long_is_requested_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second day has three pages; those of the two days after it wait meanwhile."""
    clock = [0.0]
    monkeypatch.setattr(ahead, "monotonic", lambda: clock[0])
    server = serve(Days(lambda day: 3 if day == 2 else 1))
    for page in read(server, STEPPED["paging"], 2, TEN_DAYS):
        wait_for_threads()
        if "from=002" in page.url:
            clock[0] += 25
    again = [asked for asked in set(server.asked) if server.asked.count(asked) == 2]
    assert sorted(again) == ["/orders?from=003", "/orders?from=004"]
    assert len(server.asked) == 14


@pytest.mark.parametrize("resource", [BY_OFFSET, IN_STEPS], ids=["paged", "in steps"])
def test_with_a_concurrency_of_one_nothing_is_sent_ahead(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, resource: Resource
) -> None:
    monkeypatch.delattr(ahead, "Thread")
    server = serve(Days() if resource is IN_STEPS else Shop())
    assert len(list(read(server, resource, 1, TEN_DAYS))) == len(server.asked) == 10


# A source's own paging.


@dataclass(frozen=True)
class Own:
    """Pages by an offset in the path's query, and a forecast that may be anything."""

    foresee: Callable[[Page, int], Iterator[HttpRequest | str]]

    def __call__(self, page: Page) -> str | None:
        following = len(page.rows) + self.offset(page)
        return f"?offset={following}" if following < page.document["total"] else None

    def forecast(self, page: Page) -> Iterator[HttpRequest | str]:
        return self.foresee(page, self.offset(page))

    def offset(self, page: Page) -> int:
        return int(page.url.partition("offset=")[2] or 0)


def by_fives(_: Page, start: int) -> Iterator[HttpRequest | str]:
    return (f"?offset={number}" for number in range(start + SIZE, 50, SIZE))


def test_a_sources_own_paging_may_foresee_requests(serve: Serve) -> None:
    shop = Shop(at_once=CONCURRENCY)
    assert rows(list(read(serve(shop), orders(paging=Own(by_fives))))) == list(range(50))
    assert shop.most == CONCURRENCY


FORECASTS: dict[str, Callable[[Page, int], Iterator[HttpRequest | str]]] = {
    "wrong from the start": lambda _, start: iter([f"?offset={start + 1}", "?offset=40"]),
    "wrong later": lambda _, start: iter([f"?offset={start + SIZE}", *["?offset=1"] * 9]),
    "another host": lambda _, start: iter([f"?offset={start + SIZE}", *["http://other/"] * 9]),
    "a POST": lambda page, start: iter([f"?offset={start + SIZE}", HttpRequest(page.url, "POST")]),
    "nothing": lambda _, __: iter([]),
}


@pytest.mark.parametrize("foresee", FORECASTS.values(), ids=FORECASTS)
def test_a_wrong_forecast_costs_a_few_requests_and_no_record(serve: Serve, foresee: Any) -> None:
    server = serve(Shop())
    assert rows(list(read(server, orders(paging=Own(foresee))))) == list(range(50))
    wait_for_threads()
    assert len(server.asked) <= 10 + CONCURRENCY
    assert {asked.method for asked in server.asked} == {"GET"}


def test_a_forecast_that_is_wrong_about_the_next_request_sends_nothing(serve: Serve) -> None:
    server = serve(Shop())
    resource = orders(paging=Own(FORECASTS["wrong from the start"]))
    assert len(list(read(server, resource))) == len(server.asked) == 10
    wait_for_threads()
    assert "/orders?offset=40" not in server.asked[:5]
    assert len(server.asked) == 10


def broken(_: Page, start: int) -> Iterator[HttpRequest | str]:
    yield f"?offset={start + SIZE}"
    raise LookupError("a page's text")


def test_an_error_of_a_forecast_names_the_resource_and_the_function(serve: Serve) -> None:
    pages = read(serve(Shop()), orders(paging=Own(broken)))
    next(pages)
    says = "orders: its `paging.forecast` function failed in .*LookupError: a page's text"
    with pytest.raises(ConfigurationError, match=says):
        next(pages)
