"""Promises of the HTTP client: what is retried, for how long, and what each failure is called."""

import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from conftest import Answer, Server

from flows.declaration import Page, Source
from flows.errors import ConfigurationError, RefusedLoginError, UnavailableError
from flows.extract.client import Client

Serve = Callable[[Callable[[str], Answer]], Server]

GOOD = Answer(b'[{"id": 1}]')
CUT = Answer(b'[{"id": 1}', declared_length=500)
LONG_AGO = "Mon, 01 Jan 2001 00:00:00 GMT"


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have slept, in order."""
    seconds: list[float] = []
    monkeypatch.setattr("flows.extract.client.sleep", seconds.append)
    return seconds


def answers(*said: Answer) -> Callable[[str], Answer]:
    """One answer after the other; the last one again and again, but not for ever."""
    left = [*said, *[said[-1]] * 200]
    return lambda _: left.pop(0)


def get(url: str, **changes: float) -> Page:
    with Client(Source("shop", url, (), **changes)) as client:
        return client.get(url)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(serve: Serve, slept: list[float], status: int) -> None:
    server = serve(answers(Answer(status=status), Answer(status=status), GOOD))
    assert get(server.url).body == GOOD.body
    assert (len(server.asked), len(slept)) == (3, 2)


def test_a_connection_cut_within_the_body_is_tried_again(serve: Serve) -> None:
    server = serve(answers(CUT, GOOD))
    assert get(server.url).body == GOOD.body
    assert len(server.asked) == 2


def test_waits_grow_but_are_at_most_a_minute(serve: Serve, slept: list[float]) -> None:
    with pytest.raises(UnavailableError):
        get(serve(answers(Answer(status=503))).url)
    assert len(slept) > 5
    assert all(wait <= min(60, 2**number) for number, wait in enumerate(slept))


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured_in_full(
    serve: Serve, slept: list[float], status: int
) -> None:
    server = serve(answers(Answer(status=status, headers={"Retry-After": "137"}), GOOD))
    get(server.url)
    assert slept == [137]


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_retry_after_as_a_date_is_honoured_in_full(
    serve: Serve, slept: list[float], zone: str
) -> None:
    """`-0000` is no HTTP date, but servers that format mail dates send it."""
    at = datetime.now(timezone.utc) + timedelta(seconds=120)
    said = format_datetime(at, usegmt=True).replace("GMT", zone)
    get(serve(answers(Answer(status=503, headers={"Retry-After": said}), GOOD)).url)
    assert slept == [pytest.approx(120, abs=5)]


@pytest.mark.parametrize("said", ["soon", "", "1.5", "²", LONG_AGO])
def test_a_retry_after_that_says_nothing_is_passed_over(
    serve: Serve, slept: list[float], said: str
) -> None:
    get(serve(answers(Answer(status=503, headers={"Retry-After": said}), GOOD)).url)
    assert len(slept) == 1
    assert 0 <= slept[0] <= 1


@pytest.mark.parametrize("said", ["0", LONG_AGO])
def test_a_server_that_asks_for_no_wait_is_not_asked_for_ever(serve: Serve, said: str) -> None:
    server = serve(answers(Answer(status=503, headers={"Retry-After": said})))
    with pytest.raises(UnavailableError):
        get(server.url)
    assert len(server.asked) < 50


def test_the_error_after_the_last_wait_says_what_was_tried(
    serve: Serve, slept: list[float]
) -> None:
    down = Answer(b"closed  for\nrepairs", status=503, headers={"Retry-After": "40"})
    server = serve(answers(down))
    with pytest.raises(UnavailableError) as failure:
        get(f"{server.url}orders", max_wait_seconds=100)
    assert slept == [40, 40]
    assert f"{server.url}orders: answered 503" in str(failure.value)
    assert "'closed for repairs' (attempt 3, waited 80 s of at most 100 s)" in str(failure.value)
    assert "It asks to wait 40 s." in str(failure.value)


def test_waits_of_all_pages_count_against_one_limit(serve: Serve, slept: list[float]) -> None:
    busy = Answer(status=429, headers={"Retry-After": "60"})
    server = serve(answers(busy, GOOD, busy))
    with Client(Source("shop", server.url, (), max_wait_seconds=100)) as client:
        client.get(server.url)
        with pytest.raises(UnavailableError, match="attempt 1, waited 60 s"):
            client.get(server.url)
    assert slept == [60]


def test_a_refused_connection_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(UnavailableError, match=r"the connection failed .*attempt [2-9]"):
            get(url, max_wait_seconds=5)


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """Never set during a test: to wait for it is to be silent."""
    event = threading.Event()
    yield event
    event.set()


def test_a_silent_server_is_unavailable(serve: Serve, never: threading.Event) -> None:
    def keep_silent(_: str) -> Answer:
        never.wait(20)
        return GOOD

    server = serve(keep_silent)
    with pytest.raises(UnavailableError, match=r"no answer in time \(ReadTimeout\)"):
        get(server.url, read_timeout_seconds=0.05, max_wait_seconds=0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_is_named_and_asked_once(serve: Serve, status: int) -> None:
    server = serve(answers(Answer(status=status)))
    with pytest.raises(RefusedLoginError, match="credentials of source 'shop'"):
        get(server.url)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [404, 410])
def test_a_missing_address_is_a_configuration_error(serve: Serve, status: int) -> None:
    server = serve(answers(Answer(status=status)))
    with pytest.raises(ConfigurationError, match="Correct the base URL or path of source 'shop'"):
        get(server.url)
    assert len(server.asked) == 1


def test_a_bad_request_shows_the_start_of_the_answer(serve: Serve) -> None:
    server = serve(answers(Answer(b"no such column: colour" + b"." * 999, status=400)))
    with pytest.raises(ConfigurationError) as failure:
        get(server.url)
    assert "answered 400 Bad Request: 'no such column: colour..." in str(failure.value)
    assert len(str(failure.value)) < 500
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["htp://127.0.0.1/", "127.0.0.1/orders", "http://"])
def test_an_address_that_is_none_is_a_configuration_error(url: str, slept: list[float]) -> None:
    with pytest.raises(ConfigurationError, match="Correct the source's address"):
        get(url)
    assert slept == []


def test_a_redirect_in_a_circle_is_a_configuration_error(serve: Serve) -> None:
    server = serve(answers(Answer(b"", status=302, headers={"Location": "/"})))
    with pytest.raises(ConfigurationError, match="Correct the source's address"):
        get(server.url)
