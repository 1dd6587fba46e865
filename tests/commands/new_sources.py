"""Runs `make new-source`, and what it writes, in a copy of the repository."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from commands.new_source import __main__ as command
from commands.new_source.draft_files import present_source
from deployments.local.postgres import libpq
from flows.source import Source
from tests.deployments.command_line import run_in
from tests.http_servers import Answer, Server

ROOT = Path(__file__).resolve().parents[2]
Serve = Callable[[Callable[[str], Answer]], Server]

DECLARED = """
import json, sys
from flows import sources

declared = {}
for name in sys.argv[1:]:
    source = sources.find(name)
    (resource,) = source.resources
    declared[name] = {
        "base_url": source.base_url,
        "path": resource.path,
        "params": dict(resource.params),
        "key": resource.key,
        "records": repr(resource.records),
        "records_path": getattr(resource.records, "path", None),
        "login": repr(source.login),
        "secret": getattr(source.login, "secret", None),
    }
print(json.dumps(declared))
"""
LOAD = """
import sys, psycopg2
from functools import partial
from flows import sources
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.load.loader import load
from flows.load.partitions import partitions_of

connection = psycopg2.connect(sys.argv[1])
for name in sys.argv[2:]:
    source = sources.find(name)
    with Client(source) as client:
        for resource in source.resources:
            for each in list(partitions_of(connection, name, resource)):
                pages = partial(read_pages, client, source, resource, each)
                load(connection, name, resource, each, pages)
connection.close()
"""


def new_source(root: Path, url: str, **options: str) -> "subprocess.CompletedProcess[str]":
    """Run the command, for a source called `tracker` by default; it may fail.

    In this process: Python takes a second to import what the command needs.
    """
    printed, words = io.StringIO(), _words(root, url, options)
    with redirect_stdout(printed):
        code = command.main(words)
    return subprocess.CompletedProcess(words, code, printed.getvalue())


def new_source_in(
    root: Path, url: str, program: str, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """Run a program that runs the command, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments, *_words(root, url, {})],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def _words(root: Path, url: str, options: dict[str, str]) -> Sequence[str]:
    arguments = {"name": "tracker", "url": url, "root": str(root)} | options
    return [f"--{name}={value}" for name, value in arguments.items()]


def written_source(root: Path, name: str = "tracker") -> Source:
    """What a source's module declares."""
    found = present_source(root, name)
    assert found is not None
    return found


def declared(root: Path, *names: str) -> Any:
    """What the sources' modules declare, by way of JSON."""
    return json.loads(run_in(root, "-c", DECLARED, *names))


def load(root: Path, database: URL, *names: str) -> None:
    """Load each source's resources, in their order."""
    run_in(root, "-c", LOAD, libpq(database), *names)


def dbt_build(root: Path, database: URL, selected: str) -> str:
    """Build and test models with dbt, and return what it prints."""
    environment = {
        "WAREHOUSE_HOST": str(database.host or database.query["host"]),
        "WAREHOUSE_PORT": str(database.port or 5432),
        "WAREHOUSE_USER": str(database.username),
        "WAREHOUSE_DATABASE": str(database.database),
        "DBT_ENV_SECRET_WAREHOUSE_PASSWORD": database.password or "",
    }
    folder = ["--project-dir", "dbt_project", "--profiles-dir", "dbt_project"]
    dbt = ["-c", "from dbt.cli.main import cli; cli()", "build", "--select", selected]
    return run_in(root, *dbt, *folder, **environment)


def bare_repository(to: Path) -> Path:
    """The folders that `make new-source` writes to, empty."""
    root = to / "repository"
    for folder in ("flows/sources", "dbt_project/models/staging"):
        (root / folder).mkdir(parents=True)
    return root
