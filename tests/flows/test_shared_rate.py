"""A shared rate: whoever takes a turn, the requests' moments are spaced evenly."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows import shared_rate
from flows.errors import ConfigurationError, UnavailableError
from flows.extract.selectors import records_at
from flows.shared_rate import CAUTION, seconds_between, turns_of
from flows.source import Rate, Resource, Source

Query = Callable[..., list[tuple]]

ITEMS = Resource("items", "items", records_at(), key=("id",))
SHARED = Source("shop", "http://shop.example/", (ITEMS,), rate=Rate(2, 100, is_shared=True))
NEXT = "select extract(epoch from due_at - clock_timestamp())::float from elt.rates"


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that requests would have waited, in no order."""
    seconds: list[float] = []
    monkeypatch.setattr(shared_rate, "sleep", seconds.append)
    return seconds


@pytest.fixture
def connect(database: URL) -> Callable[[], Connection]:
    return partial(psycopg2.connect, libpq(database))


def test_all_that_share_a_rate_wait_for_moments_of_their_own(
    connect: Callable[[], Connection], waited: list[float]
) -> None:
    with (
        turns_of(SHARED, connect) as one,
        turns_of(SHARED, connect) as other,
        ThreadPoolExecutor(6) as threads,
    ):
        for done in [threads.submit(turn) for turn in [one, other] * 15]:
            done.result()
    pause = seconds_between(Rate(2, 100))
    for number, seconds in enumerate(sorted(waited)):
        assert seconds == pytest.approx(number * pause, abs=pause / 2)


def test_a_request_that_missed_its_moment_takes_another_one(
    connect: Callable[[], Connection], waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0, 0, 99, 99, 99, 99])  # it asked, slept and woke up, much too late; and again
    monkeypatch.setattr(shared_rate, "monotonic", lambda: next(clock))
    with turns_of(SHARED, connect) as wait_for_turn:
        wait_for_turn()
    assert len(waited) == 2


def test_after_a_time_without_requests_the_next_one_waits_for_nothing(
    connect: Callable[[], Connection], waited: list[float], query: Query
) -> None:
    with turns_of(SHARED, connect) as wait_for_turn:
        wait_for_turn()
        query("update elt.rates set due_at = due_at - interval '1 day'")
        wait_for_turn()
        wait_for_turn()
    assert waited[:2] == [0, 0]
    assert waited[2] == pytest.approx(seconds_between(Rate(2, 100)), abs=20)


@pytest.mark.parametrize("requests", [1, 2, 5, 60, 1000])
def test_no_window_has_more_moments_than_the_rate_allows(requests: int) -> None:
    pause = seconds_between(Rate(requests, 10))
    assert 1 + int(10 / pause) <= requests
    assert 10 / pause == pytest.approx(CAUTION * requests)


@pytest.mark.parametrize("rate", [None, Rate(2, 100)])
def test_a_rate_that_is_not_shared_asks_nobody(rate: Rate | None) -> None:
    def refuse() -> Connection:
        raise AssertionError

    unshared = Source("shop", "http://shop.example/", (ITEMS,), rate=rate)
    with turns_of(unshared, refuse) as wait_for_turn:
        wait_for_turn()


def test_postgres_that_goes_away_is_named_with_the_remedy(
    connect: Callable[[], Connection], waited: list[float], query: Query
) -> None:
    with turns_of(SHARED, connect) as wait_for_turn:
        query(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        with pytest.raises(UnavailableError, match=r"'shop' waited for its turn.*Run this again"):
            wait_for_turn()
    assert waited == []


def test_a_role_that_may_not_use_the_table_is_told_what_to_own(
    connect: Callable[[], Connection], query: Query
) -> None:
    query("create role rate_reader")
    try:
        query("grant usage on schema elt to rate_reader")

        def as_reader() -> Connection:
            opened = connect()
            with opened, opened.cursor() as cursor:
                cursor.execute("set role rate_reader")
            return opened

        with (
            turns_of(SHARED, as_reader) as wait_for_turn,
            pytest.raises(ConfigurationError, match="has to own the schema elt"),
        ):
            wait_for_turn()
    finally:
        query("drop owned by rate_reader; drop role rate_reader")
