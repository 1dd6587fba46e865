"""Promises about the pages in docs/: what they name is there."""

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
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
PROMISING = [
    REPOSITORY / "docs" / f"{name}.md" for name in ("loading", "sources", "transform", "deploy")
]
HEAD = "| promise | proof |"
# `file.py`, `file.py::test`, or `::test` in the file that the cell named last.
TEST = re.compile(r"((?:[\w/]+/)?test_\w+\.py)?(?:::(test_\w+))?")
TEST_FILES = list((REPOSITORY / "tests").rglob("test_*.py"))
FOLDERS = ("flows/", "blocks/", "dbt_project/", "deployments/", "commands/", "tests/", "docs/")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_test_that_proves_a_promise_is_there(page: Path) -> None:
    """`test_collection.py` sees to it that every file of that name is collected."""
    files = {file.name for file in (REPOSITORY / "tests").rglob("test_*.py")}
    named = set(re.findall(r"\btest_\w+\.py\b", page.read_text()))
    assert named - files == set()


def promises(page: Path) -> Iterator[tuple[str, str]]:
    """The rows of the page's tables of promises: each promise, and its proof."""
    is_table = False
    for line in page.read_text().splitlines():
        is_table = line == HEAD or (is_table and line.startswith("|"))
        if is_table and line not in (HEAD, "|---|---|"):
            _, promise, proof, _ = line.split("|")
            yield promise.strip(), proof.strip()


def proofs(cell: str) -> Iterator[tuple[str, str]]:
    """The folders, files and tests that a cell names: each path, and its test or nothing."""
    file = ""
    for code in re.findall(r"`([^`]+)`", cell):
        if code.startswith("tests/") and code.endswith("/"):
            yield code, ""
        elif named := TEST.fullmatch(code):
            file = named[1] or file
            yield file, named[2] or ""


def is_collected(path: str, test: str) -> bool:
    """True if a folder has tests, or if there is one such file, and the named test is in it.

    `test_collection.py` checks that pytest collects the files.
    """
    if path.endswith("/"):
        return any((REPOSITORY / path).rglob("test_*.py"))
    if not path:
        return False
    files = [file for file in TEST_FILES if file.match(path)]
    return len(files) == 1 and (not test or test in names_in(files[0]))


@cache
def names_in(file: Path) -> set[str]:
    """The names of the tests in a file."""
    nodes = ast.parse(file.read_text()).body
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("page", PROMISING, ids=lambda page: page.name)
def test_each_promise_names_tests_that_are_collected(page: Path) -> None:
    rows = list(promises(page))
    assert len(rows) > 10
    unproved = [promise for promise, cell in rows if not list(proofs(cell))]
    named = {proof for _, cell in rows for proof in proofs(cell)}
    assert unproved == []
    assert [proof for proof in sorted(named) if not is_collected(*proof)] == []


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
