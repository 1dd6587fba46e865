"""Makes the tree of the tests' project, in which commands, workers and dbt run."""

import shutil
from pathlib import Path

import yaml

from commands.new_source.deployment import FLOW, with_deployment, without_deployments

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
FOLDERS = ("blocks", "commands", "deployments", "flows")
FILES = ("Makefile", "pyproject.toml")
# What belongs to the pipeline; all other models, tests and snapshots belong to its owner.
DBT = (
    *("dbt_project.yml", "profiles.yml", "macros", "tests/generic"),
    *("models/staging/elt", "models/marts/operations"),
    *("tests/loads_account_for_every_record.sql", "tests/rpt_load_history_has_every_load.sql"),
)
SOURCES = ("climate", "market")


def make_tree(root: Path) -> Path:
    """Write the pipeline, with the sources, models and deployments of the tests, to a folder."""
    ignored = shutil.ignore_patterns("__pycache__", "sources", "sample_api")
    for folder in FOLDERS:
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=ignored)
    shutil.copytree(HERE / "sources", root / "flows" / "sources")
    shutil.copy(REPOSITORY / "flows" / "sources" / "__init__.py", root / "flows" / "sources")
    for name in FILES:
        shutil.copy(REPOSITORY / name, root / name)
    for name in DBT:
        _copy(REPOSITORY / "dbt_project" / name, root / "dbt_project" / name)
    for name in ("models", "snapshots"):
        shutil.copytree(HERE / name, root / "dbt_project" / name, dirs_exist_ok=True)
    (root / "prefect.yaml").write_text(_with_own_deployments())
    return root


def _copy(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, to)
    else:
        shutil.copy(path, to)


def _with_own_deployments() -> str:
    text = (REPOSITORY / "prefect.yaml").read_text()
    declared = yaml.safe_load(text)["deployments"]
    owners = [each["parameters"]["source"] for each in declared if each["entrypoint"] == FLOW]
    text = without_deployments(text, owners)
    for name in SOURCES:
        text = with_deployment(text, name)
    return text
