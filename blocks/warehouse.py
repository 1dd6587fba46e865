"""The `warehouse` block: where Postgres is and how to log in. The one place that reads it.

Loads get a psycopg2 connection from it, dbt gets environment variables.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psycopg2
from prefect_sqlalchemy import ConnectionComponents, SqlAlchemyConnector, SyncDriver
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from flows.errors import ConfigurationError, RefusedLoginError, UnavailableError

BLOCK = "warehouse"
URL_VARIABLE = "WAREHOUSE_URL"
CONNECT_TIMEOUT_SECONDS = 10


def save(environment: Mapping[str, str] = os.environ) -> None:
    """Create or update the block from `WAREHOUSE_URL` (postgresql://user:password@host:5432/name).

    Raises:
        ConfigurationError: when the variable is missing or no such URL.
    """
    text = environment.get(URL_VARIABLE, "")
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ConfigurationError(
            f"Set {URL_VARIABLE} to postgresql://user:password@host:5432/database; now it is "
            f"{'empty' if not text else 'not a URL'}."
        ) from error
    components = ConnectionComponents(
        driver=SyncDriver.POSTGRESQL_PSYCOPG2,
        username=url.username,
        password=url.password,
        host=url.host,
        port=url.port,
        database=url.database,
        query={name: str(value) for name, value in url.query.items()},
    )
    SqlAlchemyConnector(connection_info=components).save(BLOCK, overwrite=True)


@dataclass(frozen=True)
class Warehouse:
    """The block's address and login, read once a run."""

    url: URL

    def connect(self) -> Connection:
        """A new connection, for one load.

        Raises:
            RefusedLoginError: when Postgres does not let this user in.
            UnavailableError: when Postgres does not answer.
        """
        arguments = self.url.translate_connect_args(username="user", database="dbname")
        options = {"connect_timeout": CONNECT_TIMEOUT_SECONDS, **self.url.query, **arguments}
        try:
            connection: Connection = psycopg2.connect(**options, application_name="elt")
        except psycopg2.OperationalError as error:
            raise _connect_problem(self.url, " ".join(str(error).split())) from error
        return connection

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """A cursor of a connection of its own, committed at the end; raises what `connect` does."""
        with closing(self.connect()) as connection, connection, connection.cursor() as cursor:
            yield cursor

    def dbt_environment(self) -> dict[str, str]:
        """What `dbt_project/profiles.yml` reads; dbt masks what is named DBT_ENV_SECRET_."""
        return {
            "WAREHOUSE_HOST": str(self.url.host or self.url.query.get("host", "")),
            "WAREHOUSE_PORT": str(self.url.port or 5432),
            "WAREHOUSE_USER": self.url.username or "",
            "DBT_ENV_SECRET_WAREHOUSE_PASSWORD": self.url.password or "",
            "WAREHOUSE_DATABASE": self.url.database or "",
        }


def load() -> Warehouse:
    """Read the block.

    Raises:
        ConfigurationError: when it is missing.
    """
    try:
        block = SqlAlchemyConnector.load(BLOCK)
    except ValueError as error:
        raise ConfigurationError(
            f"The Prefect block {BLOCK!r} is missing. Set {URL_VARIABLE} and run "
            "`python -m blocks.warehouse`."
        ) from error
    info = block.connection_info
    return Warehouse(
        info.create_url() if isinstance(info, ConnectionComponents) else make_url(str(info))
    )


def _connect_problem(url: URL, said: str) -> Exception:
    refused = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf")
    where = f"Postgres at {url.host or url.query.get('host', '')}:{url.port or 5432}"
    if any(words in said for words in refused):
        return RefusedLoginError(
            f"{where} refused user {url.username!r} on database {url.database!r}: {said}. Correct "
            f"{URL_VARIABLE} and run `python -m blocks.warehouse`."
        )
    return UnavailableError(f"{where} does not answer: {said}. Start it, then run this again.")


if __name__ == "__main__":
    save()
