"""The blocks of the warehouse: where Postgres is and how to log in. The one place that reads them.

Loads get a psycopg2 connection from `warehouse`, dbt gets environment variables from
`warehouse-transformer`; they are two roles, or one (blocks/roles.sql).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import psycopg2
from prefect_sqlalchemy import ConnectionComponents, SqlAlchemyConnector, SyncDriver
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.engine import URL

from flows.errors import ConfigurationError, RefusedLoginError, UnavailableError
from flows.guards import redacted, without_secrets
from flows.postgres import connection_url, session
from flows.postgres.connection_url import ConnectionParameters
from flows.redaction import remember

BLOCK = "warehouse"
URL_VARIABLE = "WAREHOUSE_URL"
TRANSFORMER_BLOCK = "warehouse-transformer"
TRANSFORMER_URL_VARIABLE = "WAREHOUSE_TRANSFORMER_URL"
APPLICATION = "elt"  # what Postgres calls the sessions of loads
# Lost connections, rollbacks, resources, shutdowns, I/O
# (https://www.postgresql.org/docs/current/errcodes-appendix.html).
PASSING = ("08", "40", "53", "57P", "58")
# What libpq, Postgres and PgBouncer say at login.
_UNFIT = (
    "certificate",
    "does not support SSL",
    "private key",
    "invalid ",
    "unrecognized configuration parameter",
    "unsupported startup parameter",
)
_REFUSED = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf")
_CORRECT = (
    f"Correct {URL_VARIABLE} or {TRANSFORMER_URL_VARIABLE} and run `python -m blocks.warehouse`."
)


def save(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Create or update both blocks, and return their names.

    `WAREHOUSE_URL` (postgresql://user:password@host:5432/name) is how loads log in, and
    `WAREHOUSE_TRANSFORMER_URL` how dbt does; without the second one it does as loads do.

    Raises:
        ConfigurationError: when the first is missing, or one has what loads or dbt can't be given.
    """
    blocks = {BLOCK: URL_VARIABLE, TRANSFORMER_BLOCK: TRANSFORMER_URL_VARIABLE}
    if not environment.get(TRANSFORMER_URL_VARIABLE):
        blocks[TRANSFORMER_BLOCK] = URL_VARIABLE
    logins = {block: _components(variable, environment) for block, variable in blocks.items()}
    for block, login in logins.items():
        SqlAlchemyConnector(connection_info=login).save(block, overwrite=True)
    return list(logins)


def _components(variable: str, environment: Mapping[str, str]) -> ConnectionComponents:
    url = connection_url.parse(environment.get(variable, ""), variable)
    _hide_password(url)
    found = connection_url.from_url(url, variable)
    return ConnectionComponents(
        driver=SyncDriver.POSTGRESQL_PSYCOPG2,
        username=found.user,
        password=found.password,
        host=found.host,
        port=found.port,
        database=found.database,
        query=dict(found.parameters),
    )


def _hide_password(url: URL) -> None:
    """Keep the password out of every text; but not a name that errors show, used as one."""
    names = {url.username, url.host, url.database}
    passwords = [url.password, *url.normalized_query.get("password", ())]
    for password in (*passwords, os.environ.get("PGPASSWORD")):
        if password and password not in names:
            remember(password)


@dataclass(frozen=True)
class Warehouse:
    """The block's address and login, read once a run."""

    url: URL = field(repr=False)  # its query may hold the password

    def __post_init__(self) -> None:
        """Postgres, libpq and dbt may quote the password in what they say."""
        _hide_password(self.url)

    @property
    def address(self) -> ConnectionParameters:
        """What the URL means.

        Raises:
            ConfigurationError: when a part of it is missing, or can't be kept.
        """
        return connection_url.from_url(self.url, "The warehouse's URL")

    @without_secrets
    def connect(self) -> Connection:
        """A new session with a token and settings of its own, for one load.

        Raises:
            RefusedLoginError: when Postgres does not let this user in.
            UnavailableError: when Postgres does not answer.
            ConfigurationError: when the session, the database or the URL is not fit for loads.
        """
        arguments = {
            **self.address.connect_arguments(),
            "application_name": APPLICATION,
            "client_encoding": "UTF8",
        }
        try:
            return session.connect(arguments)
        except psycopg2.Error as error:
            raise _connect_problem(self.address, " ".join(str(error).split())) from error

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
        """What dbt reads of it: `dbt_project/profiles.yml`, libpq, and dbt's process."""
        return self.address.dbt_environment()


@contextmanager
def naming_errors() -> Iterator[None]:
    """Name the errors of a Postgres that went away, or ran out of something; no others.

    Raises:
        UnavailableError: try it again, once Postgres is back or has what it lacked.
    """
    try:
        yield
    except psycopg2.Error as error:
        named = _named(error)
        if named is error:
            raise
        raise named from named.__cause__


def _named(error: psycopg2.Error) -> BaseException:
    shown = redacted(error)
    if not _is_connection_lost(error):
        return shown
    problem = UnavailableError(
        f"Postgres went away or ran out of something: {' '.join(str(error).split())}. What was "
        "committed is kept. Mend that and run it again."
    )
    problem.__cause__ = shown
    return problem


def _is_connection_lost(error: psycopg2.Error) -> bool:
    """Whether Postgres was away; of a lost connection psycopg2 has no code, and three classes."""
    if error.pgcode is not None:
        return error.pgcode.startswith(PASSING)
    lost = (psycopg2.OperationalError, psycopg2.DatabaseError, psycopg2.InterfaceError)
    return type(error) in lost


def load(name: str = BLOCK) -> Warehouse:
    """Read a block.

    Raises:
        ConfigurationError: when it is missing, or has what loads or dbt can't be given.
    """
    try:
        block = SqlAlchemyConnector.load(name)
    except ValueError as error:
        raise ConfigurationError(
            f"The Prefect block {name!r} is missing. Set {URL_VARIABLE} and run "
            "`python -m blocks.warehouse`."
        ) from error
    info, where = block.connection_info, f"The URL of the Prefect block {name!r}"
    is_taken_apart = isinstance(info, ConnectionComponents)
    found = Warehouse(
        info.create_url() if is_taken_apart else connection_url.parse(str(info), where)
    )
    connection_url.from_url(found.url, where)
    return found


def _connect_problem(place: ConnectionParameters, said: str) -> Exception:
    where = f"Postgres at {place.host}:{place.port}"
    if any(words in said for words in _UNFIT):
        return ConfigurationError(f"{where} can't be reached as the URL says: {said}. {_CORRECT}")
    if any(words in said for words in _REFUSED):
        return RefusedLoginError(
            f"{where} refused user {place.user!r} on database {place.database!r}: {said}. "
            f"{_CORRECT}"
        )
    return UnavailableError(f"{where} does not answer: {said}. Start it, then run this again.")


if __name__ == "__main__":
    save()
