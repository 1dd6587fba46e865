"""Which module may import which, read from the code itself."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FLOWS = REPOSITORY / "flows"
OWN_PACKAGES = {"flows", "blocks", "deployments", "commands", "tests", "conftest"}


def code(*folders: str) -> list[Path]:
    files = [file for folder in folders for file in (REPOSITORY / folder).rglob("*.py")]
    assert files
    return files


def imported_by(file: Path) -> set[str]:
    """Every module that the file imports, wherever in it, e.g. `flows.elt`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def imported(*folders: str) -> set[str]:
    return set().union(*map(imported_by, code(*folders)))


def packages(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


@pytest.mark.parametrize(
    ("folder", "known", "forbidden"),
    [
        ("flows/extract", "requests", {"psycopg2", "sqlalchemy", "prefect", "dbt"}),
        ("flows/load", "psycopg2", {"requests", "httpx", "urllib3", "prefect", "dbt"}),
        ("flows/postgres", "psycopg2", {"requests", "httpx", "urllib3", "prefect", "dbt"}),
        ("flows/dbt_build", "psycopg2", {"requests", "httpx", "urllib3", "prefect"}),
        ("flows/sources", "flows", {"psycopg2", "sqlalchemy", "prefect", "dbt"}),
    ],
)
def test_a_layer_does_not_know_the_others_packages(
    folder: str, known: str, forbidden: set[str]
) -> None:
    found = packages(imported(folder))
    assert known in found
    assert found & forbidden == set()


@pytest.mark.parametrize(
    ("folder", "known", "forbidden"),
    [
        ("flows/extract", "flows.source", {"flows.load", "flows.postgres", "flows.sources"}),
        ("flows/load", "flows.source", {"flows.extract", "flows.dbt_build", "flows.sources"}),
        ("flows/dbt_build", "flows.postgres", {"flows.extract", "flows.sources"}),
        ("flows/sources", "flows.source", {"flows.load", "flows.postgres", "flows.dbt_build"}),
    ],
)
def test_a_layer_does_not_know_the_other_layers(
    folder: str, known: str, forbidden: set[str]
) -> None:
    reached = {".".join(module.split(".")[:2]) for module in imported(folder)}
    assert known in reached
    assert reached & forbidden == set()


def test_what_loads_and_builds_share_of_postgres_knows_neither() -> None:
    reached = {module for module in imported("flows/postgres") if module.startswith("flows.")}
    known = {module for module in reached if module.startswith(("flows.errors", "flows.postgres"))}
    assert "flows.errors" in known
    assert reached == known


def test_what_runs_does_not_know_where_it_runs() -> None:
    """The image of a worker holds flows and blocks alone."""
    assert "flows.errors" in imported("blocks")
    assert packages(imported("flows", "blocks")) & {"deployments", "commands", "tests"} == set()


def test_deployed_code_imports_neither_commands_nor_tests() -> None:
    assert packages(imported("deployments")) & {"commands", "tests"} == set()
    served_by_tests = {"record", "prove"}
    files = [file for file in code("commands") if file.parent.name not in served_by_tests]
    assert "tests" not in packages(set().union(*map(imported_by, files)))


def test_redaction_knows_only_the_standard_library() -> None:
    """Every layer imports it, and the errors are made of it."""
    found = packages(imported_by(FLOWS / "redaction.py"))
    assert "re" in found
    assert found <= sys.stdlib_module_names
    assert "flows.redaction" in imported_by(FLOWS / "errors.py")


def test_only_deployments_import_the_flow_elt() -> None:
    assert (FLOWS / "elt.py").exists()
    assert "flows.elt" not in imported("flows", "blocks")


def test_no_module_hides_a_package_that_is_imported() -> None:
    """Prefect puts a flow's folder on `sys.path`: `flows/dbt.py` would be what dbt imports.

    An owner's source may have any name.
    """
    ours = {file.stem for file in code("flows") if file.parent.name != "sources"} - {"__init__"}
    ours |= {folder.name for folder in FLOWS.rglob("*") if folder.is_dir()} - {"__pycache__"}
    theirs = packages(imported("flows", "blocks", "deployments")) - OWN_PACKAGES
    assert {"prefect", "psycopg2", "requests"} <= theirs
    assert ours & theirs == set()


def test_no_module_beside_the_flows_hides_anything_installed() -> None:
    """Imports among the packages are looked up on `sys.path` as well."""
    beside = {file.stem for file in FLOWS.iterdir() if file.suffix == ".py" or file.is_dir()}
    installed = packages_distributions().keys() | sys.stdlib_module_names
    assert {"prefect", "http"} <= installed
    assert (beside - {"__init__", "__pycache__"}) & installed == set()
