"""A long range of days in windows: side by side, each once, and apart from the regular loads."""

import threading
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from blocks import warehouse
from flows.backfill import backfill, split
from flows.backfill_windows import readable_by_date
from flows.dbt_build import history
from flows.elt import elt
from flows.errors import ConfigurationError, UnavailableError
from flows.extract.selectors import records_at
from flows.source import Cursor, IntegerCursor, Resource, Source
from tests.http_servers import Answer, Asked, Server

pytest_plugins = ["tests.flows.weather"]

Ask = Callable[..., list[tuple]]
Serve = Callable[[Callable[[Asked], Answer]], Server]

AWAY = Answer(status=503, headers={"Retry-After": "999999"})
RANGE = {"source": "climate", "since": date(2020, 1, 1), "until": date(2020, 4, 1)}
WINDOWS = [
    "London 2020-01-01..2020-02-01",
    "London 2020-02-01..2020-03-03",
    "London 2020-03-03..2020-04-01",
]


def run(**parameters: Any) -> State[Any]:
    """Run `backfill`, by default without its build."""
    state: State[Any] = backfill(**{**RANGE, "transform": False, **parameters}, return_state=True)
    return state


def loaded(ask: Ask) -> list[tuple]:
    """The windows in the ledger and how they ended, in order of their days."""
    return ask("select partition, state, is_backfill from elt.loads order by partition, load_id")


def test_every_day_of_the_range_is_loaded_and_the_regular_cursor_stays(ask: Ask) -> None:
    assert run().is_completed()
    assert loaded(ask) == [(window, "succeeded", True) for window in WINDOWS]
    assert ask("select count(*), min(time), max(time) from raw_climate.daily_weather") == [
        (91, "2020-01-01", "2020-03-31")
    ]
    assert ask("select count(*) from elt.checkpoints where cursor_at is not null") == [(0,)]


def test_after_a_failure_only_what_is_missing_is_loaded(
    ask: Ask, weather: dict[str, Callable[[], Answer | None]]
) -> None:
    weather["2020-02-01"] = lambda: AWAY
    error = run().result(raise_on_failure=False)
    assert isinstance(error, UnavailableError)
    assert "start_date=2020-02-01" in str(error)
    weather.clear()
    assert run().is_completed()
    assert loaded(ask) == [
        (WINDOWS[0], "succeeded", True),
        (WINDOWS[1], "failed", True),
        (WINDOWS[1], "succeeded", True),
        (WINDOWS[2], "succeeded", True),
    ]
    assert ask("select count(*) from raw_climate.daily_weather") == [(91,)]
    assert run(again=True).is_completed()
    assert ask("select count(*), sum(unchanged) from elt.loads where load_id > 4") == [(3, 91)]


def test_windows_are_loaded_side_by_side_up_to_the_limit(
    ask: Ask, weather: dict[str, Callable[[], Answer | None]]
) -> None:
    both = threading.Barrier(2, timeout=20)

    def meet() -> None:
        both.wait()

    weather["2020-01-01"] = weather["2020-02-01"] = meet
    assert run(at_once=2).is_completed()
    most = ask(
        "select max((select count(*) from elt.loads as other"
        " where other.started_at <= one.started_at and other.ended_at > one.started_at))"
        " from elt.loads as one"
    )
    assert most == [(2,)]


def test_a_window_that_fails_takes_no_table_out_of_the_builds(
    ask: Ask, weather: dict[str, Callable[[], Answer | None]]
) -> None:
    weather["2020-02-01"] = lambda: AWAY
    days = {"since": date(2021, 1, 1), "until": date(2021, 1, 3)}
    assert elt(source="climate", transform=False, **days, return_state=True).is_completed()
    assert run().is_failed()
    with warehouse.load().transaction() as cursor:
        history.prepare(cursor)
        [table] = [
            table for table in history.raw_tables(cursor) if table.resource == "daily_weather"
        ]
    assert table.is_complete
    assert table.is_stale


def test_each_day_is_in_one_window() -> None:
    windows = split(date(2020, 1, 1), date(2020, 4, 1), 31)
    assert windows[0].since is not None
    assert [one.until for one in windows[:-1]] == [other.since for other in windows[1:]]
    assert [(one.until - one.since).days for one in windows] == [31, 31, 29]
    assert len(split(date(2020, 1, 1), date(2020, 1, 2), 31)) == 1


def test_only_resources_with_a_cursor_of_times_are_read_by_date() -> None:
    cursors = {"times": Cursor("at"), "numbers": IntegerCursor("id"), "whole": None}
    shop = Source(
        "shop",
        "http://api",
        tuple(
            Resource(name, name, records_at(), key=("id",), cursor=cursor)
            for name, cursor in cursors.items()
        ),
    )
    assert [each.name for each in readable_by_date(shop, ())] == ["times"]
    with pytest.raises(ConfigurationError, match=r"numbers can't be read by date.*of times.*elt"):
        readable_by_date(shop, ("times", "numbers"))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"until": date(2020, 1, 1)}, ["2020-01-01", "before"]),
        ({"source": "market", "resources": ("shippers",)}, ["shippers", "cursor", "elt"]),
        ({"source": "markte"}, ["'markte'", "market"]),
        ({"at_once": 0}, ["at_once", "greater than or equal to 1"]),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_read(
    warehouse_url: object, parameters: dict[str, Any], words: list[str]
) -> None:
    state = run(**parameters)
    assert state.is_failed()
    if "at_once" not in parameters:
        assert isinstance(state.result(raise_on_failure=False), ConfigurationError)
    for word in words:
        assert word in str(state.message)
