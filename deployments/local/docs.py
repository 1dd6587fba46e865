"""`make docs`: dbt's documentation of the local warehouse, served on this machine until Ctrl-C."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import NoReturn

from blocks.warehouse import Warehouse
from deployments.local.postgres import ensure_database, postgres
from deployments.local.run import HOME, LIVE, SAMPLE, database_name
from flows.build import process
from flows.errors import BuildError

PROJECT = process.ROOT / "dbt_project"
TIMEOUT_SECONDS = 600


def main() -> int:
    """Write the pages and serve them; 0 after Ctrl-C, 1 when dbt can't write them."""
    parser = argparse.ArgumentParser(prog="make docs", description=__doc__)
    parser.add_argument("--api", choices=[SAMPLE, LIVE], default=SAMPLE)
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--home", type=Path, default=HOME)
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    folder = given.home.resolve() / "dbt-docs"
    print("Writing dbt's documentation ...", flush=True)
    try:
        with postgres(given.home / "postgres") as server:
            database = ensure_database(server, database_name(given.api, given.scale))
            write(Warehouse(database), folder)
    except BuildError as error:
        print(f"FAILED: {error}")
        return 1
    with serving(folder) as server:
        print(
            f"Models, columns, tests and their lineage: {address(server)}\nCtrl-C ends it.",
            flush=True,
        )
        server.serve_forever()
    return 0


def write(warehouse: Warehouse, folder: Path) -> None:
    """Write the pages, with the columns that the warehouse has now.

    Raises:
        BuildError: when dbt could not.
    """
    pages = [folder / name for name in ("index.html", "manifest.json", "catalog.json")]
    for page in pages:
        page.unlink(missing_ok=True)
    project = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
    command = ["docs", "generate", *project, "--target-path", str(folder)]
    environment = {**warehouse.dbt_environment(), "DBT_LOG_PATH": str(folder)}
    said = process.run(environment, TIMEOUT_SECONDS, command)
    errors = [each["info"]["msg"] for each in said if each["info"]["level"] == "error"]
    if errors or not all(page.exists() for page in pages):
        raise BuildError("dbt could not write its documentation: " + "\n".join(errors[-20:]))


@contextmanager
def serving(folder: Path) -> Iterator[ThreadingHTTPServer]:
    """A server on a free port that nobody on the network can reach."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        yield server


def address(server: ThreadingHTTPServer) -> str:
    """Where a browser finds it."""
    return f"http://127.0.0.1:{server.server_port}/"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0 if number == signal.SIGINT else 128 + number)


if __name__ == "__main__":
    sys.exit(main())
