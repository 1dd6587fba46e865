"""Prefect's server restarted, and a worker killed, while a run is at work: nothing is lost.

Tried with CHAOS=full, on services of the test's own.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests
from conftest import TREE, rows, running_with_api

from deployments.local.processes import child
from deployments.local.stack import Stack
from tests.http_servers import Answer, Serve

DEADLINE_SECONDS = 180
SOON = {"collision_strategy": "CANCEL_NEW", "grace_period_seconds": 60}

pytestmark = pytest.mark.long


@dataclass
class System:
    """A server with everything deployed, and an API whose responses can be delayed."""

    stack: Stack
    environment: dict[str, str]
    logs: Path
    is_held: threading.Event
    go_on: threading.Event

    def prefect(self, *arguments: str) -> str:
        """Run Prefect's command line against the server; returns what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            cwd=TREE,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> str:
        """Start a run that loads one resource; returns its id at its first request to the API."""
        self.is_held.clear()
        self.go_on.clear()
        parameters = ['--param=resources=["shippers"]', "--param=transform=false"]
        said = self.prefect("deployment", "run", "elt/market", *parameters)
        assert self.is_held.wait(DEADLINE_SECONDS)
        return next(line.split()[-1] for line in said.splitlines() if "UUID" in line)

    def take(self) -> dict[str, Any]:
        """Begin a run, and take it as a worker does that dies then; returns the run."""
        found = requests.get(f"{self.api}/deployments/name/elt/market", timeout=10).json()
        path = f"{self.api}/deployments/{found['id']}"
        requests.patch(path, json={"concurrency_options": SOON}, timeout=10).raise_for_status()
        run = requests.post(f"{path}/create_flow_run", json={}, timeout=10).json()
        asked = {"state": {"type": "PENDING"}}
        path = f"{self.api}/flow_runs/{run['id']}"
        requests.post(f"{path}/set_state", json=asked, timeout=10).raise_for_status()
        taken: dict[str, Any] = requests.get(path, timeout=10).json()
        return taken

    @contextmanager
    def restarted(self, run_id: str) -> Iterator[None]:
        """Kill the server; another one replaces it."""
        [server] = [
            process
            for process in psutil.Process().children(recursive=True)
            if {"server", "start", str(urlsplit(self.api).port)} <= set(process.cmdline())
        ]
        command, environment = server.cmdline(), server.environ()
        server.send_signal(signal.SIGKILL)
        wait_until(lambda: self.state(run_id) == "")
        with child(command, self.logs / "server.log", environment):
            wait_until(lambda: self.state(run_id) != "")
            yield

    def state(self, run_id: str) -> str:
        """The server's view of a run; nothing while the server is down."""
        try:
            said = requests.get(f"{self.api}/flow_runs/{run_id}", timeout=10).json()
        except requests.ConnectionError:
            return ""
        return str(said["state"]["type"])

    @property
    def api(self) -> str:
        """The address of the server's API."""
        return self.stack.environment["PREFECT_API_URL"]

    def worker(self) -> Any:
        """A worker, for a while."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "elt"]
        return child(command, self.logs / "worker.log", self.environment)


@pytest.fixture
def system(tmp_path: Path, serve: Serve) -> Iterator[System]:
    is_held, go_on = threading.Event(), threading.Event()
    with running_with_api(tmp_path / "home") as stack:
        base = stack.environment["MARKET_BASE_URL"]

        def answer(path: str) -> Answer:
            is_held.set()
            go_on.wait(DEADLINE_SECONDS)
            return Answer(requests.get(base + path.lstrip("/"), timeout=10).content)

        stack.wait()
        environment = {
            **os.environ,
            **stack.environment,
            "MARKET_BASE_URL": serve(answer).url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PWD": str(TREE),
        }
        found = System(stack, environment, tmp_path, is_held, go_on)
        found.prefect("work-pool", "create", "elt", "--type", "process", "--overwrite")
        subprocess.run(
            [sys.executable, "-m", "blocks"],
            cwd=TREE,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=DEADLINE_SECONDS,
        )
        found.prefect("deploy", "--all")
        yield found
        go_on.set()


def wait_until(is_so: Callable[[], bool]) -> None:
    """Ask again and again, until it is so."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def shippers(system: System) -> list[tuple[Any, ...]]:
    """How the loads ended, and how many rows there are."""
    return rows(
        system.stack.warehouse,
        "select (select string_agg(state, ' ' order by load_id) from elt.loads), count(*)"
        " from raw_market.shippers",
    )


def test_a_server_that_is_restarted_in_mid_run_costs_the_run_nothing(system: System) -> None:
    with system.worker():
        run_id = system.start()
        with system.restarted(run_id):
            assert system.state(run_id) == "RUNNING"
            system.go_on.set()
            wait_until(lambda: system.state(run_id) == "COMPLETED")
    assert shippers(system) == [("succeeded", 3)]


def test_a_slot_comes_back_though_its_worker_and_the_server_died(system: System) -> None:
    taken = system.take()
    assert taken["state"]["type"] == "PENDING"
    home = Path(system.stack.environment["PREFECT_HOME"])
    assert [*home.glob("concurrency_leases/*-*.json")]
    with system.restarted(taken["id"]):
        assert "concurrency limit" in system.take()["state"]["message"]
        wait_until(lambda: system.take()["state"]["type"] == "PENDING")


def test_after_a_killed_worker_the_next_one_goes_on(system: System) -> None:
    with system.worker() as worker:
        run_id = system.start()
        psutil.Process(worker.pid).send_signal(signal.SIGKILL)
        worker.wait(DEADLINE_SECONDS)
        system.go_on.set()
        wait_until(lambda: system.state(run_id) in ("COMPLETED", "CRASHED"))
    with system.worker():
        next_id = system.start()
        system.go_on.set()
        wait_until(lambda: system.state(next_id) == "COMPLETED")
    states, count = shippers(system)[0]
    assert count == 3
    assert states.split()[-1] == "succeeded"
