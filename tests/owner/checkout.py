"""A copy of this checkout, in which the parts of `make check` run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# The tests that look at what belongs to the owner. All others run the tests' own project.
LOOKING = (
    *("tests/owner", "tests/docs", "tests/test_collection.py"),
    *("tests/deployments/test_checks.py", "tests/sources", "tests/dbt_project"),
)
SQL = ("dbt_project/models", "dbt_project/macros", "dbt_project/tests")
LINTERS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("sqlfluff", "lint", "-q", "--disable-progress-bar", *SQL),
)
TYPES = ("mypy",)


def copy_checkout(to: Path) -> Path:
    """Copy the files that git has or would add, and commit them."""
    listed = run(REPOSITORY, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (REPOSITORY / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, to / name)
    run(to, "git", "init", "--quiet")
    commit(to)
    return to


def commit(root: Path) -> None:
    """Commit everything there is."""
    run(root, "git", "add", "--all")
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    run(root, "git", *who, "commit", "--quiet", "--allow-empty", "--message", "As it is")


def run(root: Path, *command: str) -> str:
    """Run a program of this environment in a folder; returns what it prints if it succeeds."""
    beside = Path(sys.executable).with_name(command[0])
    program = str(beside) if beside.exists() else command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=root, env=_environment(root), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_tests(root: Path, *paths: str) -> str:
    """Run tests there; those that would copy the checkout again are left out."""
    quiet = ("-p", "no:cacheprovider", "--override-ini", "addopts=", "-q")
    others = ("--deselect", "tests/owner/test_added.py")
    return run(root, "python", "-m", "pytest", *quiet, *others, *paths)


def _environment(root: Path) -> dict[str, str]:
    """Without what the tests have set for services of their own."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "DBT_", "PYTEST_", "WAREHOUSE_", "CHAOS"))
    }
    return {**plain, "PYTHONPATH": str(root)}
