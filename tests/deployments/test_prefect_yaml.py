"""prefect.yaml on a real server: it is accepted, a worker runs it, and the marts exist."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from conftest import TREE
from prefect.client.orchestration import SyncPrefectClient, get_client

from blocks.__main__ import save
from deployments.local.processes import child
from deployments.local.stack import Stack
from flows import sources
from tests.deployments.command_line import prefect


@pytest.fixture(scope="module")
def deployed(stack: Stack) -> SyncPrefectClient:
    """A client of the server after `prefect deploy --all`."""
    prefect(stack, "work-pool", "create", "elt", "--type", "process", "--overwrite")
    save(stack.environment)
    prefect(stack, "deploy", "--all")
    return get_client(sync_client=True)


RUN_PULL_STEPS = """
import asyncio, os, sys, yaml
from pathlib import Path
from prefect.deployments.steps.core import run_steps
asyncio.run(run_steps(yaml.safe_load(Path(sys.argv[1]).read_text())["pull"]))
print(os.getcwd())
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A Git repository with one file on its branch `main`, and another one on `next`."""
    folder = tmp_path / "origin"
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    folder.mkdir()
    for branch in ("main", "next"):
        (folder / branch).touch()
        first = [["init", "--quiet"]] if branch == "main" else []
        for command in [*first, ["checkout", "-qb", branch], ["add", "."], ["commit", "-qm", "x"]]:
            subprocess.run([*git, *command], check=True, timeout=30)
    return folder


@pytest.mark.parametrize(
    ("code", "ref", "files"),
    [
        ("", "", {"prefect.yaml", "flows"}),
        pytest.param("{repository}", "", {"main", "next", ".git"}, marks=pytest.mark.long),
        pytest.param("file://{repository}", "", {"main", ".git"}, marks=pytest.mark.long),
        pytest.param(
            "file://{repository}", "next", {"main", "next", ".git"}, marks=pytest.mark.long
        ),
    ],
    ids=["this tree", "a folder", "a clone", "a branch"],
)
def test_a_run_finds_its_code_where_elt_code_says(
    stack: Stack,
    repository: Path,
    tmp_path: Path,
    code: str,
    ref: str,
    files: set[str],
) -> None:
    save(stack.environment)  # the Git token, which a clone needs
    done = subprocess.run(
        [sys.executable, "-c", RUN_PULL_STEPS, str(TREE / "prefect.yaml")],
        cwd=tmp_path,
        env={
            **os.environ,
            **stack.environment,
            "PWD": str(TREE),
            "ELT_CODE": code.format(repository=repository),
            "ELT_REF": ref,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = {entry.name for entry in Path(done.stdout.splitlines()[-1]).iterdir()}
    assert files <= found
    assert code == "" or files == found


def watch(stack: Stack, source: str) -> None:
    """Trigger a run through the API and wait for its end; a run that fails fails the command."""
    prefect(stack, "deployment", "run", f"elt/{source}", "--watch")


@pytest.mark.long
def test_a_worker_runs_what_is_triggered_through_the_api(
    stack: Stack, deployed: SyncPrefectClient, ask: Callable[..., list[tuple]], tmp_path: Path
) -> None:
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "elt"]
    log = tmp_path / "worker.log"
    soon = {**stack.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with child([*worker, "--type", "process"], log, soon), ThreadPoolExecutor() as pool:
        list(pool.map(partial(watch, stack), sources.names()))
    report = ask("select sales_month, revenue from marts.rpt_sales_vs_weather order by 1")
    assert report == ask(
        "select date_trunc('month', order_date::date)::date,"
        " round(sum(unit_price * quantity * (1 - discount)), 2)"
        " from raw_market.orders join raw_market.order_details using (order_id)"
        " where ship_city = 'London' group by 1 order by 1"
    )
    assert len(report) > 12
