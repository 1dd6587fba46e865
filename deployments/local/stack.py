"""Starts the flows' services on one machine: Postgres, a Prefect server, optionally the sample API.

Knows nothing of the flows. Must not import Prefect, which reads the returned settings at import.
"""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urljoin

import psutil
import psycopg2
from sqlalchemy.engine import URL

from blocks import roles
from deployments.local.postgres import ensure_database, libpq, postgres
from deployments.local.processes import (
    Service,
    StartError,
    child,
    free_port,
    uninterrupted,
    wait_for,
)

START_SECONDS = 120
# Stores the slots of concurrency limits in files below PREFECT_HOME. Prefect's default is memory,
# and after a restart a slot could be lost for ever.
LEASE_STORAGE = "prefect.server.concurrency.lease_storage.filesystem"
REPORTER_URL_VARIABLE = "WAREHOUSE_REPORTER_URL"
# Belongs to the example, which `make remove-example` removes.
SAMPLE_API = "deployments.local.sample_api"


@dataclass(frozen=True)
class Stack:
    """A running stack.

    Attributes:
        environment: for processes that use the stack; Prefect reads it at import.
        warehouse: the address of the flows' database, with its owner's login.
        services: all services of the stack.
        wait: returns when all services respond.
    """

    environment: Mapping[str, str]
    warehouse: URL
    services: tuple[Service, ...]
    wait: Callable[[], None]


@contextmanager
def running(
    home: Path, database: str, sample_scale: int | None = None, port: int = 0
) -> Iterator[Stack]:
    """Start the stack with its data below `home`, and end it afterwards.

    Services start in the background; call `wait` before you use them.

    Args:
        home: the folder for data and logs.
        database: the warehouse's database on the embedded Postgres.
        sample_scale: serve this many times 830 sample orders; None for the real services.
        port: of the Prefect server; 0 for any that is free.

    Raises:
        StartError: when another stack runs on the same folder, or the port is taken.
    """
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        opened.enter_context(_lock(home))
        port = free_port(port)
        with uninterrupted():
            server = opened.enter_context(postgres(home / "postgres"))
        warehouse = ensure_database(server, database)
        parts = _Parts(opened, home, {**_logins(warehouse), **_quiet(home)})
        parts.services.append(_postgres_service(home / "postgres"))
        _start_prefect(parts, ensure_database(server, "prefect"), port)
        if sample_scale is not None:
            _start_sample_api(parts, sample_scale)
        yield Stack(parts.environment, warehouse, tuple(parts.services), parts.wait)


@dataclass(frozen=True)
class _Parts:
    """The services started so far; closing `opened` ends them."""

    opened: ExitStack
    home: Path
    environment: dict[str, str]
    services: list[Service] = field(default_factory=list)
    waits: list[Callable[[], None]] = field(default_factory=list)

    def start(
        self, name: str, url: str, module: Sequence[str], settings: Mapping[str, str] | None = None
    ) -> None:
        """Start a module that will respond at `url`; its log is named after the service."""
        log = self.home / f"{name.lower().replace(' ', '-')}.log"
        command = [sys.executable, "-m", *module]
        process = self.opened.enter_context(
            child(command, log, {**self.environment, **(settings or {})})
        )
        page = urljoin(url, "/")
        self.services.append(Service(name, log, lambda: process.poll() is None, page))
        self.waits.append(partial(wait_for, url, process, log, START_SECONDS))

    def wait(self) -> None:
        for wait in self.waits:
            wait()


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """Lock the folder for this process; the lock ends with the process, even if it is killed."""
    with (home / "stack.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StartError(
                f"{home} is in use by another `make up` or `make run-local`, process "
                f"{lock.read()}. End that one first: Ctrl-C in its terminal."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _logins(warehouse: URL) -> dict[str, str]:
    """Create the warehouse's roles; the variables with their logins, which need no password."""
    with closing(psycopg2.connect(libpq(warehouse))) as owner, owner, owner.cursor() as cursor:
        roles.ensure(cursor)
    variables = {
        "WAREHOUSE_URL": roles.LOADER,
        "WAREHOUSE_TRANSFORMER_URL": roles.TRANSFORMER,
        REPORTER_URL_VARIABLE: roles.REPORTER,
    }
    return {name: libpq(warehouse.set(username=role)) for name, role in variables.items()}


def _quiet(home: Path) -> dict[str, str]:
    """Settings that keep Prefect's and dbt's files below `home`, and disable telemetry."""
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "flows",
        "DO_NOT_TRACK": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DBT_TARGET_PATH": str(home.resolve() / "dbt"),
        "DBT_LOG_PATH": str(home.resolve() / "dbt"),
    }


def _postgres_service(data: Path) -> Service:
    """Postgres is not a child process: while it runs, a file contains its process id."""

    def is_running() -> bool:
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return psutil.pid_exists(int(lines[0]))

    return Service("Postgres", data / "log", is_running)


def _start_prefect(parts: _Parts, database: URL, port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    address = libpq(database.set(drivername="postgresql+asyncpg"))
    parts.start(
        "Prefect server",
        f"{url}/api/health",
        ["prefect", "server", "start", "--port", str(port)],
        {
            "PREFECT_UI_URL": url,
            "PREFECT_UI_API_URL": f"{url}/api",
            "PREFECT_API_DATABASE_CONNECTION_URL": address,
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASE_STORAGE,
        },
    )
    parts.environment["PREFECT_API_URL"] = f"{url}/api"


def has_sample_api() -> bool:
    """Whether the example is still here, whose sources a sample API can serve."""
    return find_spec(SAMPLE_API) is not None


def _start_sample_api(parts: _Parts, scale: int) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    parts.start("sample API", f"{url}/", [SAMPLE_API, "--port", str(port), "--scale", str(scale)])
    for source, path in import_module(SAMPLE_API).BASE_PATHS.items():
        parts.environment[f"{source.upper()}_BASE_URL"] = f"{url}{path}"
