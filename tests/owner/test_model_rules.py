"""The rules every dbt model keeps, whoever wrote it; needs no dbt and no Postgres."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.owner.checkout import run

PROJECT_FOLDER = Path(__file__).parents[2] / "dbt_project"
MODELS_FOLDER = PROJECT_FOLDER / "models"
SNAPSHOTS_FOLDER = PROJECT_FOLDER / "snapshots"
SQL_FILES = sorted(MODELS_FOLDER.rglob("*.sql"))

ENDS_WITH_GRAIN = re.compile(r"\bone row per [^.]+\.$")
READS_MODEL = re.compile(r"""\bref\(\s*['"](\w+)['"]""")
READS_SOURCE = re.compile(r"""\bsource\(\s*['"](\w+)['"]\s*,\s*['"](\w+)['"]""")
CALLS_SOURCE = re.compile(r"\bsource\s*\(")
LISTS_ITS_COLUMNS = re.compile(r"final as \(\s+select\s+\w")
KEYLESS = """
from flows import sources
for source in sources.usable():
    for resource in source.resources:
        if not resource.key:
            print(f"stg_{source.name}__{resource.name}")
"""
NAME_BY_LAYER = {
    "staging": r"stg_{folder}__[a-z0-9_]+",
    "intermediate": r"int_[a-z0-9_]+__[a-z0-9_]+",
    "marts": r"(fct|dim|rpt)_[a-z0-9_]+",
}


def layer(sql_file: Path) -> str:
    """The folder right below models/: staging, intermediate or marts."""
    return sql_file.relative_to(MODELS_FOLDER).parts[0]


def read_properties(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The YAML properties of each kind of node, such as `models`, by the node's name."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for yaml_file in folder.rglob("*.yml"):
        for kind, items in yaml.safe_load(yaml_file.read_text()).items():
            if isinstance(items, list):
                found[kind] |= {item["name"]: item for item in items}
    return found


def names_of_tests(item: dict[str, Any]) -> set[str]:
    """The tests of a model or column; a test with arguments is a mapping with one key."""
    tests = item.get("data_tests", [])
    return {test if isinstance(test, str) else next(iter(test)) for test in tests}


def has_tested_key(model: dict[str, Any]) -> bool:
    """Whether one column is unique and never null, or a combination of columns is."""
    return "unique_combination" in names_of_tests(model) or any(
        names_of_tests(column) >= {"unique", "not_null"} for column in model.get("columns", [])
    )


OF_MODELS = read_properties(MODELS_FOLDER)
PROPERTIES, SOURCES = OF_MODELS["models"], OF_MODELS["sources"]
EXPOSURES = OF_MODELS["exposures"]
SNAPSHOTS = read_properties(SNAPSHOTS_FOLDER)["snapshots"]
TABLES = {f"{name}.{table['name']}" for name, each in SOURCES.items() for table in each["tables"]}
SEEDS = {file.stem for file in (PROJECT_FOLDER / "seeds").rglob("*.csv")}
NODES = {*(file.stem for file in SQL_FILES), *SNAPSHOTS, *SEEDS}
MARTS = [file for file in SQL_FILES if layer(file) == "marts"]

every_model = pytest.mark.parametrize("sql_file", SQL_FILES, ids=lambda file: file.stem)
every_mart = pytest.mark.parametrize("sql_file", MARTS, ids=lambda file: file.stem)


def test_there_are_models_and_all_of_them_are_in_a_layer() -> None:
    """Without this, the rules below would hold for an empty folder."""
    layers = {layer(file) for file in SQL_FILES}
    assert layers >= {"staging", "marts"}, "models/staging/elt and marts/operations belong here"
    assert layers <= set(NAME_BY_LAYER), f"move the models of {layers - set(NAME_BY_LAYER)}"


def test_the_models_and_their_properties_are_the_same() -> None:
    models = {file.stem for file in SQL_FILES}
    assert models - PROPERTIES.keys() == set(), "describe them in a _<folder>__models.yml"
    assert PROPERTIES.keys() - models == set(), "described, but there is no such model"


@every_model
def test_its_name_tells_its_layer(sql_file: Path) -> None:
    pattern = NAME_BY_LAYER[layer(sql_file)].format(folder=sql_file.parent.name)
    assert re.fullmatch(pattern, sql_file.stem), f"rename it to match {pattern}"


@every_model
def test_its_description_ends_with_the_grain(sql_file: Path) -> None:
    description = PROPERTIES[sql_file.stem].get("description", "")
    assert ENDS_WITH_GRAIN.search(description.strip()), (
        f"{sql_file.stem}: end its description with what a row is: '..., one row per order.'"
    )


@pytest.fixture(scope="module")
def keyless() -> set[str]:
    """The staging models of resources without a key; from a process that knows these sources."""
    return set(run(PROJECT_FOLDER.parent, "python", "-c", KEYLESS).split())


@every_model
def test_its_key_is_tested(sql_file: Path, keyless: set[str]) -> None:
    assert sql_file.stem in keyless or has_tested_key(PROPERTIES[sql_file.stem]), (
        f"{sql_file.stem}: give its key `data_tests: [not_null, unique]`, or the model "
        "`unique_combination` with the columns of the key"
    )


@every_model
def test_it_calls_source_only_in_staging(sql_file: Path) -> None:
    calls_source = CALLS_SOURCE.search(sql_file.read_text()) is not None
    assert calls_source == (layer(sql_file) == "staging"), (
        f"{sql_file.stem}: a staging model reads source(), the others ref()"
    )


@every_model
def test_what_it_reads_is_there(sql_file: Path) -> None:
    text = sql_file.read_text()
    unknown = set(READS_MODEL.findall(text)) - NODES
    assert not unknown, f"{sql_file.stem}: there is no model {unknown}: write it, or read another"
    missing = {f"{source}.{table}" for source, table in READS_SOURCE.findall(text)} - TABLES
    assert not missing, f"{sql_file.stem}: declare {missing} in a __sources.yml"


@every_model
def test_it_selects_everything_from_final_last(sql_file: Path) -> None:
    assert sql_file.read_text().endswith("\n\nselect * from final\n"), (
        f"{sql_file.stem}: its last line reads all of `final`, after a blank line"
    )


def test_all_snapshots_are_declared_in_yaml() -> None:
    assert list(SNAPSHOTS_FOLDER.rglob("*.sql")) == [], "declare them in a .yml beside it"


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_a_snapshot_keeps_the_rules_of_models(name: str) -> None:
    """And may have one present version of each thing only."""
    snapshot = SNAPSHOTS[name]
    assert re.fullmatch(r"snp_[a-z0-9_]+__[a-z0-9_]+", name)
    assert ENDS_WITH_GRAIN.search(snapshot["description"].strip())
    assert has_tested_key(snapshot)
    key = next(c for c in snapshot["columns"] if c["name"] == snapshot["config"]["unique_key"])
    (unique,) = [test["unique"] for test in key["data_tests"] if "unique" in test]
    assert unique["config"] == {"where": "dbt_valid_to is null"}


def test_the_contract_is_enforced_for_all_marts() -> None:
    project = yaml.safe_load((PROJECT_FOLDER / "dbt_project.yml").read_text())
    assert project["models"]["warehouse"]["marts"]["+contract"] == {"enforced": True}


@every_mart
def test_it_does_not_opt_out_of_the_contract(sql_file: Path) -> None:
    assert "contract" not in PROPERTIES[sql_file.stem].get("config", {})
    assert "contract" not in sql_file.read_text()


@every_mart
def test_it_lists_its_columns(sql_file: Path) -> None:
    columns = PROPERTIES[sql_file.stem].get("columns")
    assert columns, f"{sql_file.stem}: list its columns"
    for column in columns:
        missing = {"name", "data_type", "description"} - column.keys()
        assert not missing, f"{sql_file.stem}.{column.get('name')}: write its {missing}"
    assert LISTS_ITS_COLUMNS.search(sql_file.read_text()), (
        f"{sql_file.stem}: list its columns in `final as (select ...)`, no star"
    )


def test_every_report_has_a_reader_and_readers_read_marts_alone() -> None:
    marts = {file.stem for file in MARTS}
    assert EXPOSURES
    read = {
        name
        for exposure in EXPOSURES.values()
        for reference in exposure["depends_on"]
        for name in re.findall(r"ref\('(\w+)'\)", reference)
    }
    assert read <= marts, f"an exposure depends on {read - marts}, which is no mart"
    reports = {name for name in marts if name.startswith("rpt_")}
    assert reports <= read, f"say who reads {reports - read}: add an exposure"
    assert all(exposure["description"] for exposure in EXPOSURES.values())
