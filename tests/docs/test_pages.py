"""Promises about the pages in docs/: what they name is there."""

import inspect
import re
from pathlib import Path

import pytest

from flows.backfill import backfill
from flows.elt import elt
from flows.notify import notify
from flows.transform import transform

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "AGENTS.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
FOLDERS = ("flows/", "blocks/", "dbt_project/", "deployments/", "commands/", "tests/", "docs/")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_test_that_proves_a_promise_is_there(page: Path) -> None:
    """`test_collection.py` sees to it that every file of that name is collected."""
    files = {file.name for file in (REPOSITORY / "tests").rglob("test_*.py")}
    named = set(re.findall(r"\btest_\w+\.py\b", page.read_text()))
    assert named - files == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_or_folder_that_is_named_is_there(page: Path) -> None:
    """Names of files that a reader is to write have a placeholder, or are the shop's."""
    named = {path for path in re.findall(r"`([\w./-]+)`", page.read_text()) if "/" in path}
    ours = {path for path in named if path.startswith(FOLDERS) and "shop" not in path}
    gone = {path for path in ours if not (REPOSITORY / path).exists()}
    assert gone - {"dbt_project/target", "dbt_project/logs"} == set()


@pytest.mark.parametrize("flow", [elt, backfill, transform, notify], ids=lambda flow: flow.name)
def test_the_parameters_of_each_flow_are_listed(flow: object) -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    name = getattr(flow, "name", "")
    (row,) = re.findall(rf"^\| `{name}` \| (.+) \|$", text, flags=re.MULTILINE)
    assert row == ", ".join(f"`{each}`" for each in inspect.signature(flow.fn).parameters)  # type: ignore[attr-defined]
