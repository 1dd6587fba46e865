"""`make up` as a person runs it, on a data folder of the test's own."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

import psutil
import pytest
import requests
from conftest import TREE
from test_run_local import Laptop, api

from commands.up import channels, deploy_first, from_blocks
from deployments.local.processes import StartError
from flows import sources
from flows.extract.auth import Bearer
from flows.extract.selectors import records_at
from flows.source import Resource, Source

__all__ = ["api"]  # of both sources, for the whole module
READY = "Ctrl-C ends all of it."
SECONDS = 240


@dataclass
class Terminal:
    """A program and what it has printed so far; reading it can't hang."""

    program: "subprocess.Popen[str]"
    printed: list[str] = field(default_factory=list)
    _lines: "Queue[str]" = field(default_factory=Queue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.program.stdout is not None
        with self.program.stdout as output:
            for line in output:
                self._lines.put(line.rstrip("\n"))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in the output from now on."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                self.printed.append(self._lines.get(timeout=1))
            except Empty:
                assert self.program.poll() is None, "\n".join(self.printed)
                continue
            if found := re.search(pattern, self.printed[-1]):
                return found
        raise AssertionError(f"{pattern} was not printed:\n" + "\n".join(self.printed))

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        self.program.send_signal(number)
        return self.program.wait(SECONDS)


@dataclass(frozen=True)
class System:
    """A `make up` that is ready."""

    terminal: Terminal
    api_url: str

    def prefect(self, *arguments: str) -> int:
        """Run Prefect's command line as `make up` instructs; returns the exit code."""
        environment = {**os.environ, "PREFECT_API_URL": self.api_url}
        command = [sys.executable, "-m", "prefect", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS)
        return done.returncode

    def run(self, deployment: str, *parameters: str) -> int:
        """Start a run by hand and wait for its end; 0 on success."""
        given = [word for parameter in parameters for word in ("--param", parameter)]
        return self.prefect(
            "deployment", "run", deployment, *given, "--watch", "--watch-interval", "1"
        )


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """One for the whole module: each start finds what the previous one left."""
    return Laptop(tmp_path_factory.mktemp("laptop") / "local")


def start(laptop: Laptop, changed: Path | None = None) -> System:
    """Start it; `changed` is a file that changes during the first deploy."""
    terminal = Terminal(laptop.start("up"))
    try:
        if changed:
            terminal.wait_for("^Deploying what")
            changed.touch()
        api_url = terminal.wait_for(r"PREFECT_API_URL=(\S+)").group(1)
        terminal.wait_for(READY)
    except BaseException:
        terminal.end(signal.SIGTERM)
        raise
    return System(terminal, api_url)


@pytest.fixture(scope="module")
def system(laptop: Laptop) -> Iterator[System]:
    """The first start; the last test that uses it ends it."""
    started = start(laptop)
    yield started
    started.terminal.end(signal.SIGTERM)


def count(laptop: Laptop, table: str) -> int:
    code, printed = laptop.run("psql", "--sql", f"select count(*) from {table}")  # noqa: S608 (ours)
    assert code == 0, printed
    return int(printed)


def test_every_channel_that_is_declared_ends_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As does one that only .env names."""
    monkeypatch.setenv("NOTIFY_PRODUCTION_URL", "https://hooks.example.com")
    declared = """
        blocks: [apprise/email, slack-webhook/slack, apprise/on-call]
        block: custom-webhook/webhook
    """
    receivers = {"NOTIFY_WEBHOOK_URL": "http://here/", "NOTIFY_EMAIL_URL": "mailto://here"}
    assert channels(declared, receivers) == {
        "NOTIFY_EMAIL_URL": "mailto://here",
        "NOTIFY_SLACK_URL": "json://here/",
        "NOTIFY_ON_CALL_URL": "mailto://here",
        "NOTIFY_PRODUCTION_URL": "mailto://here",
        "NOTIFY_WEBHOOK_URL": "http://here/",
    }


def test_a_worker_reads_secrets_from_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They follow a changed .env; the worker's environment does not."""
    orders = Resource("orders", "orders", records_at(""))
    shop = Source("shop", "https://api.example.com/", (orders,), login=Bearer("shop-token"))
    monkeypatch.setattr(sources, "usable", lambda: [shop])
    assert from_blocks() == {"SHOP_TOKEN": ""}


def test_a_file_that_changes_during_the_first_deploy_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server then differs from the files, for which deploying fails."""
    monkeypatch.chdir(tmp_path)
    declared = tmp_path / "prefect.yaml"
    changes = [2, 1]

    def deploy() -> None:
        if changes:
            declared.touch()
            os.utime(declared, ns=(0, changes.pop()))
            raise StartError("the server still differs from the files")

    assert ("prefect.yaml", 2) in deploy_first(deploy)
    said = "Deploying what prefect.yaml declares ..."
    changed = "A file changed meanwhile."
    assert capsys.readouterr().out.splitlines() == [said, changed, said, changed, said]


def test_a_first_deploy_that_fails_by_itself_is_not_repeated() -> None:
    def deploy() -> None:
        raise StartError("no such pool")

    with pytest.raises(StartError, match="no such pool"):
        deploy_first(deploy)


@pytest.mark.long
def test_the_ui_is_where_it_says(system: System) -> None:
    printed = "\n".join(system.terminal.printed)
    found = re.search(r"Prefect server\s+(http://\S+)", printed)
    assert found is not None
    assert requests.get(found.group(1), timeout=10).ok
    assert "prefect deployment run elt/climate" in printed
    ui = requests.get(system.api_url.replace("/api", "/ui-settings"), timeout=10)
    assert ui.json()["api_url"] == system.api_url


@pytest.mark.long
def test_a_run_that_is_started_by_hand_loads_and_builds(laptop: Laptop, system: System) -> None:
    assert system.run("elt/market", 'resources=["shippers"]') == 0
    assert (
        count(laptop, "raw_market.shippers join staging.stg_market__shippers using (shipper_id)")
        == 3
    )


@pytest.mark.long
def test_a_run_that_fails_is_told_by_mail_and_webhook(system: System) -> None:
    """With a link to the run."""
    assert system.run("elt/market", "replay=true", "full_refresh=true") == 1
    told = [system.terminal.wait_for(r"^\d\d:\d\d:\d\d  (mail|webhook)").group(1) for _ in "ab"]
    assert sorted(told) == ["mail", "webhook"]
    link = system.api_url.removesuffix("api")
    assert any(link in line for line in system.terminal.printed if line.startswith("   "))


@pytest.mark.long
def test_a_deploy_finds_this_server_and_its_settings(laptop: Laptop, system: System) -> None:
    """Not the warehouse of .env."""
    command = [sys.executable, "-m", "deployments.deploy", "--plan", f"--home={laptop.home}"]
    plain = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    done = subprocess.run(
        command,
        cwd=TREE,
        env={**plain, "WAREHOUSE_URL": "postgresql://x"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Using the server of `make up`: {system.api_url}" in done.stdout
    assert "Nothing to change." in done.stdout


@pytest.mark.long
def test_what_changes_is_deployed(system: System) -> None:
    (TREE / "prefect.yaml").touch()
    system.terminal.wait_for("^prefect.yaml changed: deploying")
    system.terminal.wait_for("^Deployed.")


@pytest.mark.long
def test_the_folder_is_nobody_elses(laptop: Laptop, system: System) -> None:
    code, printed = laptop.run("run_local")
    assert code == 1
    assert f"{laptop.home} is in use by another" in printed
    assert f"process {system.terminal.program.pid}." in printed


@pytest.mark.long
def test_ctrl_c_ends_everything_a_run_too(laptop: Laptop, system: System) -> None:
    assert system.prefect("deployment", "run", "elt/climate") == 0
    deadline = time.monotonic() + SECONDS
    while not any("prefect.engine" in line for line in laptop.left_running()):
        assert time.monotonic() < deadline, laptop.left_running()
        time.sleep(0.2)
    assert system.terminal.end(signal.SIGINT) == 0
    assert laptop.left_running() == []


@pytest.mark.long
def test_the_next_start_goes_on_and_ends_when_a_part_dies(laptop: Laptop, system: System) -> None:
    again = start(laptop, changed=TREE / "prefect.yaml")
    try:
        again.terminal.wait_for("^prefect.yaml changed: deploying")
        again.terminal.wait_for("^Deployed.")
        assert count(laptop, "staging.stg_market__shippers") == 3
        (server,) = [
            process
            for process in psutil.Process(again.terminal.program.pid).children()
            if {"prefect", "server"} <= set(process.cmdline())
        ]
        server.kill()
        again.terminal.wait_for("FAILED: Prefect server has ended by itself; see .*-server.log")
        assert again.terminal.program.wait(SECONDS) == 1
    finally:
        again.terminal.end(signal.SIGTERM)
    assert laptop.left_running() == []


# A signal that comes as soon as the first thread has started: nobody else would end that thread.
STOPPED_EARLY = """
import signal, sys, threading
begin = threading.Thread.start
def start(thread):
    begin(thread)
    signal.raise_signal(signal.SIGTERM)
threading.Thread.start = start
from commands.up import main
sys.exit(main())
"""


def test_a_start_that_is_stopped_while_a_receiver_starts_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STOPPED_EARLY, f"--home={tmp_path}"]
    done = subprocess.run(command, cwd=TREE, timeout=20)
    assert done.returncode == 128 + signal.SIGTERM


def test_a_start_that_is_stopped_half_way_leaves_no_process(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path / "local")
    terminal = Terminal(laptop.start("up"))
    terminal.wait_for("Starting Postgres")
    assert terminal.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert laptop.left_running() == []


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, printed = Laptop(tmp_path / "local").run("up", f"--port={port}")
    assert code == 1
    assert f"FAILED: Port {port} can't be used: Address already in use." in printed
