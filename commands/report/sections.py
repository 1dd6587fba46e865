"""The sections of the report, in order. Add yours: a title, a query and a chart, or no chart."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import altair as alt

from commands.report.section import Chart, Row, Section

DAYS = 30  # as in the queries: today and the 29 days before

BLUE, GREEN, YELLOW, RED, GREY = "#2f6fab", "#3a8f6b", "#e0a526", "#c23b31", "#a3a9b1"
LOADS = {"succeeded": GREEN, "failed": RED, "abandoned": YELLOW, "running": BLUE}
ROWS = {"inserted": GREEN, "updated": BLUE, "unchanged": GREY, "rejected": RED}
TESTS = {"pass": GREEN, "warn": YELLOW, "fail": RED, "error": "#7a2320", "skipped": GREY}


def sales_against_weather(rows: Sequence[Row]) -> Chart:
    """A point for each month, and the straight line that fits them best."""
    points = (
        alt.Chart(data(rows))
        .encode(
            x=alt.X("mean_max_celsius:Q").title("mean daily maximum, °C").scale(zero=False),
            y=alt.Y("revenue:Q").title("revenue in the month").axis(format=",d"),
        )
        .properties(height=240)
    )
    line = points.transform_regression("mean_max_celsius", "revenue").mark_line(color=GREY)
    return alt.layer(line, points.mark_point(filled=True, size=60, color=BLUE, opacity=0.8))


def loads_by_day(rows: Sequence[Row]) -> Chart:
    """A bar for each day, stacked by the states of its loads."""
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    days = [(tomorrow - timedelta(days=DAYS)).isoformat(), tomorrow.isoformat()]
    return (
        stacked(rows, LOADS, "loads")
        .encode(
            x=alt.X("utcyearmonthdate(day):T")
            .title("day (UTC)")
            .axis(format="%-d %b", tickCount=5, grid=False)
            .scale(domain=days),
            y=alt.Y("loads:Q").title("loads").axis(format=",d", tickMinStep=1),
        )
        .properties(height=200)
    )


def rows_by_resource(rows: Sequence[Row]) -> Chart:
    """A bar for each resource, stacked by what became of its records."""
    bars = stacked(rows, ROWS, "records").properties(height=alt.Step(20))
    return bars.encode(x=count_of("records"), y=by_resource())


def rejects_by_resource(rows: Sequence[Row]) -> Chart:
    """A bar for each resource that has open rejects."""
    bars = alt.Chart(data(rows)).mark_bar(color=RED).properties(height=alt.Step(20))
    return bars.encode(x=count_of("open_rejects").title("open rejects"), y=by_resource())


def hours_by_resource(rows: Sequence[Row]) -> Chart:
    """A bar for each resource, of no length if it was never loaded in full."""
    hours = alt.X("hours_since_loaded:Q").title("hours")
    oldest = max(float(str(row["hours_since_loaded"] or 0)) for row in rows)
    return (
        alt.Chart(data(rows))
        .mark_bar(color=BLUE, invalid="show")
        .encode(x=hours.scale(domain=[0, max(1, oldest)]).axis(tickCount=5), y=by_resource())
        .properties(height=alt.Step(20))
    )


def tests_by_build(rows: Sequence[Row]) -> Chart:
    """A bar for each build, stacked by how its tests ended."""
    return (
        stacked(rows, TESTS, "tests")
        .mark_bar(size=7)
        .encode(
            x=alt.X("build:O").title("build").axis(labelAngle=0, labelOverlap=True),
            y=alt.Y("tests:Q").title("tests").axis(format=",d", tickMinStep=1),
        )
        .properties(height=200)
    )


def data(rows: Sequence[Row]) -> alt.InlineData:
    """The rows for Altair: decimals as numbers, dates and times as ISO 8601 text."""
    return alt.InlineData(
        values=json.loads(json.dumps([dict(row) for row in rows], default=_plain))
    )


def _plain(value: object) -> float | str:
    if isinstance(value, date):
        return value.isoformat()
    return float(value) if isinstance(value, Decimal) else str(value)


def stacked(rows: Sequence[Row], colours: Mapping[str, str], counted: str) -> alt.Chart:
    """Bars stacked from the columns that `colours` names, which are called `counted` together."""
    kinds = alt.Color("kind:N").title(None).sort([*colours])
    return (
        alt.Chart(data(rows))
        .transform_fold([*colours], as_=["kind", counted])
        .mark_bar()
        .encode(
            color=kinds.scale(domain=[*colours], range=[*colours.values()]),
            order=alt.Order("color_kind_sort_index:Q"),
        )
    )


def count_of(column: str) -> alt.X:
    return alt.X(f"{column}:Q").axis(format="~s", tickMinStep=1, tickCount=5).title(column)


def by_resource() -> alt.Y:
    """A row of the chart for each resource, in the order of the query."""
    return alt.Y("resource:N").title(None).sort(None)


SECTIONS = (
    Section(
        title="Sales in London against the weather",
        reads="marts.rpt_sales_vs_weather",
        query="""
            select
                to_char(sales_month, 'YYYY-MM') as month,
                orders,
                quantity,
                revenue,
                round(cast(mean_temperature_max_celsius as numeric), 1) as mean_max_celsius
            from marts.rpt_sales_vs_weather
            where mean_temperature_max_celsius is not null
            order by sales_month
        """,
        note="Each point is a month: the revenue of the orders shipped to London, in the one "
        "currency of the source, and the mean of the daily maximum temperatures. The line is the "
        "straight one that fits them best.",
        empty="No month has both sales and weather.",
        chart=sales_against_weather,
    ),
    Section(
        title="Loads",
        reads="marts.fct_loads",
        query="""
            select
                cast(started_at as date) as day,
                count(*) filter (where state = 'succeeded') as succeeded,
                count(*) filter (where state = 'failed') as failed,
                count(*) filter (where state = 'abandoned') as abandoned,
                count(*) filter (where state = 'running') as running
            from marts.fct_loads
            where started_at >= current_date - 29
            group by day
            order by day
        """,
        note="Loads that began on each of the last 30 days (UTC), by their state.",
        empty="Nothing was loaded in the last 30 days.",
        chart=loads_by_day,
    ),
    Section(
        title="Records by resource",
        reads="marts.fct_loads",
        query="""
            select
                source || '.' || resource as resource,
                sum(inserted) as inserted,
                sum(updated) as updated,
                sum(unchanged) as unchanged,
                sum(rejected) as rejected
            from marts.fct_loads
            where started_at >= current_date - 29
            group by source, fct_loads.resource
            having sum(extracted) > 0
            order by sum(extracted) desc
            limit 30
        """,
        note="What became of the records extracted in the last 30 days; the 30 resources "
        "with most.",
        empty="No record was extracted in the last 30 days.",
        chart=rows_by_resource,
    ),
    Section(
        title="Freshness",
        reads="marts.rpt_resource_freshness",
        query="""
            select
                source || '.' || resource as resource,
                hours_since_loaded,
                loaded_in_full_at,
                loaded_partitions,
                partitions
            from marts.rpt_resource_freshness
            order by hours_since_loaded desc nulls first
            limit 30
        """,
        note="Hours since each resource was last loaded in full, by its oldest partition; the 30 "
        "oldest. A resource without a bar was never loaded in full.",
        empty="Nothing was loaded yet.",
        chart=hours_by_resource,
    ),
    Section(
        title="Open rejects",
        reads="marts.rpt_load_history",
        query="""
            select source || '.' || resource as resource, open_rejects, last_state, last_error
            from marts.rpt_load_history
            where open_rejects > 0
            order by open_rejects desc
            limit 30
        """,
        note="Records that could not be stored and were not loaded since; the 30 resources with "
        "most. After a fix, make replay loads them again.",
        empty="There are no open rejects.",
        chart=rejects_by_resource,
    ),
    Section(
        title="Unusual loads",
        reads="marts.rpt_load_anomalies",
        query="""
            select
                source
                || '.'
                || resource
                || case when partition = '' then '' else '[' || partition || ']' end as load,
                description,
                kind,
                found_at
            from marts.rpt_load_anomalies
            order by anomaly_id desc
            limit 20
        """,
        note="Schema changes, fields without values and unusual numbers of records; the newest 20.",
        empty="No load was unusual.",
    ),
    Section(
        title="dbt tests",
        reads="dbt.builds",
        query="""
            select
                build_id as build,
                builds.ended_at,
                builds.state,
                count(*) filter (where node ->> 'status' = 'pass') as pass,
                count(*) filter (where node ->> 'status' = 'warn') as warn,
                count(*) filter (where node ->> 'status' = 'fail') as fail,
                count(*) filter (where node ->> 'status' in ('error', 'runtime error')) as error,
                count(*) filter (where node ->> 'status' = 'skipped') as skipped
            from dbt.builds
            cross join lateral jsonb_array_elements(builds.results -> 'results') as node
            where
                build_id > (select max(build_id) - 30 from dbt.builds)
                and split_part(node ->> 'unique_id', '.', 1) in ('test', 'unit_test')
            group by build_id
            order by build_id
        """,
        note="How the tests of the last 30 builds ended; builds without tests are left out. If a "
        "build went on after a failure, its tests include those that had passed before.",
        empty="No build has kept test results.",
        chart=tests_by_build,
    ),
)
