"""A source's logins with their secret values; signs requests of several threads.

Secrets are read on the first request, and stay in this module.
"""

import math
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Sequence
from dataclasses import replace
from ssl import SSLContext
from threading import RLock
from time import monotonic
from urllib.parse import urlsplit

from requests import PreparedRequest

from flows.errors import Answer, BadPayloadError, ConfigurationError, RefusedLoginError
from flows.extract import url_policy
from flows.extract.auth import ClientCertificate, Exchange, ReadSecret
from flows.extract.client_certificate import tls_with
from flows.extract.response import Response
from flows.extract.tokens import ShareToken, Token, TokenRequest
from flows.extract.transport import Connection, NoResponseError
from flows.page import HttpRequest
from flows.redaction import Secrets, remember
from flows.source import Login

# RFC 9110, 5.5: a valid header value.
_HEADER_VALUE = re.compile(r"[!-~\x80-\xff]([\t -~\x80-\xff]*[!-~\x80-\xff])?")

Hide = Callable[[str], str]


class Credentials:
    """All logins of a source."""

    def __init__(
        self,
        logins: Sequence[Login],
        read_secret: ReadSecret,
        connection: Connection,
        share_token: ShareToken | None,
    ) -> None:
        self._secrets = Secrets()
        self._connection = connection
        self._tls: SSLContext | None = None
        self._params = frozenset(login.param for login in logins if login.param)
        self._credentials = [
            _Credential(login, read_secret, connection, share_token, self._hide) for login in logins
        ]

    def learn(self) -> None:
        """Read the secrets not yet read, and redact them in every text from now on.

        Raises:
            RefusedLoginError: a secret is missing.
        """
        for credential in self._credentials:
            credential.learn()

    def tls(self) -> SSLContext | None:
        """The settings of connections that show the login's certificate, if there is one.

        Raises:
            RefusedLoginError: the secret is missing, or holds no certificate.
        """
        for credential in self._credentials:
            if self._tls is None and isinstance(credential.login, ClientCertificate):
                self._tls = tls_with(credential.learn(), credential.login.secret)
        return self._tls

    def prepare(self, within_seconds: float) -> Sequence[str | None]:
        """Read the secrets and fetch tokens, unless they are known and still valid.

        Returns the values that sign the next requests.

        Raises:
            NoResponseError: the token server is down or busy.
            RefusedLoginError: a secret is missing, or the server refuses a token for it.
            UnavailableError: the newest refresh token can't be read or stored.
        """
        self._connection.show(self.tls())
        return [credential.prepare(within_seconds) for credential in self._credentials]

    def renew(self, refused: Sequence[str | None]) -> bool:
        """Forget values that were refused, unless another thread has already renewed them.

        Returns False if no login can get a new one.
        """
        renewed = list(map(_Credential.renew, self._credentials, refused))
        return any(renewed)

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign a request; without a login, leave it unchanged.

        Raises:
            RefusedLoginError: a secret is not a valid header value.
        """
        for credential in self._credentials:
            credential.sign(request)
        return request

    def is_login_page(self, url: str) -> bool:
        """Whether an address is that of a login, to which APIs redirect who is not logged in."""
        return any(credential.is_login_page(url) for credential in self._credentials)

    def _hide(self, secret: str) -> str:
        """Redact a secret in every text, and remove it from addresses that this API links to."""
        remember(secret)
        self._secrets.add(secret)
        return secret

    def unsigned(self, request: HttpRequest) -> HttpRequest:
        """A request that an API linked to, without the login, so it may be stored.

        Raises:
            BadPayloadError: the login is elsewhere than in its own query parameter.
        """
        is_public = url_policy.is_listed(request.url, request.public_hosts)
        params = frozenset[str]() if is_public else self._params
        url = url_policy.without_params(
            request.url, lambda name, value: name in params or self._secrets.is_secret(value)
        )
        request = replace(request, url=url)
        if self._secrets.shows_secret(str(request)):
            raise BadPayloadError(
                f"The API links to {request}, which contains the login and would be stored. "
                "Give the resource its own `paging` that removes the login."
            )
        return request


class _Credential:
    """One login with its secret value."""

    def __init__(
        self,
        login: Login,
        read_secret: ReadSecret,
        connection: Connection,
        share_token: ShareToken | None,
        hide: Hide,
    ) -> None:
        self.login = login
        self._read_secret = read_secret
        self._connection = connection
        self._share_token = share_token
        self._hide = hide
        self._lock = RLock()
        self._secret: str | None = None
        self._refresh_token = ""
        self._value: str | None = None
        self._refused: str | None = None
        self._ends_at = math.inf

    def learn(self) -> str:
        with self._lock:
            if self._secret is None:
                name = self.login.refresh_token if isinstance(self.login, Exchange) else ""
                self._refresh_token = self._hide(self._read_secret(name)) if name else ""
                self._secret = self._hide(self._read_secret(self.login.secret))
            return self._secret

    def prepare(self, within_seconds: float) -> str:
        with self._lock:
            if monotonic() >= self._ends_at:
                self.renew(self._value)
            if self._value is None:
                self._value = self._fetch_value(within_seconds)
            return self._value

    def _fetch_value(self, within_seconds: float) -> str:
        began_at = monotonic()
        secret = self.learn()
        if not isinstance(self.login, Exchange):
            return secret
        token = self._fetch_token(self.login, secret, within_seconds)
        self._ends_at = began_at + token.usable_seconds
        return self._hide(token.value)

    def renew(self, refused: str | None) -> bool:
        with self._lock:
            if self._value == refused:
                self._refused = refused
                self._secret = self._value = None
                self._ends_at = math.inf
        return isinstance(self.login, Exchange)

    def is_login_page(self, url: str) -> bool:
        page = getattr(self.login, "login_url", "")
        return bool(page) and urlsplit(url)._replace(query="", fragment="").geturl() == page

    def sign(self, request: PreparedRequest) -> None:
        value = self._value
        if value is None:
            return
        before = dict(request.headers)
        self.login.sign(request, value)
        for name, sent in request.headers.items():
            if sent != before.get(name):
                self._check_header(str(sent), value)

    def _check_header(self, sent: str, value: str) -> None:
        written = sent.rpartition(" ")[2]
        if shows(written, value):
            self._hide(written)
        if _HEADER_VALUE.fullmatch(sent) is None:
            raise RefusedLoginError(
                f"The secret {self.login.secret!r} contains a line break or a letter that can't "
                "be sent in a header. Store it again without it."
            )

    def _fetch_token(self, login: Exchange, known: str, within_seconds: float) -> Token:
        def exchange(refresh_token: str) -> Token:
            self._hide(refresh_token)
            token = self._exchange(login, known, refresh_token, within_seconds)
            for secret in (token.refresh_token, token.value, *token.parts):
                self._hide(secret)
            return token

        if not login.refresh_token:
            return exchange("")
        if self._share_token is None:
            raise ConfigurationError(
                f"The refresh token {login.refresh_token!r} may be replaced when it is used, and "
                "nothing here stores the next one. Run the source's deployment. For `make "
                "preview`, set WAREHOUSE_URL to the warehouse in which its runs keep it."
            )
        return self._share_token(
            login.refresh_token, self._refresh_token, self._refused, exchange, within_seconds
        )

    def _exchange(
        self, login: Exchange, secret: str, refresh_token: str, within_seconds: float
    ) -> Token:
        asked = login.ask(secret, refresh_token)
        response = self._send(asked, secret, within_seconds)
        if response.is_retryable:
            raise NoResponseError(f"no token from {asked.url}: it {response}", False, response)
        token = login.read(response)
        if token is None:
            # A successful response may contain an unreadable token, so it is not quoted.
            is_quoted = not response.is_success
            problem = response if is_quoted else f"answered {response.status}"
            start = response.start if is_quoted else ""
            raise RefusedLoginError(
                f"{asked.url} {login.lacks}: it {problem}. {login.remedy}",
                Answer(asked.url, response.status, start, 1),
            )
        return token

    def _send(self, asked: TokenRequest, secret: str, within_seconds: float) -> Response:
        def sign(request: PreparedRequest) -> PreparedRequest:
            url_policy.check_any(str(request.url), has_login=True)
            for name, value in asked.headers.items():
                request.headers[name] = value
                self._check_header(value, secret)
            return request

        request = HttpRequest(asked.url, "POST", body=None if asked.form else asked.json)
        try:
            return self._connection.send(request, sign, within_seconds, asked.form)
        except NoResponseError as error:
            raise NoResponseError(f"no token from {asked.url}: {error}", False) from error


def shows(written: str, secret: str) -> bool:
    """Whether a part of a header reveals the secret, as it is or in base64; a hash does not."""
    if secret in written:
        return True
    try:
        return secret.encode() in b64decode(written, validate=True)
    except (NotBase64, ValueError):
        return False
