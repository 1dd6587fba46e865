"""Starts child processes that end with their parent, and waits until they respond."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil

STOP_SECONDS = 10
MARK = "ELT_STARTED_AS"
_PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """A service did not start, or ended by itself; the message names the service and its log."""


@dataclass(frozen=True)
class Service:
    """A service that should run until it is stopped.

    Attributes:
        name: used in messages, e.g. "sample API".
        page: the address of what a person can look at; empty for a service that has no pages.
    """

    name: str
    log: Path
    is_running: Callable[[], bool]
    page: str = ""

    def check(self) -> None:
        """Raise if the service has ended.

        Raises:
            StartError: when the service is not running.
        """
        if not self.is_running():
            raise StartError(f"{self.name} has ended by itself; see {self.log}.")


def free_port(wanted: int = 0) -> int:
    """The wanted TCP port on loopback, or any, if nobody listens on it.

    Raises:
        StartError: when the wanted port is taken.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise StartError(
                f"Port {wanted} can't be used: {error.strerror}. Choose another PORT, or end what "
                "listens on it."
            ) from error
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def child(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in its own process group, with its output in `log`; end the group afterwards.

    Also ends all processes that it started in other groups: a worker gives every flow run its own
    group, and flow runs outlive a killed worker. A mark in their environment identifies them.
    On Linux the command also gets SIGTERM when this process is killed.
    """
    mark = uuid4().hex
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {}), MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        _end(process, mark)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay termination signals until the end of the block, for starts that must not be partial.

    Does nothing outside the main thread, since only the main thread receives signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: held.append(got))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for got in held:
        signal.raise_signal(got)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Return when the process, or one that it started, responds with a success at `url`.

    Until it listens, another program may be given the port, whose response does not count.

    Raises:
        StartError: when the process ends first, or after that many seconds.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartError(f"{process.args!r} ended with code {process.returncode}; see {log}.")
        with suppress(urllib.error.URLError, OSError), _open(url):
            if _listens(process, urlsplit(url).port):
                return
        time.sleep(0.05)
    raise StartError(f"{url} did not respond within {seconds:.0f} s; see {log}.")


def _listens(process: subprocess.Popen[bytes], port: int | None) -> bool:
    """Whether the process, or one that it started, listens on the port."""
    try:
        first = psutil.Process(process.pid)
        sockets = [
            each
            for its in (first, *first.children(recursive=True))
            for each in its.net_connections("tcp")
        ]
    except psutil.NoSuchProcess:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets)


def _open(url: str) -> AbstractContextManager[Any]:
    response: AbstractContextManager[Any] = urllib.request.urlopen(url, timeout=5)  # noqa: S310 (ours)
    return response


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        started = _started_as(mark)
        for other in started:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getpgid(other.pid) != process.pid:
                    other.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        if process.returncode is not None and _have_ended(started, STOP_SECONDS):
            return


def _started_as(mark: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _environment(process).get(MARK) == mark]


def _have_ended(processes: Sequence[psutil.Process], seconds: float) -> bool:
    """Wait until all have ended, or until the time is over; True if they have."""
    deadline = time.monotonic() + seconds
    while any(_is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def command_of(number: int) -> list[str]:
    """The command line of the process of that id; empty if none runs, or it is another user's."""
    try:
        return psutil.Process(number).cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []


def _is_alive(process: psutil.Process) -> bool:
    """False for zombies: an orphan may have no parent that collects it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _environment(process: psutil.Process) -> Mapping[str, str]:
    """Empty if it can't be read, because the process is another user's or has ended."""
    try:
        variables: Mapping[str, str] = process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return {}
    return variables
