"""Fixtures: a small dbt project of the test's own, and a raw table `raw_shop.visits` for it."""

import shutil
from pathlib import Path

import pytest

from flows.dbt_build import dbt_project
from flows.elt import elt
from tests.flows.small_dbt_project import SOURCE, Ask, Write


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where dbt keeps what it parsed; the real project has a folder of its own."""
    return tmp_path_factory.mktemp("target")


@pytest.fixture
def write(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a file to a dbt project with the real project's settings but no models."""
    copy = tmp_path / "dbt_project"
    for name in ("dbt_project.yml", "profiles.yml", "macros"):
        kind = shutil.copytree if (dbt_project.PROJECT / name).is_dir() else shutil.copy
        copy.mkdir(exist_ok=True)
        kind(dbt_project.PROJECT / name, copy / name)
    monkeypatch.setattr(dbt_project, "PROJECT", copy)
    monkeypatch.setenv("DBT_TARGET_PATH", str(target))

    def write(name: str, text: str) -> None:
        file = copy / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return write


@pytest.fixture
def shop(ask: Ask, write: Write) -> None:
    """A raw table with a visit a day, and something else that is loaded, so that builds begin."""
    write("models/sources.yml", SOURCE)
    assert elt(
        source="market", resources=("shippers",), transform=False, return_state=True
    ).is_completed()
    ask("create schema raw_shop")
    ask("create table raw_shop.visits (id int, loaded_at timestamptz)")
