"""The first `make run-local` after a clone, with the sample API."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from tests.commands.test_run_local import Laptop
from tests.example.example_tree import make_example

NORTHWIND_ROWS = 3229
REPORT = """
select count(*), bool_and(report.revenue = raw.revenue), min(weather_days)
from marts.rpt_sales_vs_weather as report
full join (
    select date_trunc('month', order_date::date)::date as sales_month,
        round(sum(unit_price * quantity * (1 - discount)), 2) as revenue
    from raw_northwind.orders join raw_northwind.order_details using (order_id)
    where ship_city = 'London' group by 1
) as raw using (sales_month)
"""


def days_of_weather() -> int:
    """The number of days in the sample API's weather: one more every midnight UTC."""
    return (datetime.now(UTC).date() - date(1996, 1, 1)).days


@pytest.mark.long
def test_it_loads_builds_and_reports_what_the_raw_rows_say(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path / "local", make_example(tmp_path / "tree"))
    days_before = days_of_weather()
    code, printed = laptop.run("run_local")
    assert code == 0, printed
    assert "its data is GENERATED, not real" in printed
    assert any(
        f"In all: {rows:,} extracted, {rows:,} inserted, 0 updated" in printed
        for rows in (NORTHWIND_ROWS + days_before, NORTHWIND_ROWS + days_of_weather())
    )
    assert "0 warned, 0 failed, 0 skipped" in printed
    assert "Does the weather move our sales in London?" in printed
    assert "1996-07" in printed
    assert laptop.left_running() == []
    code, printed = laptop.run("psql", "--sql", REPORT)
    assert code == 0, printed
    months, is_equal, days = printed.strip().split("|")
    assert int(months) >= 12
    assert is_equal == "t"
    assert int(days) >= 28
