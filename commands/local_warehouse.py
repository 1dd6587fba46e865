"""The warehouse that a command on this machine works on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from blocks.warehouse import TRANSFORMER_URL_VARIABLE, URL_VARIABLE, Warehouse
from deployments.local.postgres import ensure_database, postgres
from flows.postgres import connection_url


@contextmanager
def warehouse(environment: Mapping[str, str], home: Path, database: str) -> Iterator[Warehouse]:
    """The warehouse that the environment names, with dbt's login; by default the local database."""
    for variable in (TRANSFORMER_URL_VARIABLE, URL_VARIABLE):
        if named := environment.get(variable):
            yield Warehouse(connection_url.parse(named, variable))
            return
    with postgres(home / "postgres") as server:
        yield Warehouse(ensure_database(server, database))
