"""The database that a command on this machine works on, and the arguments that select it.

Imports Prefect only where a warehouse is opened: `make up` must not, and `make psql` starts faster.
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.local.postgres import ensure_database, postgres
from deployments.local.running_server import HOME
from deployments.local.stack import has_sample_api
from flows.postgres import connection_url

if TYPE_CHECKING:
    from blocks.warehouse import Warehouse

SAMPLE = "sample"
LIVE = "live"


def add_database_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select the local database (see `database_name`)."""
    apis = [SAMPLE, LIVE] if has_sample_api() else [LIVE]
    parser.add_argument("--api", type=lambda name: name or apis[0], choices=apis, default=apis[0])
    parser.add_argument("--scale", type=int, default=1, help="times 830 sample orders")
    add_home_argument(parser)


def add_home_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--home", type=Path, default=HOME, help="where data and logs are kept")


def database_name(api: str, scale: int) -> str:
    """One database per API and scale: generated rows never mix with real ones."""
    return api if api == LIVE or scale == 1 else f"{api}_x{scale}"


@contextmanager
def warehouse(environment: Mapping[str, str], home: Path, database: str) -> Iterator["Warehouse"]:
    """The warehouse that the environment names, with dbt's login; by default the local database."""
    from blocks.warehouse import TRANSFORMER_URL_VARIABLE, URL_VARIABLE, Warehouse

    for variable in (TRANSFORMER_URL_VARIABLE, URL_VARIABLE):
        if named := environment.get(variable):
            yield Warehouse(connection_url.parse(named, variable))
            return
    with postgres(home / "postgres") as server:
        yield Warehouse(ensure_database(server, database))
