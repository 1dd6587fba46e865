"""The warehouse's blocks: Postgres' address and logins. Only this module reads them.

Loads get a psycopg2 connection from `warehouse`, dbt gets environment variables from
`warehouse-transformer`; these use two roles, or one (blocks/roles.sql).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import psycopg2
import psycopg2.errors
from prefect_sqlalchemy import ConnectionComponents, SqlAlchemyConnector, SyncDriver
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.engine import URL

from blocks import environment as environments
from blocks.environment import own
from flows.errors import ConfigurationError, EltError, RefusedLoginError, UnavailableError
from flows.guards import redacted, without_secrets
from flows.postgres import connection_url, session
from flows.postgres.connection_url import ConnectionParameters
from flows.postgres.errors import is_transient, missing_privilege
from flows.redaction import remember

BLOCK = "warehouse"
URL_VARIABLE = "WAREHOUSE_URL"
TRANSFORMER_BLOCK = "warehouse-transformer"
TRANSFORMER_URL_VARIABLE = "WAREHOUSE_TRANSFORMER_URL"
APPLICATION = "elt"  # application_name of the sessions of loads
# Login errors of libpq, Postgres and PgBouncer.
_BAD_SETTINGS = (
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

    Loads log in with `WAREHOUSE_URL` (postgresql://user:password@host:5432/name), dbt with
    `WAREHOUSE_TRANSFORMER_URL`, or with `WAREHOUSE_URL` if the second is not set.

    Raises:
        ConfigurationError: when the first is missing, loads or dbt don't support a part of one, or
            another environment would get production's database.
    """
    blocks = {BLOCK: URL_VARIABLE, TRANSFORMER_BLOCK: TRANSFORMER_URL_VARIABLE}
    if not environment.get(TRANSFORMER_URL_VARIABLE):
        blocks[TRANSFORMER_BLOCK] = URL_VARIABLE
    logins = {block: _components(variable, environment) for block, variable in blocks.items()}
    if not environments.is_production():
        _refuse_productions(logins[BLOCK])
    for block, login in logins.items():
        SqlAlchemyConnector(connection_info=login).save(own(block), overwrite=True)
    return list(logins)


def _refuse_productions(login: ConnectionComponents) -> None:
    try:
        theirs = _read(BLOCK).address
    except ConfigurationError:
        return  # another server has production, or it is not deployed yet
    if (login.host, login.port, login.database) == (theirs.host, theirs.port, theirs.database):
        raise ConfigurationError(
            f"{URL_VARIABLE} is production's database, and this is {environments.name()}. Create a "
            f"database for it, and write its address to .env.{environments.name()}."
        )


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
    """Redact the password everywhere, unless it equals a name that errors must show."""
    names = {url.username, url.host, url.database}
    passwords = [url.password, *url.normalized_query.get("password", ())]
    for password in (*passwords, os.environ.get("PGPASSWORD")):
        if password and password not in names:
            remember(password)


@dataclass(frozen=True)
class Warehouse:
    """The block's address and login, read once per run."""

    url: URL = field(repr=False)  # its query may hold the password

    def __post_init__(self) -> None:
        """Redact the password: Postgres, libpq and dbt may quote it in messages."""
        _hide_password(self.url)

    @property
    def address(self) -> ConnectionParameters:
        """The URL as connection parameters.

        Raises:
            ConfigurationError: when a part is missing or not supported.
        """
        return connection_url.from_url(self.url, "The warehouse's URL")

    @without_secrets
    def connect(self) -> Connection:
        """A new session with its own token and settings, for one load.

        Raises:
            RefusedLoginError: when Postgres refuses this user.
            UnavailableError: when Postgres does not respond.
            ConfigurationError: when the session, the database or the URL is unsuitable for loads.
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
    def session(self) -> Iterator[Connection]:
        """A new connection, closed at the end.

        Raises:
            RefusedLoginError: when Postgres refuses this user.
            UnavailableError: when Postgres is unavailable, or becomes so before the end.
        """
        with _naming_errors(), closing(self.connect()) as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """A cursor on a new connection, committed at the end.

        Raises:
            RefusedLoginError, UnavailableError: as `session` does.
        """
        with self.session() as connection, connection, connection.cursor() as cursor:
            yield cursor

    def dbt_environment(self) -> dict[str, str]:
        """Environment variables for `dbt_project/profiles.yml`, libpq and dbt's process."""
        return self.address.dbt_environment()


@contextmanager
def _naming_errors() -> Iterator[None]:
    """Translate errors of Postgres that have a remedy; others pass, redacted.

    Raises:
        UnavailableError: retry once Postgres is back, or has the resource that it ran out of.
        ConfigurationError: the role lacks a privilege.
    """
    try:
        yield
    except psycopg2.Error as error:
        translated = _translate(error)
        if translated is error:
            raise
        raise translated from translated.__cause__


def _translate(error: psycopg2.Error) -> BaseException:
    shown = redacted(error)
    problem: EltError
    if is_transient(error):
        problem = UnavailableError(
            f"Postgres went away or ran out of something: {' '.join(str(error).split())}. What was "
            "committed is kept. Fix the cause, then run this again."
        )
    elif isinstance(error, psycopg2.errors.InsufficientPrivilege):
        owned = "the schema elt and the raw schemas if it loads, and those of dbt if it builds"
        problem = missing_privilege("A statement was refused", owned, error)
    else:
        return shown
    problem.__cause__ = shown
    return problem


def load(name: str = BLOCK) -> Warehouse:
    """Read this environment's block.

    Raises:
        ConfigurationError: when it is missing, or loads or dbt don't support a part of its URL.
    """
    return _read(own(name))


def _read(name: str) -> Warehouse:
    try:
        block = SqlAlchemyConnector.load(name)
    except ValueError as error:
        raise ConfigurationError(
            f"The Prefect block {name!r} is missing. Set {URL_VARIABLE} and run "
            "`python -m blocks.warehouse`."
        ) from error
    info, where = block.connection_info, f"The URL of the Prefect block {name!r}"
    has_components = isinstance(info, ConnectionComponents)
    found = Warehouse(
        info.create_url() if has_components else connection_url.parse(str(info), where)
    )
    connection_url.from_url(found.url, where)
    return found


def _connect_problem(place: ConnectionParameters, message: str) -> Exception:
    where = f"Postgres at {place.host}:{place.port}"
    if any(words in message for words in _BAD_SETTINGS):
        return ConfigurationError(f"{where} can't be reached with this URL: {message}. {_CORRECT}")
    if any(words in message for words in _REFUSED):
        return RefusedLoginError(
            f"{where} refused user {place.user!r} on database {place.database!r}: {message}. "
            f"{_CORRECT}"
        )
    return UnavailableError(f"{where} does not respond: {message}. Start it, then run this again.")


if __name__ == "__main__":
    save()
