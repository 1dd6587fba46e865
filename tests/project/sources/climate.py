"""The weather of a city by day, as `tests.project.api` serves it."""

from datetime import UTC, datetime, timedelta

from flows.extract.selectors import columns_at
from flows.source import Cursor, Params, Partition, Resource, Source, Window


def days(place: Partition, window: Window) -> Params:
    """The API's end_date is inclusive."""
    assert window.since is not None
    assert window.until is not None
    return {
        "city": place.values["city"],
        "start_date": f"{window.since:%Y-%m-%d}",
        "end_date": f"{window.until - timedelta(days=1):%Y-%m-%d}",
    }


SOURCE = Source(
    name="climate",
    base_url="https://climate.example.com/",
    resources=(
        Resource(
            name="daily_weather",
            path="archive",
            params=days,
            records=columns_at("daily"),
            key=("city", "time"),
            columns={"temperature_2m_max": "double precision"},
            cursor=Cursor(
                "time",
                lookback=timedelta(days=10),
                start=datetime(2025, 1, 1, tzinfo=UTC),
                step=timedelta(days=366),
            ),
            partitions=(Partition("London", {"city": "London"}),),
            partition_columns=("city",),
        ),
    ),
)
