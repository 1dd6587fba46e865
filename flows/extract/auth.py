"""Logins: what a source declares, and how its requests are then signed.

A declaration names its secret; the value is read on the first request and stays in this module.
"""

import json
import math
import os
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import RLock
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

# A token is renewed this long before it expires, to allow for clock skew and slow responses.
MARGIN_SECONDS = 60
MARGIN_SHARE = 0.1

# RFC 9110, 5.5: a valid header value.
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
    """A key in a header or in a query parameter; `secret` is the name of the key's secret."""

    secret: str
    header: str = ""
    param: str = ""

    def __post_init__(self) -> None:
        """Require either a header or a param."""
        if bool(self.header) == bool(self.param):
            raise ConfigurationError("ApiKey needs either a header or a param.")

    def sign(self, request: PreparedRequest, value: str) -> None:
        if self.param:
            request.url = url_policy.with_param(str(request.url), self.param, value)
        else:
            request.headers[self.header] = value


@dataclass(frozen=True)
class Bearer:
    """A token in the Authorization header (RFC 6750); `secret` is the name of the token's secret.

    Attributes:
        scheme: the word before the token; some APIs require `Token` or `Bot`.
    """

    secret: str
    scheme: str = "Bearer"
    param: str = ""

    def sign(self, request: PreparedRequest, value: str) -> None:
        request.headers["Authorization"] = f"{self.scheme} {value}"


@dataclass(frozen=True)
class Basic:
    """A user and a password (RFC 7617); `secret` is the name of the password's secret."""

    user: str
    secret: str
    param: str = ""

    def sign(self, request: PreparedRequest, value: str) -> None:
        request.headers["Authorization"] = _basic(self.user, value)


@dataclass(frozen=True)
class OAuth2:
    """Client credentials (RFC 6749, 4.4): fetches a token first, and a new one when it expires.

    It expires when the API refuses it, or shortly before its `expires_in` ends.

    Attributes:
        token_url: absolute address of the token endpoint.
        secret: the name of the client secret.
    """

    token_url: str
    client_id: str
    secret: str
    scope: str = ""
    param: str = ""

    def sign(self, request: PreparedRequest, value: str) -> None:
        request.headers["Authorization"] = f"Bearer {value}"

    def form(self) -> dict[str, str]:
        """The form fields of a token request, besides the client's login."""
        scope = {"scope": self.scope} if self.scope else {}
        return {"grant_type": "client_credentials", **scope}


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


@dataclass(frozen=True)
class _Token:
    """An access token.

    Attributes:
        lifetime_seconds: as promised by the server; infinite if it promises nothing.
    """

    value: str = field(repr=False)
    lifetime_seconds: float

    @property
    def usable_seconds(self) -> float:
        """How long to use the token before renewing it."""
        margin = min(MARGIN_SECONDS, MARGIN_SHARE * self.lifetime_seconds)
        return self.lifetime_seconds - margin


