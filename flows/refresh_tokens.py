"""Refresh tokens of all processes: the newest one is in the warehouse (`elt.refresh_tokens`).

A provider may invalidate a refresh token when it hands out the next one. So one process at a time
exchanges it, while its transaction locks the row, and stores the answer before anybody uses it.
The tokens are encrypted with the first refresh token, which is the login's secret: who has only
the warehouse can't read them.
"""

import hmac
import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from time import monotonic, sleep

import psycopg2
import psycopg2.errors
from cryptography.fernet import Fernet, InvalidToken
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError, EltError, UnavailableError
from flows.extract.tokens import Token
from flows.load import ledger
from flows.postgres import locks
from flows.postgres.errors import naming_errors

# A token that was received is lost with the process, so Postgres gets this long to come back.
STORE_SECONDS = 300.0
PAUSE_SECONDS = 1.0

# A row of its own for each first token, to lock it.
_BEGIN = """
select set_config('lock_timeout', %s, true), set_config('synchronous_commit', 'on', true);
insert into elt.refresh_tokens (chain, secret) values (%s, %s) on conflict do nothing
"""
_LOCK = """
select
    tokens, renewals, clock_timestamp(),
    extract(epoch from usable_until - clock_timestamp())::float
from elt.refresh_tokens where chain = %s for update
"""
# Unless another process has exchanged it since.
_STORE = """
insert into elt.refresh_tokens (chain, secret, tokens, renewals, renewed_at, usable_until)
values (
    %(chain)s, %(secret)s, %(tokens)s, %(renewals)s, clock_timestamp(),
    %(began_at)s::timestamptz + %(usable_seconds)s * interval '1 second'
)
on conflict (chain) do update set
    tokens = excluded.tokens, renewals = excluded.renewals, renewed_at = excluded.renewed_at,
    usable_until = excluded.usable_until
where refresh_tokens.renewals = excluded.renewals - 1
"""


class RefreshTokens:
    """Shares the tokens of a source's logins; see `flows.extract.tokens.ShareToken`."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """`connect` opens a new session of the warehouse."""
        self._connect = connect

    def __call__(
        self,
        name: str,
        first: str,
        refused: str | None,
        exchange: Callable[[str], Token],
        within_seconds: float,
    ) -> Token:
        """The token in use, or a new one.

        Raises:
            UnavailableError: Postgres is down, or another process takes too long to exchange.
            ConfigurationError: the database role may not use the table.
        """
        chain = _Chain(name, first)
        wait_seconds = within_seconds + STORE_SECONDS
        with _naming_errors(name), closing(self._connect()) as connection:
            with connection, connection.cursor() as cursor:
                ledger.prepare(cursor, ledger.OWN.name)
            with connection.cursor() as cursor:
                stored = chain.lock(cursor, wait_seconds)
            if stored.is_usable and stored.token.value != refused:
                return stored.token
            token = exchange(stored.token.refresh_token)
            values = chain.values(stored, token)
            problem = _store(connection, values)
        if problem is not None:
            self._store_later(name, values, problem)
        return token

    def _store_later(
        self, name: str, values: Mapping[str, object], problem: psycopg2.Error | EltError
    ) -> None:
        """Store tokens once Postgres is back.

        Raises:
            UnavailableError: it was not back in time.
        """
        ends_at = monotonic() + STORE_SECONDS
        found: psycopg2.Error | EltError | None = problem
        while found is not None:
            if monotonic() >= ends_at:
                raise UnavailableError(
                    f"The refresh token that replaces {name!r} could not be stored within "
                    f"{STORE_SECONDS:.0f} s: {found} The next run tries the earlier one. If it is "
                    f"refused, authorize the client again and store the new one as {name!r}."
                ) from found
            sleep(PAUSE_SECONDS)
            try:
                with closing(self._connect()) as connection:
                    found = _store(connection, values)
            except (psycopg2.Error, EltError) as error:
                found = error


@dataclass(frozen=True)
class _Stored:
    token: Token
    renewals: int
    began_at: object

    @property
    def is_usable(self) -> bool:
        return bool(self.token.value) and self.token.usable_seconds > 0


@dataclass(frozen=True)
class _Chain:
    """The tokens that descend from a first refresh token."""

    name: str
    first: str = field(repr=False)

    @property
    def _id(self) -> str:
        return self._derive("chain").hex()

    @property
    def _cipher(self) -> Fernet:
        return Fernet(urlsafe_b64encode(self._derive("key")))

    def _derive(self, purpose: str) -> bytes:
        return hmac.digest(self.first.encode(), f"elt.refresh_tokens {purpose}".encode(), "sha256")

    def lock(self, cursor: Cursor, wait_seconds: float) -> _Stored:
        """The newest tokens, which no other process gets before the transaction's end."""
        cursor.execute(_BEGIN, [locks.milliseconds(wait_seconds), self._id, self.name])
        cursor.execute(_LOCK, [self._id])
        [(tokens, renewals, began_at, left_seconds)] = cursor.fetchall()
        token = Token("", refresh_token=self.first)
        if tokens is not None:
            found = self._decrypt(tokens)
            usable_seconds = math.inf if left_seconds is None else left_seconds
            token = Token(found["access_token"], usable_seconds, found["refresh_token"])
        return _Stored(token, renewals, began_at)

    def _decrypt(self, tokens: str) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads(self._cipher.decrypt(tokens))
        except InvalidToken as error:
            raise ConfigurationError(
                f"The tokens of {self.name!r} in elt.refresh_tokens were changed by somebody else. "
                f"Delete the row (chain = '{self._id}'), authorize the client again, and store the "
                f"new refresh token as {self.name!r}."
            ) from error
        return found

    def values(self, before: _Stored, token: Token) -> dict[str, object]:
        """What to store; a provider that sends no new refresh token lets the old one live."""
        kept = {
            "access_token": token.value,
            "refresh_token": token.refresh_token or before.token.refresh_token,
        }
        is_endless = math.isinf(token.usable_seconds)
        return {
            "chain": self._id,
            "secret": self.name,
            "tokens": self._cipher.encrypt(json.dumps(kept).encode()).decode(),
            "renewals": before.renewals + 1,
            "began_at": before.began_at,
            "usable_seconds": None if is_endless else token.usable_seconds,
        }


def _store(connection: Connection, values: Mapping[str, object]) -> psycopg2.Error | None:
    """Store and commit; returns what went wrong."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(_STORE, values)
        connection.commit()
    except psycopg2.Error as error:
        return error
    return None


@contextmanager
def _naming_errors(name: str) -> Iterator[None]:
    try:
        with naming_errors(f"The refresh token {name!r}", f"the refresh token {name!r} was read"):
            yield
    except psycopg2.errors.LockNotAvailable as error:
        raise UnavailableError(
            f"Another process has been exchanging the refresh token {name!r} for too long. Look at "
            "the sessions that lock elt.refresh_tokens, then run this again."
        ) from error
