"""Child processes end with all that they started, and starts can't be interrupted."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deployments.local.processes import (
    Service,
    StartError,
    child,
    free_port,
    uninterrupted,
    wait_for,
)
from tests.http_servers import Answer, Serve

# Starts a process in its own group, as a worker does for a flow run, and prints its id.
PARENT = """
import subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", {program!r}], start_new_session=True)
print(other.pid, flush=True)
time.sleep(600)
"""
SLEEPS = "import time; time.sleep(600)"
IGNORES = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"


def grandchild(log: Path) -> psutil.Process:
    """The process that the command in PARENT started, as soon as it has printed its id."""
    while not (said := log.read_text()).endswith("\n"):
        pass
    return psutil.Process(int(said))


@pytest.mark.parametrize("dies_first", [False, True])
def test_what_a_child_started_in_another_group_ends_with_it(
    tmp_path: Path, dies_first: bool
) -> None:
    """Also if the child was killed, so that its processes have no parent any more."""
    log = tmp_path / "log"
    with child([sys.executable, "-c", PARENT.format(program=SLEEPS)], log) as process:
        other = grandchild(log)
        if dies_first:
            process.kill()
            process.wait()
        assert other.status() != psutil.STATUS_ZOMBIE
    assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE


def test_what_does_not_want_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.local.processes.STOP_SECONDS", 0.5)
    log = tmp_path / "log"
    with child([sys.executable, "-c", PARENT.format(program=IGNORES)], log):
        other = grandchild(log)
    assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Python's own handler, which a process started in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_a_signal_waits_until_what_must_not_be_half_done_is_done() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_has_ended_by_itself_is_named_with_its_log(tmp_path: Path) -> None:
    Service("worker", tmp_path / "worker.log", lambda: True).check()
    with pytest.raises(StartError, match=r"^worker has ended by itself; see .*worker\.log\.$"):
        Service("worker", tmp_path / "worker.log", lambda: False).check()


def test_a_response_of_another_program_on_the_port_does_not_count(
    serve: Serve, tmp_path: Path
) -> None:
    """It may be given the port that was free, before ours listens there."""
    url = serve(lambda _: Answer(b"hello")).url
    silent = [sys.executable, "-c", "import time; time.sleep(60)"]
    log = tmp_path / "log"
    with child(silent, log) as process, pytest.raises(StartError, match="not respond within 1 s"):
        wait_for(url, process, log, 1)


def test_its_own_response_counts(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with child(command, log) as process:
        wait_for(f"http://127.0.0.1:{port}/", process, log, 60)
