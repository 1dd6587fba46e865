"""Ways to log in: what a source declares, and how a request then shows who asks.

A declaration names its secret; the value is read when the first request is made, and stays here.
"""

import json
import math
import os
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic

from requests import PreparedRequest

from flows.errors import Answer, BadPayloadError, ConfigurationError, RefusedLoginError
from flows.extract import url_policy
from flows.extract.response import Response
from flows.extract.transport import Connection, NoResponseError
from flows.page import HttpRequest
from flows.redaction import Secrets, remember
from flows.source import Login

ReadSecret = Callable[[str], str]

# How long before its end a token is renewed: for clocks that differ, and answers that take time.
MARGIN_SECONDS = 60
MARGIN_SHARE = 0.1

# RFC 9110, 5.5: what a header may hold.
_HEADER_VALUE = re.compile(r"[!-~\x80-\xff]([\t -~\x80-\xff]*[!-~\x80-\xff])?")


def variable(name: str) -> str:
    """The environment variable of a secret: SHOP_TOKEN for `shop-token`."""
    return re.sub("[^A-Z0-9]", "_", name.upper())


def secret_from_environment(name: str) -> str:
    """The value of a secret.

    Raises:
        RefusedLoginError: when its variable is not set.
    """
    value = os.environ.get(variable(name), "")
    if not value:
        raise RefusedLoginError(f"The secret {name!r} is missing: set {variable(name)}.")
    return value


@dataclass(frozen=True)
class ApiKey:
    """A key in a header or in a query parameter; `secret` is the name under which it is kept."""

    secret: str
    header: str = ""
    param: str = ""

    def __post_init__(self) -> None:
        """Refuse a key that would be sent nowhere, or twice."""
        if bool(self.header) == bool(self.param):
            raise ConfigurationError("ApiKey needs either a header or a param.")

    def sign(self, request: PreparedRequest, value: str) -> None:
        """Put the key where the API looks for it."""
        if self.param:
            request.url = url_policy.with_param(str(request.url), self.param, value)
        else:
            request.headers[self.header] = value


@dataclass(frozen=True)
class Bearer:
    """A token in the Authorization header (RFC 6750); `secret` is the name under which it is kept.

    Attributes:
        scheme: what stands before the token: some APIs want `Token` or `Bot`.
    """

    secret: str
    scheme: str = "Bearer"
    param: str = ""

    def sign(self, request: PreparedRequest, value: str) -> None:
        """Set the Authorization header."""
        request.headers["Authorization"] = f"{self.scheme} {value}"


@dataclass(frozen=True)
class Basic:
    """A user and a password (RFC 7617); `secret` is the name under which the password is kept."""

    user: str
    secret: str
    param: str = ""

    def sign(self, request: PreparedRequest, value: str) -> None:
        """Set the Authorization header."""
        request.headers["Authorization"] = _basic(self.user, value)


@dataclass(frozen=True)
class OAuth2:
    """Client credentials (RFC 6749, 4.4): a token is fetched first, and again when it ends.

    It ends when the API refuses it, or a little before its `expires_in` is over.

    Attributes:
        token_url: absolute; where tokens are given out.
        secret: the name under which the client secret is kept.
    """

    token_url: str
    client_id: str
    secret: str
    scope: str = ""
    param: str = ""

    def sign(self, request: PreparedRequest, value: str) -> None:
        """Set the Authorization header to a token."""
        request.headers["Authorization"] = f"Bearer {value}"

    def form(self) -> dict[str, str]:
        """What asks for a token, besides the client's own login."""
        scope = {"scope": self.scope} if self.scope else {}
        return {"grant_type": "client_credentials", **scope}


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


@dataclass(frozen=True)
class _Token:
    """An access token.

    Attributes:
        lifetime_seconds: what the server promises; infinite where it promises nothing.
    """

    value: str = field(repr=False)
    lifetime_seconds: float

    @property
    def usable_seconds(self) -> float:
        """How long to use it before it is renewed."""
        margin = min(MARGIN_SECONDS, MARGIN_SHARE * self.lifetime_seconds)
        return self.lifetime_seconds - margin


