"""The incremental weather mart ends as a full refresh would, and rewrites only what changed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.dbt_project.running_dbt import Dbt

Query = Callable[..., list[tuple]]

PROJECT = Path(__file__).resolve().parents[2] / "dbt_project"
MART = "fct_daily_weather"
RUN = ("run", "--select", f"+{MART}")
RAW_TABLE = """
create schema raw_open_meteo;
create table raw_open_meteo.daily_weather (
    city text, time text, temperature_2m_max float, temperature_2m_min float,
    temperature_2m_mean float, precipitation_sum float, wind_speed_10m_max float,
    sunshine_duration float, _loaded_at timestamptz not null, _load_id bigint,
    primary key (city, time)
)
"""
LOADED = """
insert into raw_open_meteo.daily_weather (city, time, temperature_2m_max, _loaded_at)
values (%s, %s, %s, %s)
on conflict (city, time) do update set
    temperature_2m_max = excluded.temperature_2m_max, _loaded_at = excluded._loaded_at
"""


@pytest.fixture
def dbt(database: URL, query: Query, tmp_path: Path) -> Dbt:
    """On four days of weather, which the mart has."""
    query(RAW_TABLE)
    for day in range(1, 5):
        query(LOADED, "London", f"1996-07-0{day}", 20 + day, "2026-02-01 06:00+00")
    built = Dbt(database, tmp_path, PROJECT)
    built.succeed(*RUN)
    return built


def rows(query: Query) -> list[tuple]:
    return query("select * from marts.fct_daily_weather order by city, weather_date")


def places(query: Query) -> dict[tuple, tuple]:
    """Where each row's version is, and which transaction wrote it."""
    found = query(
        "select city, weather_date::text, ctid::text, xmin::text from marts.fct_daily_weather"
    )
    return {(city, day): version for city, day, *version in found}


@pytest.mark.long
def test_it_ends_as_a_full_refresh_would_and_rewrites_only_what_changed(
    dbt: Dbt, query: Query
) -> None:
    """Even if a load that began before the last build commits after it."""
    before = places(query)
    for loaded in (
        ("London", "1996-07-02", -5, "2026-02-02 06:00+00"),  # corrected
        ("London", "1996-07-03", None, "2026-01-31 06:00+00"),  # by a load that began early
        ("London", "1996-07-05", 25, "2026-02-02 06:00+00"),  # new
        ("London", "1996-06-30", 19, "2026-01-30 06:00+00"),  # new, by one that began early
        ("Paris", "1996-07-01", 30, "2026-02-01 06:00+00"),  # another city's at the same time
    ):
        query(LOADED, *loaded)

    dbt.succeed(*RUN)

    incremental, after = rows(query), places(query)
    untouched = {("London", "1996-07-01"), ("London", "1996-07-04")}
    assert {key for key in before if before[key] == after[key]} == untouched
    dbt.succeed(*RUN, "--full-refresh")
    assert len(incremental) == 7
    assert incremental == rows(query)
    assert not before.items() & places(query).items()


@pytest.mark.long
def test_a_row_deleted_from_raw_fails_a_build_that_is_no_full_refresh(
    dbt: Dbt, query: Query
) -> None:
    before = places(query)
    query("delete from raw_open_meteo.daily_weather where time = '1996-07-04'")
    code, printed = dbt.run("build", "--select", f"+{MART}")
    assert code == 1
    assert "Got 1 result" in printed
    assert "fct_daily_weather_has_every_raw_row" in printed
    assert before == places(query)
