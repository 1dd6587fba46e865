"""The blocks of the warehouse: where Postgres is and how to log in. The one place that reads them.

Loads get a psycopg2 connection from `warehouse`, dbt gets environment variables from
`warehouse-transformer`; they are two roles, or one (blocks/roles.sql).
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
TRANSFORMER_BLOCK = "warehouse-transformer"
TRANSFORMER_URL_VARIABLE = "WAREHOUSE_TRANSFORMER_URL"
CONNECT_TIMEOUT_SECONDS = 10
# Lost connections, rollbacks, resources, shutdowns, I/O
# (https://www.postgresql.org/docs/current/errcodes-appendix.html).
PASSING = ("08", "40", "53", "57P", "58")


def save(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Create or update both blocks, and return their names.

    `WAREHOUSE_URL` (postgresql://user:password@host:5432/name) is how loads log in, and
    `WAREHOUSE_TRANSFORMER_URL` how dbt does; without the second one it does as loads do.

    Raises:
        ConfigurationError: when the first is missing, or one is no such URL.
    """
    blocks = {BLOCK: URL_VARIABLE, TRANSFORMER_BLOCK: TRANSFORMER_URL_VARIABLE}
    if not environment.get(TRANSFORMER_URL_VARIABLE):
        blocks[TRANSFORMER_BLOCK] = URL_VARIABLE
    logins = {block: _components(variable, environment) for block, variable in blocks.items()}
    for block, login in logins.items():
        SqlAlchemyConnector(connection_info=login).save(block, overwrite=True)
    return list(logins)


def _components(variable: str, environment: Mapping[str, str]) -> ConnectionComponents:
    text = environment.get(variable, "")
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ConfigurationError(
            f"Set {variable} to postgresql://user:password@host:5432/database; now it is "
            f"{'empty' if not text else 'not a URL'}."
        ) from error
    return ConnectionComponents(
        driver=SyncDriver.POSTGRESQL_PSYCOPG2,
        username=url.username,
        password=url.password,
        host=url.host,
        port=url.port,
        database=url.database,
        query={name: str(value) for name, value in url.query.items()},
    )


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
        """A cursor of a connection of its own, committed at the end.

        Raises:
            RefusedLoginError: as `connect` does.
            UnavailableError: when Postgres is away, or went away before the end.
        """
        with (
            naming_errors(),
            closing(self.connect()) as connection,
            connection,
            connection.cursor() as cursor,
        ):
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


@contextmanager
def naming_errors() -> Iterator[None]:
    """Name the errors of a Postgres that went away, or ran out of something; no others.

    Raises:
        UnavailableError: try it again, once Postgres is back or has what it lacked.
    """
    try:
        yield
    except psycopg2.Error as error:
        if not _is_passing(error):
            raise
        raise UnavailableError(
            f"Postgres went away or ran out of something: {' '.join(str(error).split())}. What was "
            "committed is kept. Mend that and run it again."
        ) from error


def _is_passing(error: psycopg2.Error) -> bool:
    """Whether Postgres was away; of a lost connection psycopg2 has no code, and three classes."""
    if error.pgcode is not None:
        return error.pgcode.startswith(PASSING)
    lost = (psycopg2.OperationalError, psycopg2.DatabaseError, psycopg2.InterfaceError)
    return type(error) in lost


def load(name: str = BLOCK) -> Warehouse:
    """Read a block.

    Raises:
        ConfigurationError: when it is missing.
    """
    try:
        block = SqlAlchemyConnector.load(name)
    except ValueError as error:
        raise ConfigurationError(
            f"The Prefect block {name!r} is missing. Set {URL_VARIABLE} and run "
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
            f"{URL_VARIABLE} or {TRANSFORMER_URL_VARIABLE} and run `python -m blocks.warehouse`."
        )
    return UnavailableError(f"{where} does not answer: {said}. Start it, then run this again.")


if __name__ == "__main__":
    save()
