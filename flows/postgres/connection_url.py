"""The warehouse's URL, translated into parameters for psycopg2 and for dbt.

Every part of the URL reaches both, or is refused by name. Knows nothing of Prefect.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from flows.errors import ConfigurationError

FORM = "postgresql://user:password@host:5432/database"
PORT = 5432
DRIVERS = ("postgresql", "postgres", "postgresql+psycopg2")

# Parts that libpq accepts in a URL's query instead of their usual place.
_MOVED = {
    "host": "host",
    "port": "port",
    "user": "username",
    "password": "password",
    "dbname": "database",
}
# libpq's parameters, and the environment variable that gives each to dbt's libpq
# (https://www.postgresql.org/docs/current/libpq-envars.html). The profile names none of them, not
# even those it has fields for: an empty field would hide the variables of the machine.
_VARIABLES = {
    "channel_binding": "PGCHANNELBINDING",
    "gssdelegation": "PGGSSDELEGATION",
    "gssencmode": "PGGSSENCMODE",
    "gsslib": "PGGSSLIB",
    "hostaddr": "PGHOSTADDR",
    "krbsrvname": "PGKRBSRVNAME",
    "options": "PGOPTIONS",
    "passfile": "PGPASSFILE",
    "require_auth": "PGREQUIREAUTH",
    "requirepeer": "PGREQUIREPEER",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "sslcert": "PGSSLCERT",
    "sslcertmode": "PGSSLCERTMODE",
    "sslcompression": "PGSSLCOMPRESSION",
    "sslcrl": "PGSSLCRL",
    "sslcrldir": "PGSSLCRLDIR",
    "sslkey": "PGSSLKEY",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "sslsni": "PGSSLSNI",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
# A lost peer is noticed after a minute, idle (30 + 3 * 10 s) or not (60,000 ms).
_KEEPALIVES = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_CONNECT_TIMEOUT = {"connect_timeout": "10"}
_NUMBERS = {**_KEEPALIVES, **_CONNECT_TIMEOUT}
_SET_BY_US = ("application_name", "client_encoding")


@dataclass(frozen=True)
class ConnectionParameters:
    """The server, the login, and libpq's `parameters` from the URL."""

    host: str
    port: int
    user: str
    password: str | None = field(repr=False)
    database: str
    parameters: Mapping[str, str]

    def connect_arguments(self) -> dict[str, str | int | None]:
        """Arguments of `psycopg2.connect`, without those of a single session."""
        return {
            **_NUMBERS,
            **self.parameters,
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
        }

    def dbt_environment(self) -> dict[str, str]:
        """The variables for dbt_project/profiles.yml, dbt's libpq and dbt_subprocess.py.

        dbt masks the values of variables named DBT_ENV_SECRET_….
        """
        numbers = {name: self.parameters.get(name, usual) for name, usual in _NUMBERS.items()}
        return {
            "WAREHOUSE_HOST": self.host,
            "WAREHOUSE_PORT": str(self.port),
            "WAREHOUSE_USER": self.user,
            # An empty field of the profile would hide PGPASSWORD, which loads use.
            "DBT_ENV_SECRET_WAREHOUSE_PASSWORD": self.password or os.environ.get("PGPASSWORD", ""),
            "WAREHOUSE_DATABASE": self.database,
            "WAREHOUSE_CONNECT_TIMEOUT": numbers["connect_timeout"],
            "WAREHOUSE_KEEPALIVES_IDLE": numbers["keepalives_idle"],
            "PGCLIENTENCODING": "UTF8",
            "WAREHOUSE_KEEPALIVES": json.dumps({name: numbers[name] for name in _KEEPALIVES}),
            **{
                variable: self.parameters[name]
                for name, variable in _VARIABLES.items()
                if name in self.parameters
            },
        }


def parse(text: str, name: str) -> URL:
    """Parse a URL; `name` is its origin, for the error.

    Raises:
        ConfigurationError: when it is not a URL.
    """
    try:
        return make_url(text)
    except (ArgumentError, ValueError):  # ValueError: the port is not a number
        problem = "not a URL of that form" if text else "empty"
        # Without the cause: it may quote a part of the password.
        raise ConfigurationError(
            f"Set {name} to {FORM}; it is {problem}. The port must be one number; write "
            "@ : / ? # % in a user's name or password as %40 %3A %2F %3F %23 %25."
        ) from None


def from_url(url: URL, name: str) -> ConnectionParameters:
    """The connection parameters of a URL.

    Raises:
        ConfigurationError: when a part is missing, or can't be passed to both psycopg2 and dbt.
    """
    if url.drivername not in DRIVERS:
        _refuse(name, f"begins with {url.drivername}://", "Start it with postgresql://")
    query = {key: _one(key, value, name) for key, value in url.query.items()}
    parts = {part: _in_one_place(url, part, key, query, name) for key, part in _MOVED.items()}
    parameters = {key: value for key, value in query.items() if key not in _MOVED}
    _check_parameters(parameters, name)
    return ConnectionParameters(
        host=_one_host(_required(parts["host"], "host", name), name),
        port=_port(parts["port"], name),
        user=_required(parts["username"], "user", name),
        password=parts["password"] or None,
        database=_required(parts["database"], "database", name),
        parameters=parameters,
    )


def _one(key: str, value: str | Sequence[str], name: str) -> str:
    if not isinstance(value, str):
        _refuse(name, f"has {key} more than once", f"Give one value for {key}")
    return value


def _in_one_place(url: URL, part: str, key: str, query: Mapping[str, str], name: str) -> str | None:
    value = getattr(url, part)
    if key not in query:
        return None if value is None else str(value)
    if value not in (None, "") and str(value) != query[key]:
        _refuse(name, f"sets {key} before the ? and after it", "Keep one of the two")
    return query[key]


def _required(value: str | None, what: str, name: str) -> str:
    if not value:
        _refuse(name, f"has no {what}", f"Write it as {FORM}")
    return value


def _one_host(host: str, name: str) -> str:
    if "," in host:
        _refuse(name, f"names several hosts ({host})", "Name only the primary")
    return host


def _port(port: str | None, name: str) -> int:
    if port is not None and not (port.isdecimal() and 0 < int(port) < 65536):
        _refuse(name, f"has the port {port!r}", "Write one number from 1 to 65535")
    return int(port or PORT)


def _check_parameters(parameters: Mapping[str, str], name: str) -> None:
    for key, value in parameters.items():
        if key in _SET_BY_US:
            _refuse(name, f"sets {key}, which the pipeline sets itself", "Remove it")
        if key not in _VARIABLES and key not in _NUMBERS:
            known = ", ".join(sorted([*_VARIABLES, *_NUMBERS]))
            _refuse(name, f"has the parameter {key}, which can't be passed to dbt",
                    f"Remove it; these can be passed: {known}")  # fmt: skip
        if key in _NUMBERS and not value.isdecimal():
            _refuse(name, f"has {key}={value}", "Write a whole number")


def _refuse(name: str, what: str, remedy: str) -> NoReturn:
    raise ConfigurationError(f"{name} {what}. {remedy}.")
