"""`make report` of a small warehouse, whose marts have the columns that dbt's contracts name."""

from base64 import b64decode
from collections.abc import Callable
from datetime import date
from pathlib import Path
from re import DOTALL, findall
from typing import Any

import pytest
import yaml
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from blocks.warehouse import Warehouse
from commands.report import sections
from commands.report.__main__ import write
from commands.report.page import part_of
from commands.report.section import Section, read
from commands.report.sections import SECTIONS
from flows.dbt_build import dbt_project, history
from flows.errors import ConfigurationError
from tests.browser import needs_browser, opened

EXAMPLE = "rpt_sales_vs_weather"
DOCS = Path(__file__).parents[2] / "docs" / "transform.md"
READ = {"fct_order_lines"} | {
    section.reads.partition(".")[2] for section in SECTIONS if section.reads != "dbt.builds"
}
UNUSUAL = f"7 records of {60 * 'long'}; usual are 1,200."
ROWS: dict[str, list[dict[str, Any]]] = {
    EXAMPLE: [
        {"sales_month": f"1996-0{month}-01", "orders": 9, "revenue": 1000.5 * month,
         "mean_temperature_max_celsius": 10 + month}
        for month in (6, 7, 8)
    ],
    "fct_loads": [
        {"source": "shop", "resource": "orders", "state": state, "started_at": "now",
         "extracted": 1200, "inserted": 1000, "updated": 150, "unchanged": 43, "rejected": 7}
        for state in ("succeeded", "succeeded", "failed")
    ] + [{"source": "shop", "resource": "orders", "state": "failed", "started_at": "2001-01-01"}],
    "rpt_load_history": [
        {"source": "shop", "resource": "orders", "open_rejects": 14, "last_error": "<b>id</b>"},
        {"source": "shop", "resource": "items", "open_rejects": 0},
    ],
    "rpt_resource_freshness": [
        {"source": "shop", "resource": "orders", "hours_since_loaded": 31.5},
        {"source": "shop", "resource": "never_loaded"},
    ],
    "rpt_load_anomalies": [
        {"anomaly_id": 1, "source": "shop", "resource": "orders", "partition": "Oslo",
         "kind": "volume", "found_at": "2026-01-31 04:00+02", "description": UNUSUAL},
    ],
}  # fmt: skip
TESTS = ["pass", "pass", "warn", "fail", "runtime error"]


def contracts() -> dict[str, dict[str, str]]:
    """The types of the columns of each mart, by names."""
    models = [
        model
        for file in (dbt_project.PROJECT / "models" / "marts").rglob("*.yml")
        for model in yaml.safe_load(file.read_text()).get("models", [])
    ]
    return {
        model["name"]: {column["name"]: column["data_type"] for column in model["columns"]}
        for model in models
    }


@pytest.fixture
def warehouse(
    database: URL, query: Callable[..., list[tuple]], connection: Connection
) -> Warehouse:
    """A warehouse with the marts that the report reads, and a build with a failed test."""
    query("create schema marts")
    for name, columns in contracts().items():
        if name in READ:
            typed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
            query(f"create table marts.{name} ({typed})")
    for name, rows in ROWS.items():
        for row in rows:
            insert = sql.SQL("insert into {} ({}) values ({})").format(
                sql.Identifier("marts", name),
                sql.SQL(", ").join(map(sql.Identifier, row)),
                sql.SQL(", ").join(map(sql.Literal, row.values())),
            )
            query(insert)
    with connection, connection.cursor() as cursor:
        history.prepare(cursor)
        build_id = history.begin(cursor, None, "A test.", "code", {})
        nodes = [
            {"unique_id": f"test.warehouse.t{number}.abc", "status": status}
            for number, status in enumerate(TESTS)
        ]
        nodes.append({"unique_id": "model.warehouse.fct_loads", "status": "error"})
        history.keep_artifacts(cursor, build_id, {"results": nodes}, b"{}")
        history.end(cursor, build_id, "failed")
    return Warehouse(database)


def table_rows(page: str) -> list[list[str]]:
    """The cells of every table's rows."""
    return [findall("<td[^>]*>([^<]*)</td>", row) for row in findall("<tr>(.*?)</tr>", page)]


def titles(page: str) -> list[str]:
    return findall("<h2[^>]*>([^<]*)</h2>", page)


