"""Generates sample weather under the contract of the Open-Meteo archive.

Contract: https://archive-api.open-meteo.com/v1/archive. Knows no HTTP: parameters in, response out.
"""

from __future__ import annotations

import random
import re
import time
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import fmean
from zoneinfo import ZoneInfo

FIRST_DAY = date(1940, 1, 1)
LAG_DAYS = 2
LONDON_LATITUDE = 51.5
COOLING_PER_DEGREE = 0.35

# About the monthly normals of London Heathrow, 1991-2020; close enough for generated days:
# https://www.metoffice.gov.uk/research/climate/maps-and-data/uk-climate-averages
MAX_CELSIUS = (8.4, 9.0, 11.7, 15.0, 18.4, 21.6, 23.9, 23.4, 20.2, 15.8, 11.5, 8.8)
MIN_CELSIUS = (2.7, 2.7, 4.1, 6.0, 9.1, 12.0, 14.2, 14.1, 11.6, 8.8, 5.3, 3.1)
RAIN_MM = (58.8, 45.0, 38.8, 42.3, 45.9, 47.3, 45.8, 52.8, 49.6, 65.1, 66.6, 57.1)
RAIN_DAYS = (11.5, 9.5, 8.5, 8.8, 8.0, 8.3, 7.9, 8.4, 7.9, 10.8, 11.2, 10.8)
SUN_HOURS = (61.1, 78.8, 124.5, 176.7, 207.5, 208.4, 217.8, 202.1, 157.1, 115.2, 70.7, 55.0)
RAINY_SUN_SHARE = 0.6

UNITS = {
    "temperature_2m_max": "°C",
    "temperature_2m_min": "°C",
    "temperature_2m_mean": "°C",
    "precipitation_sum": "mm",
    "wind_speed_10m_max": "km/h",
    "sunshine_duration": "s",
}
PARAMETERS = {"latitude", "longitude", "start_date", "end_date", "daily", "timezone"}


class ParameterError(ValueError):
    """A parameter is missing or wrong: correct it; sent with status 400."""


@dataclass(frozen=True)
class Place:
    """A grid cell, 0.1 degrees wide; like the real service, the response has its coordinates."""

    latitude: float
    longitude: float


def answer(parameters: Mapping[str, str], today: date) -> dict[str, object]:
    """Raises: ParameterError when a parameter is missing, unknown or out of range."""
    started = time.perf_counter()
    if unknown := sorted(set(parameters) - PARAMETERS):
        raise ParameterError(f"The sample API has no parameter '{unknown[0]}'.")
    place = Place(
        _parse_coordinate(parameters, "latitude", 90),
        _parse_coordinate(parameters, "longitude", 180),
    )
    days = _parse_days(parameters, today)
    variables = _parse_variables(parameters)
    zone = _parse_timezone(parameters)
    daily = _daily(place, days, variables, today)
    return {
        "latitude": place.latitude,
        "longitude": place.longitude,
        "generationtime_ms": round((time.perf_counter() - started) * 1000, 3),
        **_describe_timezone(zone, today),
        "elevation": 23.0,
        "daily_units": {"time": "iso8601", **{name: UNITS[name] for name in variables}},
        "daily": daily,
    }


def _daily(
    place: Place, days: list[date], variables: list[str], today: date
) -> dict[str, list[str] | list[float | None]]:
    """Columns, one value per day; the archive lags, so the latest days are null."""
    last_known = today - timedelta(days=LAG_DAYS + 1)
    weather = [generate_day(place, day) if day <= last_known else None for day in days]
    columns = {name: [known[name] if known else None for known in weather] for name in variables}
    return {"time": [day.isoformat() for day in days], **columns}


