"""json-server, httpbin and oidc-provider, as separate processes on loopback.

httpbin comes with requirements-dev.txt, the others are npm packages. The project requires only
Python, so they are installed into the user's cache at their first use, or their tests are skipped.
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
OIDC_PROVIDER = "oidc-provider@9.13.3"
PROVIDER = Path(__file__).with_name("provider.mjs")
# What these depend on is pinned to this day: the same packages at every install.
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


@contextmanager
def oidc_provider(folder: Path, token_file: Path) -> Iterator[str]:
    """The address of a new oidc-provider, its log in `folder`; see `provider.mjs`."""
    log, port = folder / "oidc_provider.log", free_port()
    url = f"http://127.0.0.1:{port}/"
    installed = _installed(OIDC_PROVIDER)
    command = [_program("node"), str(PROVIDER), str(installed), str(port), str(token_file)]
    with child(command, log) as process:
        wait_for(f"{url}.well-known/openid-configuration", process, log, START_SECONDS)
        yield url


def installed_json_server() -> list[str]:
    """The command that starts json-server; see `_installed`."""
    program = _installed(JSON_SERVER) / "node_modules" / "json-server" / "lib" / "cli" / "bin.js"
    return [_program("node"), str(program)]


def _installed(package: str) -> Path:
    """The folder of an npm package, installed below the user's cache if need be.

    Skips the requesting test if there is no Node.js, or if the registry can't be reached.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elt-pipeline-tests"
    folder = cache / f"{package}-{PACKAGES_OF}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as fresh:
            _install(package, Path(fresh) / "new")
            try:
                (Path(fresh) / "new").rename(folder)
            except OSError:
                assert folder.exists(), "another run of the tests was first"
    return folder


def _install(package: str, folder: Path) -> None:
    """Install a package; the scripts of what it depends on are not run."""
    folder.mkdir()
    options = ["--before", PACKAGES_OF, "--ignore-scripts", "--no-audit", "--no-fund"]
    options += ["--fetch-retries", "1", "--fetch-retry-mintimeout", "1000"]
    command = [_program("npm"), "install", "--prefix", str(folder), *options, package]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{package} was not installed within {INSTALL_SECONDS} s.")
    problem = f"{package} could not be installed"
    if done.returncode and (found := NOT_REACHED.search(done.stderr)):
        pytest.skip(f"{problem}: npm says {found[1]}.")
    assert done.returncode == 0, f"{problem}:\n{done.stderr}"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"This needs Node.js: there is no {name!r} on the PATH.")
    return found