def pictures(page: str) -> str:
    found = findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    return "\n".join(b64decode(picture).decode() for picture in found)


def test_the_page_has_the_figures_and_charts_of_the_warehouse(
    warehouse: Warehouse, tmp_path: Path, query: Callable[..., list[tuple]]
) -> None:
    page = write(warehouse, tmp_path / "new" / "report.html").read_text()
    [(day,)] = query(
        "select to_char(max(started_at at time zone 'utc'), 'YYYY-MM-DD') from marts.fct_loads"
    )
    assert titles(page) == [section.title for section in SECTIONS]
    rows = table_rows(page)
    assert ["1996-07", "9", "", "7,003.5", "17.0"] in rows
    assert [day, "2", "1", "0", "0"] in rows
    assert ["shop.orders", "3,000", "450", "129", "21"] in rows
    assert ["shop.orders", "14", "", "&lt;b&gt;id&lt;/b&gt;"] in rows
    assert ["shop.orders", "31.5", "", "", ""] in rows
    assert ["shop.orders[Oslo]", UNUSUAL, "volume", "2026-01-31 02:00"] in rows
    assert ["1", "failed", "2", "1", "1", "1", "0"] in [
        [row[0], *row[2:]] for row in rows if len(row) == 8
    ]
    drawn = pictures(page)
    for label in (
        "mean daily maximum, °C: 17; revenue in the month: 7,004",
        "loads: 1; kind: failed",
        "records: 3k; resource: shop.orders; kind: inserted",
        "open rejects: 14; resource: shop.orders",
        "hours: 31.5; resource: shop.orders",
        "resource: shop.never_loaded",
        "build: 1; tests: 2; kind: pass",
    ):
        assert label in drawn


def test_without_the_example_its_section_alone_is_left_out(
    warehouse: Warehouse, tmp_path: Path, query: Callable[..., list[tuple]]
) -> None:
    query(f"drop table marts.{EXAMPLE}")
    page = write(warehouse, tmp_path / "report.html").read_text()
    assert titles(page) == [section.title for section in SECTIONS if EXAMPLE not in section.reads]


def test_an_empty_database_gives_a_page_that_names_the_next_command(
    database: URL, tmp_path: Path
) -> None:
    page = write(Warehouse(database), tmp_path / "report.html").read_text()
    assert titles(page) == ["There is nothing to show yet"]
    assert "make run-local\nmake report" in page


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("select nmae from pg_class", 'column "nmae" does not exist'),
        ("select 1 / (relpages - relpages) from pg_class", "division by zero"),
        ("delete from pg_class", "cannot execute DELETE in a read-only transaction"),
    ],
)
def test_a_section_that_postgres_refuses_is_named(
    query: str, reason: str, database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Section("Mine", reads="pg_class", query=query, note="", empty="")
    monkeypatch.setattr("commands.report.__main__.SECTIONS", (mine,))
    with pytest.raises(ConfigurationError, match=rf"the section 'Mine': {reason}"):
        write(Warehouse(database), tmp_path / "report.html")


def test_the_section_in_the_docs_is_read_and_drawn(
    warehouse: Warehouse, query: Callable[..., list[tuple]]
) -> None:
    [code] = findall(r"```python\n(Section\(.*?)```", DOCS.read_text(), DOTALL)
    section = eval(code, vars(sections))  # noqa: S307 (our own page)
    query("insert into marts.fct_order_lines (order_id, order_date) values (7, '2026-01-31')")
    with warehouse.transaction() as cursor:
        rows = read(cursor, section)
    assert rows == [{"month": date(2026, 1, 1), "orders": 1}]
    assert "month (year-month): Jan 2026; orders: 1" in pictures(f'"{part_of(section, rows).wide}"')


@needs_browser
def test_it_is_read_on_a_phone_without_a_server(warehouse: Warehouse, tmp_path: Path) -> None:
    url = write(warehouse, tmp_path / "report.html").as_uri()
    asked: list[str] = []
    with opened(url, tmp_path / "profile", width=390, height=800) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        for section in SECTIONS:
            assert page.get_by_role("region", name=section.title, exact=True).is_visible()
        charts = [section for section in SECTIONS if section.chart]
        widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(widths) == len(charts)
        assert all(300 < width <= 330 for width in widths)
        page.evaluate("document.querySelectorAll('details').forEach(found => found.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert [address for address in asked if not address.startswith("data:")] == [url]