def generate_day(place: Place, day: date) -> dict[str, float]:
    """One day's weather; it depends only on the place and the day."""
    rng = random.Random(f"{place.latitude},{place.longitude},{day}")  # noqa: S311 (sample data)
    month = (day.month - 1 + (6 if place.latitude < 0 else 0)) % 12
    warmth = rng.gauss(0, 3)
    highest = _normal(MAX_CELSIUS, month, place) + warmth
    lowest = min(_normal(MIN_CELSIUS, month, place) + 0.6 * warmth + rng.gauss(0, 1), highest - 1)
    days_in_month = monthrange(2001, month + 1)[1]
    rain_share = RAIN_DAYS[month] / days_in_month
    is_rainy = rng.random() < rain_share
    rain = rng.expovariate(RAIN_DAYS[month] / RAIN_MM[month]) if is_rainy else 0.0
    dry_sun_share = (1 - RAINY_SUN_SHARE * rain_share) / (1 - rain_share)
    sun_hours = SUN_HOURS[month] / days_in_month * rng.uniform(0.2, 1.8)
    return {
        "temperature_2m_max": round(highest, 1),
        "temperature_2m_min": round(lowest, 1),
        "temperature_2m_mean": round((highest + lowest) / 2, 1),
        "precipitation_sum": round(rain, 1),
        "wind_speed_10m_max": round(max(4.0, rng.gauss(22 if is_rainy else 17, 5)), 1),
        "sunshine_duration": round(
            sun_hours * 3600 * (RAINY_SUN_SHARE if is_rainy else dry_sun_share), 2
        ),
    }


def _normal(months: tuple[float, ...], month: int, place: Place) -> float:
    """London's month, adjusted: warmer and with weaker seasons towards the equator."""
    latitude = abs(place.latitude)
    year = fmean(months)
    season = (months[month] - year) * latitude / LONDON_LATITUDE
    return year + season - COOLING_PER_DEGREE * (latitude - LONDON_LATITUDE)


def _parse_coordinate(parameters: Mapping[str, str], name: str, limit: int) -> float:
    """The middle of the coordinate's grid cell; the addition turns -0.0 into 0.0."""
    text = _require(parameters, name)
    if not re.fullmatch(r"[+-]?\d+(\.\d+)?", text):
        raise ParameterError(f"Value of type 'Float' required for key '{name}', not '{text}'.")
    if abs(float(text)) > limit:
        raise ParameterError(
            f"{name.capitalize()} must be in range of -{limit} to {limit}°. Given: {text}."
        )
    return round(float(text), 1) + 0.0


def _parse_days(parameters: Mapping[str, str], today: date) -> list[date]:
    start = _parse_date(parameters, "start_date", today)
    end = _parse_date(parameters, "end_date", today)
    if end < start:
        raise ParameterError("End-date must be larger or equals than start-date")
    return [start + timedelta(days=number) for number in range((end - start).days + 1)]


def _parse_date(parameters: Mapping[str, str], name: str, today: date) -> date:
    text = _require(parameters, name)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise ParameterError(f"Invalid date format for '{name}'. Make sure to use 'YYYY-MM-DD'")
    if not FIRST_DAY <= day <= today:
        raise ParameterError(
            f"Parameter '{name}' is out of allowed range from {FIRST_DAY} to {today}"
        )
    return day


def _parse_variables(parameters: Mapping[str, str]) -> list[str]:
    names = _require(parameters, "daily").split(",")
    for name in names:
        if name not in UNITS:
            raise ParameterError(f"The sample API has no daily variable '{name}'.")
    return names


def _parse_timezone(parameters: Mapping[str, str]) -> ZoneInfo:
    """GMT by default; the real service's `auto` would need a map of the world."""
    name = parameters.get("timezone", "GMT")
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:
        raise ParameterError(f"Invalid timezone '{name}'") from error


def _describe_timezone(zone: ZoneInfo, today: date) -> dict[str, object]:
    noon = datetime(today.year, today.month, today.day, 12, tzinfo=zone)
    offset = noon.utcoffset() or timedelta()
    hours = offset.total_seconds() / 3600
    return {
        "utc_offset_seconds": int(offset.total_seconds()),
        "timezone": zone.key,
        "timezone_abbreviation": f"GMT{hours:+g}" if hours else "GMT",
    }


def _require(parameters: Mapping[str, str], name: str) -> str:
    if not parameters.get(name):
        raise ParameterError(f"Value of type 'String' required for key '{name}'.")
    return parameters[name]
