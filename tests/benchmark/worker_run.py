"""Where the seconds of a worker's small run go: `python -m tests.benchmark.worker_run`.

Starts a stack, deploys what prefect.yaml declares, and lets a worker run a source's deployment:
first with rows that are new, then with the same rows. Times are those that Prefect, the ledger and
dbt's history have noted, all by one clock.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import psycopg2
import requests
import yaml
from sqlalchemy.engine import URL

from commands.new_source.deployment import FLOW, PATH
from deployments.local import stack
from deployments.local.postgres import libpq
from deployments.local.processes import child, free_port, wait_for
from tests.benchmark.report import Table, spread

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS, RUN_SECONDS = 120, 300
MODULE = [sys.executable, "-m"]
PARTS = (
    "until the worker takes the run",
    "process starts, pull step, imports",
    "until the first load begins",
    "loads",
    "from loads to the build",
    "build",
    "until the run is completed",
)
HEADS = ("part of a run", "rows are new, s", "nothing changed, s")
LOADS = "select min(started_at), max(ended_at) from elt.loads where started_at > %s"
BUILDS = "select min(started_at), max(ended_at) from dbt.builds where started_at > %s"
IMPORTED = ("prefect", "blocks.warehouse", "flows.elt")


@dataclass(frozen=True)
class Run:
    """When each part of a run ended, the moment of the request first; None for a part left out."""

    times: list[datetime | None]

    @property
    def seconds(self) -> list[float | None]:
        """How long each part took."""
        last, found = self.times[0], []
        for ended_at in self.times[1:]:
            found.append(None if ended_at is None or last is None else (ended_at - last))
            last = ended_at or last
        return [None if each is None else each.total_seconds() for each in found]


@contextmanager
def _worker(log: Path, environment: Mapping[str, str]) -> Iterator[float]:
    """Run a worker; yields the seconds until it has looked for runs."""
    port = free_port()
    address = {"PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1", "PREFECT_WORKER_WEBSERVER_PORT": port}
    settings = {**environment, **{name: str(value) for name, value in address.items()}}
    command = [*MODULE, "prefect", "worker", "start", "--pool", "elt", "--with-healthcheck"]
    began_at = time.monotonic()
    with child(command, log, settings) as process:
        wait_for(f"http://127.0.0.1:{port}/health", process, log, START_SECONDS)
        yield time.monotonic() - began_at


def measured(
    api: str, warehouse: URL, deployment: str, process: psutil.Process
) -> tuple[Run, float]:
    """Request a run and wait for its end; returns its times and its processes' CPU seconds."""
    found = _ask("GET", f"{api}/deployments/name/elt/{deployment}")
    began_at, used = datetime.now(UTC), _ended_children(process)
    run_id = _ask("POST", f"{api}/deployments/{found['id']}/create_flow_run", {})["id"]
    due_at = time.monotonic() + RUN_SECONDS
    while (run := _ask("GET", f"{api}/flow_runs/{run_id}"))["state_type"] not in FINAL:
        if time.monotonic() > due_at:
            raise TimeoutError(f"{deployment} has not ended after {RUN_SECONDS} s: {run['state']}")
        time.sleep(0.1)
    if run["state_type"] != "COMPLETED":
        raise RuntimeError(f"{deployment} ended as {run['state']}")
    at = {
        state["type"]: datetime.fromisoformat(state["timestamp"])
        for state in _ask("GET", f"{api}/flow_run_states/?flow_run_id={run_id}")
    }
    with closing(psycopg2.connect(libpq(warehouse))) as opened, opened.cursor() as cursor:
        loaded, built = (_span(cursor, query, began_at) for query in (LOADS, BUILDS))
    times = [began_at, at["PENDING"], at["RUNNING"], *loaded, *built, at["COMPLETED"]]
    while process.children():
        time.sleep(0.1)
    return Run(times), _ended_children(process) - used


FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def _span(cursor: Any, query: str, since: datetime) -> tuple[datetime | None, datetime | None]:
    cursor.execute(query, [since])
    [(began_at, ended_at)] = cursor.fetchall()
    return began_at, ended_at


def _ask(method: str, url: str, body: Mapping[str, Any] | None = None) -> Any:
    answer = requests.request(method, url, json=body, timeout=30)
    answer.raise_for_status()
    return answer.json()


def _ended_children(process: psutil.Process) -> float:
    """Processor seconds of the runs that a worker has waited for."""
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


def table(runs: Mapping[bool, list[Run]]) -> Table:
    """Medians; a dash for a part that no run had."""
    columns = [[run.seconds for run in runs[is_first]] for is_first in (True, False)]
    rows = [
        (part, *(_cell([each[place] for each in column]) for column in columns))
        for place, part in enumerate(PARTS)
    ]
    totals = [[sum(filter(None, each)) for each in column] for column in columns]
    return Table(HEADS, [*rows, ("in all", *map(spread, totals))], 1)


def _cell(found: list[float | None]) -> str:
    there = [seconds for seconds in found if seconds is not None]
    return spread(there) if there else "–"


def import_seconds(module: str) -> float:
    """Processor seconds to import a module in a process of its own, Python's start included."""
    before = os.times()
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, check=True)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def of_a_source(name: str) -> str:
    """The name of a deployment that loads a source; `make remove-example` removes the default."""
    declared = yaml.safe_load((ROOT / PATH).read_text(encoding="utf-8"))["deployments"]
    known = [each["name"] for each in declared if each["entrypoint"] == FLOW]
    if name not in known:
        raise argparse.ArgumentTypeError(
            f"prefect.yaml deploys no source as {name!r}. Name one of: {', '.join(known)}"
        )
    return name


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark.worker_run", description=__doc__
    )
    parser.add_argument("deployment", nargs="?", default="northwind", type=of_a_source)
    parser.add_argument("--runs", type=int, default=3, help="of runs in which nothing changed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="elt-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        scale = 1 if stack.has_sample_api() else None
        with stack.running(folder / "stack", "warehouse", scale) as started:
            started.wait()
            environment = {**os.environ, **started.environment, "PWD": str(ROOT)}
            for command in DEPLOYING:
                _prepare(command, environment)
            api = started.environment["PREFECT_API_URL"]
            with _worker(folder / "worker.log", environment) as worker_seconds:
                process = _of_worker()
                runs: dict[bool, list[Run]] = {True: [], False: []}
                used = []
                for number in range(1 + arguments.runs):
                    run, seconds = measured(api, started.warehouse, arguments.deployment, process)
                    runs[number == 0].append(run)
                    used.append(seconds)
    print(f"A worker is ready after {worker_seconds:.1f} s.\n\n{table(runs).text()}\n")
    print(
        f"Processor seconds of a run: {used[0]:.1f} with new rows, {median(used[1:]):.1f} without"
    )
    for module in IMPORTED:
        print(f"Processor seconds to import {module}: {import_seconds(module):.2f}")


DEPLOYING = (
    ["prefect", "--no-prompt", "work-pool", "create", "elt", "--type", "process"],
    ["blocks"],
    ["prefect", "--no-prompt", "deploy", "--all"],
)


def _prepare(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [*MODULE, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _of_worker() -> psutil.Process:
    """The worker that this process has started."""
    [found] = [each for each in psutil.Process().children() if "worker" in each.cmdline()]
    return found


if __name__ == "__main__":
    main()
