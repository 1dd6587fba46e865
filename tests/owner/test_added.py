"""A source that `make new-source` writes leaves `make check` as it was."""

import json
import shutil
from pathlib import Path

import pytest

from commands.new_source.__main__ import make_draft
from commands.new_source.draft_files import write
from tests.http_servers import Answer, Serve
from tests.owner.checkout import (
    LINTERS,
    LOOKING,
    REPOSITORY,
    TYPES,
    copy_checkout,
    run,
    run_tests,
)
from tests.project.tree import FOLDERS

GENERATED = shutil.ignore_patterns("__pycache__", "target", "logs")
RULES = ("tests/owner/test_every_source.py", "tests/owner/test_model_rules.py")

ROWS = [
    {"id": 1, "title": "a", "price": 9.5, "paid": True, "made_at": "2026-01-02T03:04:05Z"},
    {"id": 2, "title": "b", "price": 1.0, "paid": None, "made_at": "2026-01-03T03:04:05Z"},
]


def test_a_new_source_keeps_the_owners_rules_and_is_deployed(serve: Serve, tmp_path: Path) -> None:
    """Its module, models and deployment are as the checks of the owner's things want them."""
    for name in (*FOLDERS, "dbt_project", "tests/owner"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=GENERATED)
    for name in ("prefect.yaml", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    add_source(serve, tmp_path)
    assert " passed" in run_tests(tmp_path, "--noconftest", *RULES)


@pytest.mark.long
def test_everything_that_looks_at_a_new_source_accepts_it(serve: Serve, tmp_path: Path) -> None:
    root = copy_checkout(tmp_path / "repository")
    add_source(serve, root)
    for command in (*LINTERS, TYPES):
        run(root, *command)
    assert " passed" in run_tests(root, *LOOKING)


def add_source(serve: Serve, root: Path) -> None:
    """Add sources as `make new-source` does: one whose records have a key, and one without."""
    for name, rows in (("added_by_a_test", ROWS), ("added_without_a_key", [{"title": "a"}] * 2)):
        url = f"{serve(lambda _, rows=rows: Answer(json.dumps(rows).encode())).url}v1/trackers"
        write([make_draft(name, url, "", "", "")], root)
