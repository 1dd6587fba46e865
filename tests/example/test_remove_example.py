"""`make remove-example` leaves a repository that works, and that tells of no example."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands.remove_example import DBT, PARTS, SOURCES, remove
from flows.errors import ConfigurationError
from tests.example.example_tree import make_example
from tests.owner.checkout import (
    LINTERS,
    LOOKING,
    REPOSITORY,
    TYPES,
    commit,
    copy_checkout,
    run,
    run_tests,
)

WORDS = ("northwind", "open_meteo")
FOLDERS = (
    *("tests/example", "deployments/local/sample_api"),
    *("dbt_project/models/marts/sales", "dbt_project/models/marts/weather"),
)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The pipeline and the example, committed."""
    root = make_example(tmp_path / "clone")
    run(root, "git", "init", "--quiet")
    commit(root)
    return root


def test_the_list_has_every_file_in_the_folders_of_the_example() -> None:
    """An owner's source may be beside it: `make remove-example` deletes what is listed alone."""
    listed = {file for part in PARTS for file in files_below(part)}
    folders = (*FOLDERS, *(f"{DBT}/models/staging/{name}" for name in SOURCES))
    there = {file for folder in folders for file in files_below(Path(folder))}
    assert len(there) > len(folders)
    assert there - listed == set(), "list it, or move what is yours to a folder of your own"


def files_below(path: Path) -> set[Path]:
    found = [REPOSITORY / path, *(REPOSITORY / path).rglob("*")]
    return {file for file in found if file.is_file() and "__pycache__" not in file.parts}


def test_it_says_what_it_removed_and_what_is_next(clone: Path) -> None:
    before = (clone / "prefect.yaml").read_text()
    said = run(REPOSITORY, "python", "-m", "commands.remove_example", f"--root={clone}")
    assert said.startswith("Removed:\n  2 of flows/sources\n")
    assert "its deployments in prefect.yaml" in said
    assert said.rstrip().splitlines()[-1].strip().startswith("make new-source NAME=shop URL=")
    assert all(not (clone / part).exists() for part in PARTS)
    assert not any((clone / folder).exists() for folder in FOLDERS), "not even empty"
    left = [*clone.glob("flows/sources/*.py"), *clone.glob("dbt_project/models/staging/*")]
    assert {path.name for path in left} == {"__init__.py", "elt"}
    assert {path.name for path in clone.glob("dbt_project/models/marts/*")} == {"operations"}
    declared = (clone / "prefect.yaml").read_text()
    assert [word for word in WORDS if word in declared] == []
    assert set(declared.splitlines()) <= set(before.splitlines())
    assert "- name: transform" in declared
    commit(clone)
    with pytest.raises(ConfigurationError, match="no example here any more"):
        remove(clone)


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("marts/shop/fct_mine.sql", "select * from {{ ref('dim_customers') }}", "reads dim_cust"),
        ("marts/shop/fct_mine.sql", "{{ source('northwind', 'orders') }}", "reads northwind of"),
        ("staging/shop/a.sql", "from {{ ref(\n 'snp_northwind__products') }}", "reads snp_north"),
        ("intermediate/int_mine.sql", "select 1", "Move it and its description"),
        ("marts/sales/fct_mine.sql", "select 1", "Move it and its description"),
        ("staging/northwind/stg_northwind__b.sql", "select 1", "Move it and its description"),
    ],
)
def test_what_the_owners_models_need_is_not_removed(
    clone: Path, path: str, text: str, said: str
) -> None:
    file = clone / DBT / "models" / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="Commit these changes first"):
        remove(clone)
    commit(clone)
    with pytest.raises(ConfigurationError, match=said):
        remove(clone)
    assert run(clone, "git", "status", "--porcelain") == ""


@pytest.mark.long
def test_without_the_example_everything_that_looks_for_it_passes(tmp_path: Path) -> None:
    root = copy_checkout(tmp_path / "repository")
    for folder in (root / "flows/sources", root / DBT, *root.glob("tests/sources/*/")):
        shutil.rmtree(folder)
    commit(make_example(root))
    run(root, "python", "-m", "commands.remove_example", f"--root={root}")
    for command in (*LINTERS, TYPES):
        run(root, *command)
    assert " passed" in run_tests(root, *LOOKING)
    done = subprocess.run(
        [sys.executable, "-m", "commands.run_local"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "make new-source NAME=shop" in done.stdout
