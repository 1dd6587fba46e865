"""Logins: what a source declares, and how its requests are then signed.

A declaration names its secret; `flows.extract.credentials` knows the value.
"""

import os
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from requests import PreparedRequest

from flows.errors import ConfigurationError, RefusedLoginError
from flows.extract import url_policy
from flows.extract.response import Response
from flows.extract.tokens import Token, TokenRequest, parse_token
from flows.guards import call_own
from flows.redaction import SHORTEST_IN_ADDRESSES, remember
from flows.source import Login

ReadSecret = Callable[[str], str]

# A shorter value that a login posts may be an ordinary word, such as a user's name.
SHORTEST_DERIVED = 16

# Names of secrets in token requests (RFC 6749), which do not belong in a declaration.
SECRET_FIELDS = frozenset({"client_secret", "refresh_token", "password"})


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
        raise RefusedLoginError(f"The secret {name!r} is missing: set {variable(name)}, in .env.")
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
class Signed:
    """Requests that a function of the source signs, e.g. with an HMAC.

    Attributes:
        secret: the name of the key's secret.
        function: gets each request just before it is sent, with its URL, headers and body, and the
            secret's value; it adds headers. A repeated request is signed again.
        param: the query parameter that it adds, if any.
    """

    secret: str
    function: Callable[[PreparedRequest, str], None]
    param: str = ""

    def sign(self, request: PreparedRequest, value: str) -> None:
        call_own(f"Signed({self.secret!r})", "function", self.function, request, value)


@dataclass(frozen=True)
class ClientCertificate:
    """A certificate by which the API knows the client (mutual TLS).

    Attributes:
        secret: the name of the secret that holds the certificate and its private key, in PEM.
    """

    secret: str
    param: str = ""

    def sign(self, request: PreparedRequest, value: str) -> None:
        """Leave the request as it is: the connection shows the certificate."""


@runtime_checkable
class Exchange(Login, Protocol):
    """A login whose secret is exchanged for what signs the requests, such as a token.

    It is exchanged again when that ends or is refused.
    """

    @property
    def refresh_token(self) -> str:
        """The name under which a refresh token is kept; empty where there is none."""

    @property
    def lacks(self) -> str:
        """Says of an address that it gave nothing: `gave client 'shop' no token`."""

    @property
    def remedy(self) -> str:
        """What to do then."""

    def ask(self, secret: str, refresh_token: str) -> TokenRequest:
        """The request that exchanges the secret, or the refresh token if there is one."""

    def read(self, response: Response) -> Token | None:
        """What the response gives, if it gives anything."""


@dataclass(frozen=True)
class OAuth2:
    """Fetches a token with client credentials (RFC 6749, 4.4), and a new one when it expires.

    It expires when the API refuses it, or shortly before its `expires_in` ends. With a refresh
    token, that is exchanged instead (RFC 6749, 6), and the one that replaces it is kept.

    Attributes:
        token_url: absolute address of the token endpoint.
        secret: the name of the client secret.
        fields: more fields of the token request, e.g. `audience`; they replace those of the same
            name, e.g. `grant_type`.
        sends: where the client's id and secret are: in a Basic header beside a form, in the form,
            or in a body that is JSON.
        refresh_token: the name of the secret that holds the first refresh token.
    """

    token_url: str
    client_id: str
    secret: str
    scope: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    sends: Literal["header", "form", "json"] = "header"
    param: str = ""
    refresh_token: str = ""

    def __post_init__(self) -> None:
        """Refuse secrets in the declaration."""
        if named := SECRET_FIELDS & {*self.fields}:
            raise ConfigurationError(
                f"OAuth2: `fields` has {', '.join(sorted(named))}, which is a secret. Name the "
                "secret instead, e.g. secret='shop-client-secret'."
            )

    def sign(self, request: PreparedRequest, value: str) -> None:
        request.headers["Authorization"] = f"Bearer {value}"

    @property
    def lacks(self) -> str:
        return f"gave client {self.client_id!r} no token"

    @property
    def remedy(self) -> str:
        remedy = f"Correct the client or its secret {self.secret!r}."
        if self.sends == "header":
            remedy += ' If both are right, the provider may want them in the body: sends="form".'
        if self.refresh_token:
            remedy += (
                " If the refresh token is what it refuses (invalid_grant), authorize the client "
                f"again and store the new refresh token as {self.refresh_token!r}."
            )
        return remedy

    def ask(self, secret: str, refresh_token: str) -> TokenRequest:
        grant = {"grant_type": "client_credentials"}
        if refresh_token:
            grant = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        scope = {"scope": self.scope} if self.scope else {}
        fields = {**grant, **scope, **self.fields}
        if self.sends == "header":
            basic = {"Authorization": _basic(self.client_id, secret)}
            return TokenRequest(self.token_url, basic, form=fields)
        fields |= {"client_id": self.client_id, "client_secret": secret}
        if self.sends == "form":
            return TokenRequest(self.token_url, form=fields)
        return TokenRequest(self.token_url, json=fields)

    def read(self, response: Response) -> Token | None:
        return parse_token(response)


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def _hide_derived(value: str, secret: str) -> None:
    """Redact what a function made of the secret, such as a hash of a password; no ordinary word."""
    if len(value) >= SHORTEST_DERIVED and secret not in value:
        remember(value)


