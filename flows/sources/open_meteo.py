"""Open-Meteo's archive of daily weather, one row per city and day since 1996.

https://open-meteo.com/en/docs/historical-weather-api — keyless; days are in the city's time zone,
units are the API's defaults (°C, mm, km/h, seconds). The archive corrects its most recent days.
"""

from datetime import UTC, datetime, timedelta

from flows.extract.selectors import columns_at
from flows.source import Cursor, Params, Partition, Resource, Source, Window

VARIABLES = (
    "temperature_2m_max",
    "temperature_2m_min",
    "temperature_2m_mean",
    "precipitation_sum",
    "wind_speed_10m_max",
    "sunshine_duration",
)


def city(name: str, latitude: float, longitude: float, zone: str) -> Partition:
    """A city; its name is stored with each day."""
    return Partition(
        name,
        {"city": name, "latitude": latitude, "longitude": longitude, "timezone": zone},
    )


CITIES = (city("London", 51.5085, -0.1257, "Europe/London"),)


def archive_days(place: Partition, window: Window) -> Params:
    """The API's end_date is inclusive."""
    if window.since is None or window.until is None:
        raise ValueError("the archive is read in windows with both ends")
    return {
        "latitude": str(place.values["latitude"]),
        "longitude": str(place.values["longitude"]),
        "start_date": f"{window.since:%Y-%m-%d}",
        "end_date": f"{window.until - timedelta(days=1):%Y-%m-%d}",
        "daily": ",".join(VARIABLES),
        "timezone": place.values["timezone"],
    }


SOURCE = Source(
    name="open_meteo",
    base_url="https://archive-api.open-meteo.com/v1/",
    resources=(
        Resource(
            name="daily_weather",
            path="archive",
            params=archive_days,
            records=columns_at("daily"),
            key=("city", "time"),
            columns=dict.fromkeys(VARIABLES, "double precision"),
            cursor=Cursor(
                "time",
                lookback=timedelta(days=10),
                start=datetime(1996, 1, 1, tzinfo=UTC),
                step=timedelta(days=366),
            ),
            partitions=CITIES,
            partition_columns=("city",),
        ),
    ),
)