class Credentials:
    """A source's login with its secret value; signs requests of several threads."""

    def __init__(
        self, login: Login | None, read_secret: ReadSecret, connection: Connection
    ) -> None:
        self._login = login
        self._read_secret = read_secret
        self._connection = connection
        self._lock = RLock()
        self._secrets = Secrets()
        self._secret: str | None = None
        self._value: str | None = None
        self._ends_at = math.inf

    def learn(self) -> None:
        """Read the secret if not yet read, and redact it in every text from now on.

        Raises:
            RefusedLoginError: the secret is missing.
        """
        with self._lock:
            if self._login is not None and self._secret is None:
                self._secret = self._hide(self._read_secret(self._login.secret))

    def prepare(self, within_seconds: float) -> str | None:
        """Read the secret and fetch the token, unless both are known and still valid.

        Returns the value that signs the next requests.

        Raises:
            NoResponseError: the token server is down or busy.
            RefusedLoginError: the secret is missing, or the server refuses a token for it.
        """
        with self._lock:
            if monotonic() >= self._ends_at:
                self.renew(self._value)
            if self._login is not None and self._value is None:
                self._value = self._fetch_value(self._login, within_seconds)
            return self._value

    def _fetch_value(self, login: Login, within_seconds: float) -> str:
        began_at = monotonic()
        self.learn()
        value = self._secret or ""
        if isinstance(login, OAuth2):
            token = self._fetch_token(login, value, within_seconds)
            value = self._hide(token.value)
            self._ends_at = began_at + token.usable_seconds
        return value

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign a request; without a login, leave it unchanged.

        Raises:
            RefusedLoginError: the secret is not a valid header value.
        """
        value = self._value
        if self._login is not None and value is not None:
            before = dict(request.headers)
            self._login.sign(request, value)
            for name, value in request.headers.items():
                if value != before.get(name):
                    self._check_header(self._login, str(value))
        return request

    def _check_header(self, login: Login, value: str) -> None:
        self._hide(value.rpartition(" ")[2])
        if _HEADER_VALUE.fullmatch(value) is None:
            raise RefusedLoginError(
                f"The secret {login.secret!r} contains a line break or a letter that can't be "
                "sent in a header. Store it again without it."
            )

    def _hide(self, secret: str) -> str:
        """Redact a secret in every text, and remove it from addresses that this API links to."""
        remember(secret)
        self._secrets.add(secret)
        return secret

    def renew(self, refused: str | None) -> bool:
        """Forget a token that expired, unless another thread has already renewed it.

        Returns False if the login can't get a new one.
        """
        with self._lock:
            if self._value == refused:
                self._secret = self._value = None
                self._ends_at = math.inf
        return isinstance(self._login, OAuth2)

    def unsigned(self, request: HttpRequest) -> HttpRequest:
        """A request that an API linked to, without the login, so it may be stored.

        Raises:
            BadPayloadError: the login is elsewhere than in its own query parameter.
        """
        param = self._login.param if self._login else ""
        url = url_policy.without_params(
            request.url,
            lambda name, value: (bool(param) and name == param) or self._secrets.is_secret(value),
        )
        request = replace(request, url=url)
        if self._secrets.shows_secret(str(request)):
            raise BadPayloadError(
                f"The API links to {request}, which contains the login and would be stored. "
                "Give the resource its own `paging` that removes the login."
            )
        return request

    def _fetch_token(self, login: OAuth2, client_secret: str, within_seconds: float) -> _Token:
        response = self._request_token(login, client_secret, within_seconds)
        if response.is_retryable:
            raise NoResponseError(
                f"no token from {login.token_url}: it {response}", False, response
            )
        token = _parse_token(response)
        if token is None:
            # A successful response may contain an unreadable token, so it is not quoted.
            is_quoted = not response.is_success
            problem = response if is_quoted else f"answered {response.status}"
            start = response.start if is_quoted else ""
            raise RefusedLoginError(
                f"{login.token_url} gave client {login.client_id!r} no token: it {problem}. "
                f"Correct the client or its secret {login.secret!r}.",
                Answer(login.token_url, response.status, start, 1),
            )
        return token

    def _request_token(self, login: OAuth2, client_secret: str, within_seconds: float) -> Response:
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


def _parse_token(response: Response) -> _Token | None:
    """The access token, if there is one (RFC 6749, 5.1)."""
    try:
        document = json.loads(response.body) if response.is_success else {}
        value = document["access_token"]
    except (ValueError, LookupError, TypeError):
        return None
    if not isinstance(value, str) or not value:
        return None
    return _Token(value, _lifetime_seconds(document.get("expires_in")))


def _lifetime_seconds(expires_in: object) -> float:
    """The seconds, as a number or as text; infinite if they make no sense."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return math.inf
    try:
        seconds = float(expires_in)
    except (ValueError, OverflowError):
        return math.inf
    return seconds if seconds > 0 else math.inf
