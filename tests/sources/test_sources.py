"""Promises of the sources: how they are found, and what they ask their APIs for."""

from datetime import datetime, timezone

import pytest

from flows import sources
from flows.declaration import Partition, Window
from flows.errors import ConfigurationError
from flows.sources.northwind import orders_by_date
from flows.sources.open_meteo import CITIES, archive_days

JULY_4 = datetime(1996, 7, 4, tzinfo=timezone.utc)
JULY_11 = datetime(1996, 7, 11, tzinfo=timezone.utc)


def test_every_module_is_a_source_of_its_name() -> None:
    assert {"northwind", "open_meteo"} <= set(sources.names())
    assert [sources.find(name).name for name in sources.names()] == sources.names()


def test_an_unknown_source_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(ConfigurationError) as failure:
        sources.find("northwnid")
    assert "'northwnid'" in str(failure.value)
    assert ", ".join(sources.names()) in str(failure.value)


def test_an_unknown_resource_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"'order'\. It has: orders, order_details, "):
        sources.find("northwind").resource("order")


def test_the_environment_moves_a_source_to_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEN_METEO_BASE_URL", "http://127.0.0.1:1/v1/")
    monkeypatch.delenv("NORTHWIND_BASE_URL", raising=False)
    assert sources.find("open_meteo").base_url == "http://127.0.0.1:1/v1/"
    assert sources.find("northwind").base_url.startswith("https://services.odata.org/")


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
    asked = orders_by_date(Partition(), window)
    assert asked["$orderby"] == "OrderDate,OrderID"
    assert asked.get("$filter") == wanted


def test_open_meteo_is_asked_for_the_last_day_of_a_window_not_the_first_after_it() -> None:
    asked = archive_days(CITIES[0], Window(JULY_4, JULY_11))
    assert (asked["start_date"], asked["end_date"]) == ("1996-07-04", "1996-07-10")
    assert (asked["latitude"], asked["timezone"]) == ("51.5085", "Europe/London")


@pytest.mark.parametrize("window", [Window(), Window(since=JULY_4), Window(until=JULY_11)])
def test_open_meteo_is_not_asked_for_an_open_window(window: Window) -> None:
    with pytest.raises(ValueError, match="both ends"):
        archive_days(CITIES[0], window)