class Credentials:
    """A source's login with its value: signs requests."""

    def __init__(
        self, login: Login | None, read_secret: ReadSecret, connection: Connection
    ) -> None:
        self._login = login
        self._read_secret = read_secret
        self._connection = connection
        self._secrets = Secrets()
        self._secret: str | None = None
        self._value: str | None = None
        self._ends_at = math.inf

    def learn(self) -> None:
        """Read the secret, unless it is there already, and keep it out of every text from now on.

        Raises:
            RefusedLoginError: there is no such secret.
        """
        if self._login is not None and self._secret is None:
            self._secret = self._hide(self._read_secret(self._login.secret))

    def prepare(self, within_seconds: float) -> None:
        """Read the secret, and fetch the token, unless they are there already and have not ended.

        Raises:
            NoAnswerError: the server that gives out tokens is away or busy.
            RefusedLoginError: there is no such secret, or no token for it.
        """
        began_at = monotonic()
        if began_at >= self._ends_at:
            self.renew()
        if self._login is None or self._value is not None:
            return
        self.learn()
        value = self._secret or ""
        if isinstance(self._login, OAuth2):
            token = self._fetch_token(self._login, value, within_seconds)
            value = self._hide(token.value)
            self._ends_at = began_at + token.usable_seconds
        self._value = value

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign a request; without a login, leave it as it is.

        Raises:
            RefusedLoginError: when the secret can't stand in a header.
        """
        if self._login is not None and self._value is not None:
            before = dict(request.headers)
            self._login.sign(request, self._value)
            for name, value in request.headers.items():
                if value != before.get(name):
                    self._check_header(self._login, str(value))
        return request

    def _check_header(self, login: Login, value: str) -> None:
        self._hide(value.rpartition(" ")[2])
        if _HEADER_VALUE.fullmatch(value) is None:
            raise RefusedLoginError(
                f"The secret {login.secret!r} has a line break or a letter in it that can't be "
                "sent in a header. Store it again without."
            )

    def _hide(self, secret: str) -> str:
        """Keep a secret out of every text, and out of the addresses that this API leads to."""
        remember(secret)
        self._secrets.add(secret)
        return secret

    def renew(self) -> bool:
        """Forget a token that has ended; False where there is no way to get another one."""
        self._secret = self._value = None
        self._ends_at = math.inf
        return isinstance(self._login, OAuth2)

    def unsigned(self, request: HttpRequest) -> HttpRequest:
        """A request that an API led to, as it may be kept: without the login, if it is repeated.

        Raises:
            BadPayloadError: when it stands elsewhere than in a query parameter of its own.
        """
        param = self._login.param if self._login else ""
        url = url_policy.without_params(
            request.url,
            lambda name, value: (bool(param) and name == param) or self._secrets.is_secret(value),
        )
        request = replace(request, url=url)
        if self._secrets.shows_secret(str(request)):
            raise BadPayloadError(
                f"The API leads to {request}, with the login in it, which would be stored there. "
                "Give the resource a `paging` of its own that leaves it out."
            )
        return request

    def _fetch_token(self, login: OAuth2, client_secret: str, within_seconds: float) -> _Token:
        said = self._ask_for_token(login, client_secret, within_seconds)
        if said.is_retryable:
            raise NoResponseError(f"no token from {login.token_url}: it {said}", False, said)
        token = _token(said)
        if token is None:
            # A success may hold a token that could not be read: it is not quoted.
            told, start = (f"answered {said.status}", "") if said.is_success else (said, said.start)
            raise RefusedLoginError(
                f"{login.token_url} gave client {login.client_id!r} no token: it {told}. Correct "
                f"the client or its secret {login.secret!r}.",
                Answer(login.token_url, said.status, start, 1),
            )
        return token

    def _ask_for_token(self, login: OAuth2, client_secret: str, within_seconds: float) -> Response:
        def sign(request: PreparedRequest) -> PreparedRequest:
            url_policy.check_any(str(request.url), has_login=True)
            request.headers["Authorization"] = _basic(login.client_id, client_secret)
            self._hide(request.headers["Authorization"].rpartition(" ")[2])
            return request

        request = HttpRequest(login.token_url, "POST")
        try:
            return self._connection.send(request, sign, within_seconds, login.form())
        except NoResponseError as error:
            raise NoResponseError(f"no token from {login.token_url}: {error}", False) from error


def _token(said: Response) -> _Token | None:
    """The access token, where there is one (RFC 6749, 5.1)."""
    try:
        document = json.loads(said.body) if said.is_success else {}
        value = document["access_token"]
    except (ValueError, LookupError, TypeError):
        return None
    if not isinstance(value, str) or not value:
        return None
    return _Token(value, _lifetime_seconds(document.get("expires_in")))


def _lifetime_seconds(expires_in: object) -> float:
    """The seconds, also where they are sent as text; infinite where they make no sense."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return math.inf
    try:
        seconds = float(expires_in)
    except (ValueError, OverflowError):
        return math.inf
    return seconds if seconds > 0 else math.inf
