"""Which models and snapshots dbt builds after which change, according to dbt itself."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flows import sources
from flows.dbt_build import dbt_project, dbt_runner
from flows.dbt_build.history import Build, RawTable
from flows.dbt_build.selection import Selection, loads_of, select

LEDGER = {
    "stg_elt__anomalies",
    "stg_elt__loads",
    "stg_elt__partitions",
    "stg_elt__rejects",
    "stg_elt__schema_changes",
    "fct_loads",
    "rpt_load_anomalies",
    "rpt_load_history",
    "rpt_resource_freshness",
}
SALES = {"fct_order_lines", "rpt_sales_vs_weather"}
ORDERS = {"stg_market__orders", *SALES}
WEATHER = {"stg_climate__daily_weather", "fct_daily_weather", "rpt_sales_vs_weather"}
PRODUCTS = {"stg_market__products", "snp_market__products", "dim_products"}
ENVIRONMENT = {"WAREHOUSE_HOST": "nobody", "WAREHOUSE_USER": "x", "WAREHOUSE_DATABASE": "x"}

BUILT = [
    RawTable(name, resource.name, 1, is_complete=True, is_stale=False, is_reshaped=False)
    for name in sources.names()
    for resource in sources.find(name).resources
]
PUBLISHED = Build(1, None, "published", "same", loads_of(BUILT), [])


def after(*stale: str, missing: Sequence[str] = (), code: str = "same") -> Selection:
    """The selection after changes to some tables, while others are incomplete."""
    tables = [
        replace(table, is_stale=str(table) in stale, is_complete=str(table) not in missing)
        for table in BUILT
    ]
    selection = select(tables, code, PUBLISHED, None, only_stale=True, full_refresh=False)
    assert selection is not None
    return selection


CASES: dict[str, tuple[Selection, set[str]]] = {
    "a table nobody joins": (after("market.shippers"), {"stg_market__shippers"}),
    "orders": (after("market.orders"), ORDERS),
    "a table with history": (after("market.products"), PRODUCTS),
    "two sources": (after("market.orders", "climate.daily_weather"), ORDERS | WEATHER),
    "orders, while the weather is not there in full": (
        after("market.orders", missing=["climate.daily_weather"]),
        ORDERS - {"rpt_sales_vs_weather"},
    ),
    "a model and a table": (
        after("market.shippers", code="new"),
        {"dim_customers", "stg_market__shippers"},
    ),
}


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What dbt would build in each case; one model differs from the state manifest."""
    folder = tmp_path_factory.mktemp("dbt")
    project, state = folder / "dbt_project", folder / "state"
    shutil.copytree(dbt_project.PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
    listed_in(project, state, [[]])
    model = project / "models/marts/sales/dim_customers.sql"
    model.write_text(f"{model.read_text()}\n-- changed\n")
    wanted = [[*selection.arguments(), "--state", str(state)] for selection, _ in CASES.values()]
    wanted = [[word for word in words if word != "--full-refresh"] for words in wanted]
    return dict(zip(CASES, listed_in(project, folder / "target", wanted), strict=True))


def listed_in(project: Path, target: Path, wanted: Sequence[Sequence[str]]) -> list[set[str]]:
    """The names that `dbt ls` lists, one set per list of arguments."""
    kinds = ["--resource-type", "model", "--resource-type", "snapshot"]
    where = ["--project-dir", str(project), "--profiles-dir", str(project)]
    listing = ["ls", "--output", "name", *kinds, *where, "--target-path", str(target)]
    environment = {**ENVIRONMENT, "DBT_LOG_PATH": str(target)}
    found: list[set[str]] = []
    for said in dbt_runner.run(environment, 300, *([*listing, *words] for words in wanted)):
        if said["info"]["name"] == "MainReportVersion":
            found.append(set())
        elif said["info"]["name"] == "PrintEvent":
            found[-1].add(said["info"]["msg"])
    return found


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_what_is_built_is_what_depends_on_the_change_and_the_ledger(
    case: str, listed: dict[str, set[str]]
) -> None:
    assert listed[case] == CASES[case][1] | LEDGER
