"""Which warehouse a command on this machine works on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from blocks.warehouse import TRANSFORMER_URL_VARIABLE, URL_VARIABLE, Warehouse
from deployments.local.postgres import ensure_database, postgres


@contextmanager
def warehouse(environment: Mapping[str, str], home: Path, database: str) -> Iterator[Warehouse]:
    """The one that the environment names, as dbt logs in; else the local database."""
    named = environment.get(TRANSFORMER_URL_VARIABLE) or environment.get(URL_VARIABLE)
    if named:
        yield Warehouse(make_url(named))
        return
    with postgres(home / "postgres") as server:
        yield Warehouse(ensure_database(server, database))
