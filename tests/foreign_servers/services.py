"""json-server and httpbin, as separate processes on loopback.

httpbin comes with requirements-dev.txt. json-server is an npm package. The project requires
only Python, so it installs json-server into the user's cache at its first use, or skips its tests.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from deployments.local.processes import child, free_port, wait_for

JSON_SERVER = "json-server@0.17.4"
# json-server's dependencies are pinned to this day: the same packages at every install.
PACKAGES_OF = "2026-11-01"
START_SECONDS = 30
INSTALL_SECONDS = 60
NOT_REACHED = re.compile(
    r"code (E\w*TIMEDOUT|EAI_AGAIN|ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ENETUNREACH|ENOTFOUND"
    r"|ERR_SOCKET_TIMEOUT|E5\d\d)"
)


@contextmanager
def httpbin(folder: Path) -> Iterator[str]:
    """The address of a new httpbin, its log in `folder`."""
    log, port = folder / "httpbin.log", free_port()
    url = f"http://127.0.0.1:{port}/"
    with child([sys.executable, "-m", "httpbin.core", "--port", str(port)], log) as process:
        wait_for(f"{url}status/200", process, log, START_SECONDS)
        yield url


@contextmanager
def json_server(
    command: Sequence[str], folder: Path, tables: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Iterator[str]:
    """The address of a new json-server with these tables; they and its log are in `folder`."""
    data, log, port = folder / "tables.json", folder / "json-server.log", free_port()
    data.write_text(json.dumps(tables), encoding="utf-8")
    url = f"http://127.0.0.1:{port}/"
    options = ["--host", "127.0.0.1", "--port", str(port), "--foreignKeySuffix", "_id", "--quiet"]
    with child([*command, str(data), *options], log) as process:
        wait_for(f"{url}db", process, log, START_SECONDS)
        yield url


def installed_json_server() -> list[str]:
    """The command that starts json-server, installed below the user's cache if need be.

    Skips the requesting test if there is no Node.js, or if the registry can't be reached.
    """
    node = _program("node")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elt-pipeline-tests"
    folder = cache / f"{JSON_SERVER}-{PACKAGES_OF}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as fresh:
            _install(Path(fresh) / "new")
            try:
                (Path(fresh) / "new").rename(folder)
            except OSError:
                assert folder.exists(), "another run of the tests was first"
    return [node, str(folder / "node_modules" / "json-server" / "lib" / "cli" / "bin.js")]


def _install(folder: Path) -> None:
    """Install json-server; its packages' own scripts are not run."""
    folder.mkdir()
    options = ["--before", PACKAGES_OF, "--ignore-scripts", "--no-audit", "--no-fund"]
    options += ["--fetch-retries", "1", "--fetch-retry-mintimeout", "1000"]
    command = [_program("npm"), "install", "--prefix", str(folder), *options, JSON_SERVER]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{JSON_SERVER} was not installed within {INSTALL_SECONDS} s.")
    problem = f"{JSON_SERVER} could not be installed"
    if done.returncode and (found := NOT_REACHED.search(done.stderr)):
        pytest.skip(f"{problem}: npm says {found[1]}.")
    assert done.returncode == 0, f"{problem}:\n{done.stderr}"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{JSON_SERVER} needs Node.js: there is no {name!r} on the PATH.")
    return found
