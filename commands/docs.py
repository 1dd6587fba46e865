"""`make docs`: dbt's documentation of a warehouse, served on this machine until Ctrl-C."""

import argparse
import os
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
from commands import local_warehouse
from commands.local_warehouse import add_database_arguments, database_name
from flows.dbt_build import docs, history
from flows.dbt_build.dbt_project import PROJECT
from flows.errors import ConfigurationError, EltError

TIMEOUT_SECONDS = 600


def main() -> int:
    """Write the pages and serve them; 0 after Ctrl-C, 1 if dbt fails."""
    parser = argparse.ArgumentParser(prog="make docs", description=__doc__)
    add_database_arguments(parser)
    parser.add_argument("--build", type=int, help="serve the page that this build kept")
    given = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    folder = given.home.resolve() / "dbt-docs"
    database = database_name(given.api, given.scale)
    print("Writing dbt's documentation ...", flush=True)
    try:
        with local_warehouse.warehouse(os.environ, given.home, database) as warehouse:
            if given.build:
                _fetch(warehouse, given.build, folder)
            else:
                docs.write(warehouse.dbt_environment(), PROJECT, folder, TIMEOUT_SECONDS)
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    with serving(folder) as server:
        print(
            f"Models, columns, tests and their lineage: {address(server)}\nCtrl-C ends it.",
            flush=True,
        )
        server.serve_forever()
    return 0


def _fetch(warehouse: Warehouse, build_id: int, folder: Path) -> None:
    """Write the docs page that a build kept.

    Raises:
        ConfigurationError: when the build kept none.
    """
    with warehouse.transaction() as cursor:
        page = history.docs_of(cursor, build_id)
    if page is None:
        raise ConfigurationError(
            f"Build {build_id} has no documentation. Runs of `transform` with keep_docs keep it "
            "for keep_days; the column `docs` of dbt.builds shows which builds have it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_bytes(page)


@contextmanager
def serving(folder: Path) -> Iterator[ThreadingHTTPServer]:
    """Serve the folder on a free port of 127.0.0.1."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        yield server


def address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Do not log requests."""


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0 if number == signal.SIGINT else 128 + number)


if __name__ == "__main__":
    sys.exit(main())
