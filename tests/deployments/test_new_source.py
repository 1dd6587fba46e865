"""`make new-source` and `make preview`: from an API's address to a tested staging view."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from conftest import Answer, Server
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq

ROOT = Path(__file__).resolve().parents[2]
Serve = Callable[[Callable[[str], Answer]], Server]

LOAD_ALL = """
import sys, psycopg2
from functools import partial
from flows import sources
from flows.extract.client import Client
from flows.extract.pages import read_pages
from flows.load.load import load

source = sources.find("tracker")
(resource,) = source.resources
(partition,) = resource.partitions
connection = psycopg2.connect(sys.argv[1])
with Client(source) as client:
    load(connection, "tracker", resource, partition,
         partial(read_pages, client, source, resource, partition))
connection.close()
"""


def issue(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "title": f"Issue {number}: # of it",
        "order": number,
        "totalPrice": number + 0.5,
        "open": number > 1,
        "createdAt": f"2024-01-0{number}T10:00:00Z",
        "due: on": "2024-02-01" if number > 1 else None,
        "user": {"login": "a"},
    }


def tracker(path: str) -> Answer:
    """Two pages of issues, linked by the Link header."""
    second = "page=2" in path
    body = json.dumps([issue(n) for n in ((4,) if second else (1, 2, 3))]).encode()
    link = {} if second else {"Link": f'<{path}&page=2>; rel="next", </>; rel="first"'}
    return Answer(body, headers={"Content-Type": "application/json"} | link)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of the test's own."""
    shutil.copytree(ROOT / "flows", tmp_path / "flows")
    shutil.copytree(
        ROOT / "dbt_project", tmp_path / "dbt_project", ignore=shutil.ignore_patterns("target")
    )
    return tmp_path


def new_source(root: Path, url: str, **options: str) -> subprocess.CompletedProcess[str]:
    arguments = {"name": "tracker", "url": url, "root": str(root)} | options
    return subprocess.run(
        [sys.executable, "-m", "deployments.local.new_source"]
        + [word for name, value in arguments.items() for word in (f"--{name}", value)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def run(root: Path, *command: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_an_address_to_a_tested_staging_view(serve: Serve, root: Path, database: URL) -> None:
    made = new_source(root, f"{serve(tracker).url}v1/issues?state=all")
    assert made.returncode == 0, made.stdout + made.stderr
    assert "NOT FOUND" not in made.stdout
    run(root, "-c", LOAD_ALL, libpq(database))
    environment = {
        "WAREHOUSE_HOST": str(database.host or database.query["host"]),
        "WAREHOUSE_PORT": str(database.port or 5432),
        "WAREHOUSE_USER": str(database.username),
        "WAREHOUSE_DATABASE": str(database.database),
        "DBT_ENV_SECRET_WAREHOUSE_PASSWORD": database.password or "",
    }
    folder = ["--project-dir", "dbt_project", "--profiles-dir", "dbt_project"]
    dbt = ["-c", "from dbt.cli.main import cli; cli()", "build", "--select", "source:tracker+"]
    assert "PASS=5" in run(root, *dbt, *folder, **environment)
    with closing(psycopg2.connect(libpq(database))) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select issue_id, issue_order, total_price, created_at::text, due_on::text"
            " from staging.stg_tracker__issues order by 1"
        )
        assert cursor.fetchall()[1] == (2, 2, 2.5, "2024-01-02 10:00:00+00", "2024-02-01")
        assert cursor.rowcount == 4


def test_what_is_written_keeps_the_rules(serve: Serve, root: Path) -> None:
    """sqlfluff's, ruff's, and the description of every column of both tables."""
    new_source(root, f"{serve(tracker).url}v1/issues?state=all")
    staging = root / "dbt_project" / "models" / "staging" / "tracker"
    for checker in (
        ["sqlfluff", "lint", "--config", str(ROOT / "pyproject.toml"), str(staging)],
        ["ruff", "check", "--config", str(ROOT / "pyproject.toml"), "flows/sources/tracker.py"],
        ["ruff", "format", "--check", "--line-length=100", "flows/sources/tracker.py"],
    ):
        run(root, "-m", *checker)
    [source] = yaml.safe_load((staging / "_tracker__sources.yml").read_text())["sources"]
    names = [column["name"] for column in source["tables"][0]["columns"]]
    assert {"id", "order", "total_price", "due_on", "_load_id"} < set(names)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"name": "My API"}, "lower case letters", id="a name no schema can have"),
        pytest.param({"key": "uuid"}, "there is no 'uuid'. There are: id, title", id="wrong key"),
        pytest.param({"records": "data"}, "at 'data', but there is list", id="wrong path"),
        pytest.param({"url": "ftp://x/y"}, "must name one resource", id="no HTTP address"),
        pytest.param({"url": "http://127.0.0.1:9/"}, "must name one resource", id="no resource"),
        pytest.param({"login": "token"}, "must be bearer:SECRET", id="unknown login"),
        pytest.param({"login": "bearer:no-such"}, "set NO_SUCH", id="a secret that is missing"),
        pytest.param({"name": "northwind"}, "is there already", id="a source there is"),
    ],
)
def test_what_can_not_be_is_said_and_nothing_is_written(
    serve: Serve, root: Path, options: dict[str, str], said: str
) -> None:
    before = sorted(root.rglob("*"))
    made = new_source(root, **{"url": f"{serve(tracker).url}v1/issues?a=b"} | options)
    assert made.returncode == 1
    assert made.stdout.startswith("FAILED: ")
    assert said in made.stdout
    assert sorted(root.rglob("*")) == before


def test_a_preview_shows_columns_and_records_and_writes_nothing(serve: Serve, root: Path) -> None:
    new_source(root, f"{serve(tracker).url}v1/issues?state=all")
    before = sorted(root.rglob("*.yml"))
    shutil.copytree(ROOT / "deployments", root / "deployments")
    shown = run(root, "-m", "deployments.local.preview", "--source", "tracker")
    assert "3 records; next: http://" in shown
    assert "  total_price                     double precision    1.5\n" in shown
    assert '"title": "Issue 1: # of it"' in shown
    assert sorted(root.rglob("*.yml")) == before
