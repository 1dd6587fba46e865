"""What is built after which change, and why."""

from pathlib import Path

import pytest

from flows.dbt_build import dbt_project
from flows.dbt_build.history import Build, RawTable
from flows.dbt_build.selection import Selection, checksum, loads_of, select

ORDERS = RawTable("market", "orders", 7, True, is_stale=False, is_reshaped=False)
NEW_ORDERS = RawTable("market", "orders", 8, True, is_stale=True, is_reshaped=False)
FEWER_ORDERS = RawTable("market", "orders", 8, True, is_stale=True, is_reshaped=True)
SHIPPERS = RawTable("market", "shippers", 3, True, is_stale=False, is_reshaped=False)
WEATHER = RawTable("climate", "daily_weather")
TABLES = [ORDERS, SHIPPERS]
LEFT = [
    {"unique_id": "model.warehouse.stg_orders", "status": "success"},
    {"unique_id": "model.warehouse.fct_orders", "status": "error"},
    {"unique_id": "test.warehouse.unique_fct_orders_id.1f2e3d4c5b", "status": "skipped"},
]


def published(code: str = "same") -> Build:
    return Build(1, None, "published", code, loads_of(TABLES), [])


def failed(
    code: str = "same", tables: list[RawTable] = TABLES, nodes: list = LEFT, anew: bool = False
) -> Build:
    return Build(2, None, "failed", code, loads_of(tables), nodes, full_refresh=anew)


@pytest.mark.parametrize(
    ("tables", "code", "last_published", "last_failed", "arguments", "words"),
    [
        (TABLES, "same", published(), None, None, ""),
        ([WEATHER], "same", None, None, None, ""),
        (TABLES, "same", None, None, [], "nothing is published yet"),
        ([NEW_ORDERS, SHIPPERS], "same", published(), None,
         ["--select", "source:elt+", "source:market.orders+"], "market.orders."),
        ([FEWER_ORDERS, SHIPPERS], "same", published(), None,
         ["--select", "source:elt+", "source:market.orders+", "--full-refresh"], "lost rows"),
        (TABLES, "new", published(), None,
         ["--select", "source:elt+", "state:modified+", "--full-refresh"], "the dbt project"),
        ([NEW_ORDERS, WEATHER], "same", published(), None,
         ["--select", "source:elt+", "source:market.orders+",
          "--exclude", "source:climate.daily_weather+"], "market.orders"),
        (TABLES, "same", published(), failed(),
         ["--select", "fct_orders", "unique_fct_orders_id"], "Build 2 failed"),
        (TABLES, "same", published(), failed(anew=True),
         ["--select", "fct_orders", "unique_fct_orders_id", "--full-refresh"], "Build 2 failed"),
        (TABLES, "same", None, failed(nodes=[]), [], "nothing is published yet"),
        (TABLES, "same", published(), failed(nodes=[]), None, ""),
        ([NEW_ORDERS, SHIPPERS], "same", published(), failed(),
         ["--select", "source:elt+", "source:market.orders+"], "market.orders"),
        (TABLES, "new.x", published(), None, ["--full-refresh"], "dbt_project.yml has changed"),
        (TABLES, "new", published(), failed(),
         ["--select", "source:elt+", "state:modified+", "--full-refresh"], "the dbt project"),
    ],
    ids=[
        "nothing changed", "nothing complete", "first build", "rows changed", "rows deleted",
        "code changed", "a table left out", "after a failure", "after a failure from all rows",
        "dbt died at once, first build",
        "dbt died at once", "new rows after a failure", "new settings", "new code after a failure",
    ],
)  # fmt: skip
def test_what_is_built_after_which_change(
    tables: list[RawTable],
    code: str,
    last_published: Build | None,
    last_failed: Build | None,
    arguments: list[str] | None,
    words: str,
) -> None:
    selection = select(tables, code, last_published, last_failed, True, False)
    assert (selection and selection.arguments()) == arguments
    assert selection is None or words in selection.reason


def test_all_is_built_when_asked_for() -> None:
    asked = select(TABLES, "same", published(), None, only_stale=False, full_refresh=False)
    assert asked == Selection((ORDERS, SHIPPERS), (), (), "Everything: as requested.")
    anew = select(TABLES, "same", published(), failed(), only_stale=True, full_refresh=True)
    assert anew is not None
    assert anew.arguments() == ["--full-refresh"]


def test_the_checksum_is_of_the_code_and_not_of_what_dbt_wrote(tmp_path: Path) -> None:
    assert checksum(dbt_project.PROJECT) == checksum(dbt_project.PROJECT)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/a.sql").write_text("select 1")
    before = checksum(tmp_path)
    (tmp_path / "target").mkdir()
    (tmp_path / "target/manifest.json").write_text("{}")
    assert checksum(tmp_path) == before
    (tmp_path / "models/a.sql").write_text("select 2")
    assert checksum(tmp_path) != before
    assert checksum(tmp_path).partition(".")[2] == before.partition(".")[2]
    (tmp_path / "dbt_project.yml").write_text("vars: {a: 1}")
    assert checksum(tmp_path).partition(".")[2] != before.partition(".")[2]
