"""Promises of windows in local time: no gap and no overlap, also when the clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.local_time import EARLIEST, LATEST, floor, in_clocks_of, later

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
DAY = 24 * HOUR


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "unit", "floored"),
    [
        pytest.param("2024-07-01T21:59", DAY, "2024-06-30T22:00", id="summer"),
        pytest.param("2024-01-01T12:00", DAY, "2023-12-31T23:00", id="winter"),
        pytest.param("2024-07-01T13:47", HOUR / 4, "2024-07-01T13:45", id="a quarter"),
        pytest.param("2024-03-31T01:30", HOUR, "2024-03-31T01:00", id="after the missing hour"),
        pytest.param("2024-03-31T00:30", HOUR, "2024-03-31T00:00", id="before the missing hour"),
        pytest.param("2024-10-27T00:30", HOUR, "2024-10-26T23:00", id="the hour, first time"),
        pytest.param("2024-10-27T01:30", HOUR, "2024-10-26T23:00", id="the hour, second time"),
        pytest.param("2024-10-27T02:10", HOUR, "2024-10-27T02:00", id="after both"),
        pytest.param("2024-10-27T12:00", DAY, "2024-10-26T22:00", id="a day of 25 hours"),
    ],
)
def test_windows_begin_with_a_full_unit_of_the_clocks_and_never_in_an_hour_that_is_there_twice(
    at: str, unit: timedelta, floored: str
) -> None:
    assert floor(utc(at), unit, BERLIN) == utc(floored)


@pytest.mark.parametrize(
    ("since", "step", "until"),
    [
        pytest.param("2024-03-30T23:00", DAY, "2024-03-31T22:00", id="a day of 23 hours"),
        pytest.param("2024-10-26T22:00", DAY, "2024-10-27T23:00", id="a day of 25 hours"),
        pytest.param("2024-03-31T00:00", HOUR, "2024-03-31T01:00", id="up to the missing hour"),
        pytest.param("2024-10-26T23:00", HOUR, "2024-10-27T00:00", id="up to the hour"),
        pytest.param("2024-10-27T00:00", HOUR, "2024-10-27T02:00", id="the hour, both times"),
        pytest.param("2024-10-27T01:30", HOUR / 4, "2024-10-27T01:45", id="inside of it"),
    ],
)
def test_steps_are_those_of_the_clocks(since: str, step: timedelta, until: str) -> None:
    assert later(utc(since), step, BERLIN) == utc(until)


zones = st.sampled_from(
    ["Europe/Berlin", "America/New_York", "America/Havana", "Australia/Lord_Howe", "Asia/Kolkata"]
).map(ZoneInfo)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)).map(  # noqa: DTZ001 (next line)
    lambda at: at.replace(tzinfo=UTC)
)
units = st.sampled_from([DAY, 6 * HOUR, HOUR, HOUR / 2, HOUR / 60])


@given(moments, units, zones)
def test_a_floor_is_never_later_and_at_most_two_hours_too_early(
    at: datetime, unit: timedelta, zone: ZoneInfo
) -> None:
    floored = floor(at, unit, zone)
    assert floored <= at
    assert at - floored < unit + 2 * HOUR
    twice = [floored.astimezone(zone).replace(fold=fold).utcoffset() for fold in (0, 1)]
    assert unit == DAY or twice[0] <= twice[1]


@given(moments, units, zones)
def test_steps_go_on(at: datetime, step: timedelta, zone: ZoneInfo) -> None:
    assert timedelta() < later(at, step, zone) - at <= step + 2 * HOUR


@pytest.mark.parametrize("edge", [EARLIEST, LATEST])
def test_the_edges_of_the_calendar_are_no_error(edge: datetime) -> None:
    for zone in ("America/New_York", "Asia/Tokyo"):
        assert abs(floor(edge, DAY, ZoneInfo(zone)) - edge) < DAY


def test_a_day_by_hand_is_one_of_the_zone() -> None:
    assert in_clocks_of(utc("2024-07-01"), BERLIN) == utc("2024-06-30T22:00")
    assert in_clocks_of(utc("2024-07-01"), UTC) == utc("2024-07-01")
