"""Child processes that end with their parent, and waiting until they answer."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

STOP_SECONDS = 10
_PR_SET_PDEATHSIG = 1


class StartError(Exception):
    """A service of the local stack did not start; the message says which, and where its log is."""


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def child(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own, its output in `log`; end the group afterwards.

    On Linux the command also gets SIGTERM when this process is killed.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        _end(process)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Return when `url` answers with a success.

    Raises:
        StartError: when the process ends first, or the time is over.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartError(f"{process.args!r} ended with code {process.returncode}; see {log}.")
        with suppress(urllib.error.URLError, OSError), _open(url):
            return
        time.sleep(0.05)
    raise StartError(f"{url} did not answer within {seconds:.0f} s; see {log}.")


def _open(url: str) -> AbstractContextManager[Any]:
    answer: AbstractContextManager[Any] = urllib.request.urlopen(url, timeout=5)  # noqa: S310 (ours)
    return answer


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return
