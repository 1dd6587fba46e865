"""What the example's sources request."""

from datetime import UTC, datetime
from pathlib import Path
from runpy import run_path

import pytest

from flows.source import Partition, Window

SOURCES = Path(__file__).resolve().parents[2] / "flows" / "sources"
NORTHWIND = run_path(str(SOURCES / "northwind.py"))
OPEN_METEO = run_path(str(SOURCES / "open_meteo.py"))
JULY_4 = datetime(1996, 7, 4, tzinfo=UTC)
JULY_11 = datetime(1996, 7, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "wanted"),
    [
        (Window(), None),
        (Window(since=JULY_4), "OrderDate ge 1996-07-04T00:00:00Z"),
        (Window(until=JULY_11), "OrderDate lt 1996-07-11T00:00:00Z"),
        (
            Window(JULY_4, JULY_11),
            "OrderDate ge 1996-07-04T00:00:00Z and OrderDate lt 1996-07-11T00:00:00Z",
        ),
    ],
)
def test_northwind_orders_are_asked_for_by_date(window: Window, wanted: str | None) -> None:
    asked = NORTHWIND["orders_by_date"](Partition(), window)
    assert asked["$orderby"] == "OrderDate,OrderID"
    assert asked.get("$filter") == wanted


def test_open_meteo_requests_end_with_the_last_day_of_a_window() -> None:
    asked = OPEN_METEO["archive_days"](OPEN_METEO["CITIES"][0], Window(JULY_4, JULY_11))
    assert (asked["start_date"], asked["end_date"]) == ("1996-07-04", "1996-07-10")
    assert (asked["latitude"], asked["timezone"]) == ("51.5085", "Europe/London")


@pytest.mark.parametrize("window", [Window(), Window(since=JULY_4), Window(until=JULY_11)])
def test_open_meteo_is_not_asked_for_an_open_window(window: Window) -> None:
    with pytest.raises(ValueError, match="both ends"):
        OPEN_METEO["archive_days"](OPEN_METEO["CITIES"][0], window)