@dataclass(frozen=True)
class SessionCookie:
    """Logs in with a POST and sends the cookies of its answer, until the API refuses them.

    It refuses them with 401, or with a redirect to `login_url`.

    Attributes:
        login_url: absolute address that the login is posted to.
        secret: the name of the password's secret.
        fields: gets the password, and returns what is posted.
        sends: whether that is a form or JSON.
    """

    login_url: str
    secret: str
    fields: Callable[[str], Mapping[str, str]]
    sends: Literal["form", "json"] = "form"
    param: str = ""
    refresh_token: str = ""

    def sign(self, request: PreparedRequest, value: str) -> None:
        """Add the cookies to those that the API has set since."""
        names = {_cookie_name(pair) for pair in value.split("; ")}
        others = [
            pair
            for pair in request.headers.get("Cookie", "").split("; ")
            if pair and _cookie_name(pair) not in names
        ]
        request.headers["Cookie"] = "; ".join([value, *others])

    @property
    def lacks(self) -> str:
        return "set no cookie"

    @property
    def remedy(self) -> str:
        return f"Correct the login's `fields` or its secret {self.secret!r}."

    def ask(self, secret: str, refresh_token: str) -> TokenRequest:
        fields = call_own(f"SessionCookie({self.secret!r})", "fields", self.fields, secret)
        for value in fields.values():
            _hide_derived(value, secret)
        if self.sends == "form":
            return TokenRequest(self.login_url, form=fields)
        return TokenRequest(self.login_url, json=fields)

    def read(self, response: Response) -> Token | None:
        if response.status >= 400 or not response.cookies:
            return None
        pairs = [f"{name}={value}" for name, value in response.cookies.items()]
        # A shorter value, such as that of `lang=en`, is a word rather than a secret.
        long = (each for each in response.cookies.values() if len(each) >= SHORTEST_IN_ADDRESSES)
        return Token("; ".join(pairs), parts=tuple(long))


def _cookie_name(pair: str) -> str:
    return pair.partition("=")[0]


@dataclass(frozen=True)
class ServiceAccount:
    """Exchanges a JWT that a function signs for a token (RFC 7523), as for Google's accounts.

    Attributes:
        token_url: absolute address of the token endpoint.
        secret: the name of the private key's secret.
        assertion: gets the private key, and returns a JWT that is signed with it. It is called for
            each new token.
        fields: more fields of the token request.
    """

    token_url: str
    secret: str
    assertion: Callable[[str], str]
    fields: Mapping[str, str] = field(default_factory=dict)
    param: str = ""
    refresh_token: str = ""

    def sign(self, request: PreparedRequest, value: str) -> None:
        request.headers["Authorization"] = f"Bearer {value}"

    @property
    def lacks(self) -> str:
        return "gave no token"

    @property
    def remedy(self) -> str:
        return f"Correct what `assertion` returns, or its secret {self.secret!r}."

    def ask(self, secret: str, refresh_token: str) -> TokenRequest:
        signed = call_own(f"ServiceAccount({self.secret!r})", "assertion", self.assertion, secret)
        remember(signed)
        grant = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed}
        return TokenRequest(self.token_url, form={**grant, **self.fields})

    def read(self, response: Response) -> Token | None:
        return parse_token(response)
