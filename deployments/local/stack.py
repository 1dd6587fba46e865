"""What the flows need on one machine: Postgres, a Prefect server, and the sample API if wanted.

Knows nothing of the flows. It must not import Prefect: the settings it returns are read at import.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from deployments.local.postgres import ensure_database, libpq, postgres
from deployments.local.processes import child, free_port, wait_for

START_SECONDS = 120


@dataclass(frozen=True)
class Stack:
    """A running stack.

    Attributes:
        environment: what a process needs to work with it; Prefect reads it when it is imported.
        warehouse: the address of the database that the flows load.
        wait: returns when all services answer.
    """

    environment: Mapping[str, str]
    warehouse: URL
    wait: Callable[[], None]


@contextmanager
def running(home: Path, database: str, sample_scale: int | None = None) -> Iterator[Stack]:
    """Start the stack with its data below `home`, and end it afterwards.

    Services start while the caller goes on; call `wait` before using them.

    Args:
        home: the folder for data and logs.
        database: the warehouse's database on the embedded Postgres.
        sample_scale: serve this many times 830 sample orders; None asks the real services.
    """
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as services:
        server = services.enter_context(postgres(home / "postgres"))
        warehouse = ensure_database(server, database)
        environment = {"WAREHOUSE_URL": libpq(warehouse), **_quiet(home)}
        waits = [_start_prefect(services, home, ensure_database(server, "prefect"), environment)]
        if sample_scale is not None:
            waits.append(_start_sample_api(services, home, sample_scale, environment))

        def wait() -> None:
            for wait_for_one in waits:
                wait_for_one()

        yield Stack(environment, warehouse, wait)


def _quiet(home: Path) -> dict[str, str]:
    """Keep Prefect's files below `home`, and nobody informed about who runs this."""
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "flows",
        "DO_NOT_TRACK": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }


def _start_prefect(
    services: ExitStack, home: Path, database: URL, environment: dict[str, str]
) -> Callable[[], None]:
    port, log = free_port(), home / "prefect-server.log"
    process = services.enter_context(
        child(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            log,
            {
                **environment,
                "PREFECT_API_DATABASE_CONNECTION_URL": libpq(
                    database.set(drivername="postgresql+asyncpg")
                ),
            },
        )
    )
    environment["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    return lambda: wait_for(f"http://127.0.0.1:{port}/api/health", process, log, START_SECONDS)


def _start_sample_api(
    services: ExitStack, home: Path, scale: int, environment: dict[str, str]
) -> Callable[[], None]:
    port, log = free_port(), home / "sample-api.log"
    command = [sys.executable, "-m", "deployments.local.sample_api"]
    process = services.enter_context(
        child([*command, "--port", str(port), "--scale", str(scale)], log)
    )
    base = f"http://127.0.0.1:{port}"
    environment["NORTHWIND_BASE_URL"] = f"{base}/V4/Northwind/Northwind.svc/"
    environment["OPEN_METEO_BASE_URL"] = f"{base}/v1/"
    return lambda: wait_for(f"{base}/", process, log, START_SECONDS)
