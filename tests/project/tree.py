"""Makes the trees in which tests run commands, workers and dbt: no owner's things are in them."""

import shutil
from collections.abc import Collection
from pathlib import Path

import yaml

from commands.new_source.deployment import FLOW, with_deployment, without_deployments

PROJECT = Path(__file__).parent
REPOSITORY = PROJECT.parents[1]
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
    copy_pipeline(root)
    copy(PROJECT / "sources", root / "flows" / "sources")
    for name in ("models", "snapshots"):
        copy(PROJECT / name, root / "dbt_project" / name)
    text = (root / "prefect.yaml").read_text()
    for name in SOURCES:
        text = with_deployment(text, name)
    (root / "prefect.yaml").write_text(text)
    return root


def copy_pipeline(root: Path, deployed: Collection[str] = ()) -> None:
    """Copy what is the pipeline's; and of the owner's, the deployments of these sources."""
    ignored = shutil.ignore_patterns("__pycache__", "sources", "sample_api")
    for folder in FOLDERS:
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=ignored, dirs_exist_ok=True)
    for name in (*FILES, "flows/sources/__init__.py"):
        copy(REPOSITORY / name, root / name)
    for name in DBT:
        copy(REPOSITORY / "dbt_project" / name, root / "dbt_project" / name)
    text = (REPOSITORY / "prefect.yaml").read_text()
    declared = yaml.safe_load(text)["deployments"]
    owners = {each["parameters"]["source"] for each in declared if each["entrypoint"] == FLOW}
    (root / "prefect.yaml").write_text(without_deployments(text, owners - set(deployed)))


def copy(path: Path, to: Path) -> None:
    """Copy a file, or a folder with all that is in it."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(path, to, ignore=ignored, dirs_exist_ok=True)
    else:
        shutil.copy(path, to)
