"""Promises of the rate limit: an API never gets more requests than its source declares."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.extract import rate_limit
from flows.extract.client import Client
from flows.extract.rate_limit import RateLimiter, rate_limiter_of
from flows.source import Rate, Source
from tests.http_servers import Answer, Asked, Serve


class Clock:
    """Time that passes only where somebody sleeps, and a little with every look at it."""

    def __init__(self, tick_seconds: float = 0.001) -> None:
        self.now = 1000.0
        self.tick_seconds = tick_seconds
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        with self._lock:
            self.now += self.tick_seconds
            return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limit, "monotonic", clock.monotonic)
    monkeypatch.setattr(rate_limit, "sleep", clock.sleep)
    return clock


def most_in_any(seconds: float, moments: list[float]) -> int:
    """How many of the moments lie in the fullest span of so many seconds."""
    return max(sum(start <= at < start + seconds for at in moments) for start in moments)


@given(
    st.integers(1, 5),
    st.floats(0.1, 100),
    st.lists(st.floats(0, 50), min_size=1, max_size=30),
    st.floats(0, 0.5),
)
def test_there_are_never_more_requests_in_any_span_than_declared(
    requests: int, seconds: float, pauses: list[float], late_seconds: float
) -> None:
    """However they come, and though sleeping takes longer than it should."""
    clock = Clock()
    left: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rate_limit, "monotonic", clock.monotonic)
        patch.setattr(
            rate_limit, "sleep", lambda wait: clock.sleep(wait + late_seconds if wait else 0)
        )
        kept = RateLimiter(Rate(requests, seconds))
        for pause in pauses:
            clock.sleep(pause)
            kept.wait()
            left.append(clock.now)
    assert most_in_any(seconds * 0.999999, left) <= requests


def test_threads_together_keep_the_pace_and_lose_no_time(clock: Clock) -> None:
    kept = RateLimiter(Rate(3, seconds=10))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: kept.wait(), range(30)))
    assert clock.now - 1000 == pytest.approx(9 * 10, abs=1)


def test_requests_below_the_rate_do_not_wait(clock: Clock) -> None:
    kept = RateLimiter(Rate(2, seconds=1))
    for _ in range(9):
        clock.sleep(0.5)
        before = clock.now
        kept.wait()
        assert clock.now - before < 0.01


def test_all_clients_of_a_source_keep_one_pace(serve: Serve, clock: Clock) -> None:
    came: list[float] = []

    def answer(_: Asked) -> Answer:
        came.append(clock.now)
        return Answer()

    server = serve(answer)
    source = Source("one-pace", server.url, (), rate=Rate(2, seconds=30))
    for _ in range(3):
        with Client(source) as client:
            client.get(server.url)
            client.get(server.url)
    assert [round(at - came[0], -1) for at in came] == [0, 0, 30, 30, 60, 60]


def test_other_sources_and_other_rates_have_their_own() -> None:
    assert rate_limiter_of("shop", Rate(1)) is rate_limiter_of("shop", Rate(1))
    assert rate_limiter_of("shop", Rate(1)) is not rate_limiter_of("shop", Rate(2))
    assert rate_limiter_of("shop", Rate(1)) is not rate_limiter_of("other", Rate(1))


@pytest.mark.parametrize("kind", ["redirects", "retries"])
def test_every_request_waits_for_its_turn(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Also those that a redirect or a failure makes necessary."""
    monkeypatch.setattr("flows.extract.client.sleep", lambda _: None)
    first = {
        "redirects": Answer(status=302, headers={"Location": "/b"}),
        "retries": Answer(status=503),
    }[kind]
    said = [first, Answer()]
    turns: list[float] = []

    def turn() -> None:
        turns.append(clock.now)

    server = serve(lambda _: said.pop(0))
    source = Source(f"turns-{kind}", server.url, (), rate=Rate(1, seconds=30))
    with Client(source, turn=turn) as client:
        client.get(server.url)
    assert len(turns) == len(server.asked) == 2
    assert clock.now - 1000 == pytest.approx(30, abs=1)
