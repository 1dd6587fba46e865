"""Logins: the catalogue's rows in pages with a next URL, for those who show who they are.

The credentials are this sample's own and protect nothing.
"""

import base64
import hmac
import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from threading import Lock
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

from tests.fault_api.exchange import JSON_TYPE, Answer, Ask, AskError, as_json

KEY = "sample-api-key"
KEY_HEADER, KEY_PARAM = "X-Api-Key", "api_key"
BEARER_TOKEN = "sample-bearer-token"  # noqa: S105 (protects nothing)
USER, PASSWORD = "sample-user", "sample-password"
CLIENT_ID, CLIENT_SECRET = "sample-client", "sample-client-secret"
REFRESH_TOKEN = "sample-refresh-token"  # noqa: S105 (protects nothing)
COOKIE = "sample-session"
JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
APP_KEY_HEADER = "X-App-Key"
TOKEN_SECONDS = 3600
BASIC_CHALLENGE = {"WWW-Authenticate": 'Basic realm="sample"'}


class Tokens:
    """The access tokens that were issued, and how many requests each is still good for."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._left: dict[str, int | None] = {}
        self._issued_count = 0
        self._refresh_token = REFRESH_TOKEN

    def issue(self, requests: int | None = None) -> str:
        """A new token, good for so many requests; None for any number."""
        with self._lock:
            self._issued_count += 1
            token = f"sample-access-token-{self._issued_count}"
            self._left[token] = requests
            return token

    def rotate(self, refresh_token: str) -> str | None:
        """The refresh token that replaces this one; None if it is not the newest."""
        with self._lock:
            if refresh_token != self._refresh_token:
                return None
            self._refresh_token = f"{REFRESH_TOKEN}-{self._issued_count}"
            return self._refresh_token

    def use(self, token: str) -> bool:
        """Whether the token is good for this request."""
        with self._lock:
            left = self._left.get(token, 0)
            if left is not None and left > 0:
                self._left[token] = left - 1
            return left != 0

    def expire(self) -> None:
        """Let all tokens expire that were issued so far."""
        with self._lock:
            self._left.clear()


def check(name: str, ask: Ask, tokens: Tokens) -> None:
    """Let through who shows the login of that name.

    Raises:
        AskError: when the credentials are wrong or missing, or there is no such login.
    """
    known = {**LOGINS, **RARE_LOGINS}
    if name not in known:
        raise AskError(f"There is no login {name!r}; there are {', '.join(known)}.", 404)
    is_known, challenge = known[name]
    if not is_known(ask, tokens):
        headers = {"WWW-Authenticate": challenge} if challenge else {}
        raise AskError(f"The login {name!r} is refused.", 401, headers)


def token(ask: Ask, tokens: Tokens, requests: int | None, expires_in: int) -> Answer:
    """The token endpoint (RFC 6749, 4.4 and 6): credentials in a Basic header or in the body.

    A refresh token is good for one request, whose answer has the next one.

    Args:
        ask: the request for a token.
        tokens: where the new token is kept.
        requests: how many requests the token is good for; None for any number.
        expires_in: the seconds that the answer promises.
    """
    is_json = ask.headers.get("content-type") == JSON_TYPE
    form = ask.arguments if is_json else dict(parse_qsl(ask.body.decode()))
    if form.get("grant_type") == JWT_GRANT:
        return _token_for_jwt(form.get("assertion", ""), tokens)
    named = _basic(form.get("client_id", ""), form.get("client_secret", ""))
    if _basic(CLIENT_ID, CLIENT_SECRET) not in (ask.headers.get("authorization"), named):
        return as_json({"error": "invalid_client"}, 401, BASIC_CHALLENGE)
    grant, more = form.get("grant_type"), {}
    if ask.method != "POST" or grant not in {"client_credentials", "refresh_token"}:
        return as_json({"error": "unsupported_grant_type"}, 400)
    if grant == "refresh_token":
        more = {"refresh_token": tokens.rotate(form.get("refresh_token", ""))}
        if more["refresh_token"] is None:
            return as_json({"error": "invalid_grant"}, 400)
    issued = tokens.issue(requests)
    return as_json(
        {"access_token": issued, "token_type": "Bearer", "expires_in": expires_in, **more},
        headers={"Cache-Control": "no-store"},
    )


@cache
def service_account_key() -> RSAPrivateKey:
    """The private key of the sample's service account, made at its first use."""
    return generate_private_key(65537, 2048)


def _token_for_jwt(assertion: str, tokens: Tokens) -> Answer:
    """The grant of RFC 7523, for a JWT that our service account signed with RS256."""
    text, _, signature = assertion.rpartition(".")
    try:
        public_key = service_account_key().public_key()
        public_key.verify(_decoded(signature), text.encode(), PKCS1v15(), SHA256())
        claims = json.loads(_decoded(text.partition(".")[2]))
    except (InvalidSignature, ValueError):
        return as_json({"error": "invalid_grant"}, 400)
    if claims["iss"] != CLIENT_ID or not claims["iat"] <= time.time() < claims["exp"]:
        return as_json({"error": "invalid_grant"}, 400)
    return as_json({"access_token": tokens.issue(), "expires_in": TOKEN_SECONDS})


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def session(ask: Ask, tokens: Tokens) -> Answer:
    """The login page: user and password in a form; its answer sets a cookie."""
    if dict(parse_qsl(ask.body.decode())) != {"user": USER, "password": PASSWORD}:
        return as_json({"error": "wrong user or password"}, 401)
    return as_json({}, headers={"Set-Cookie": f"{COOKIE}={tokens.issue()}; Path=/"})


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _header_key(ask: Ask, _: Tokens) -> bool:
    return ask.headers.get(KEY_HEADER.lower()) == KEY


def _query_key(ask: Ask, _: Tokens) -> bool:
    return bool(ask.arguments.get(KEY_PARAM) == KEY)


def _bearer(ask: Ask, _: Tokens) -> bool:
    return ask.headers.get("authorization") == f"Bearer {BEARER_TOKEN}"


def _basic_login(ask: Ask, _: Tokens) -> bool:
    return ask.headers.get("authorization") == _basic(USER, PASSWORD)


def _oauth2(ask: Ask, tokens: Tokens) -> bool:
    scheme, _, given = ask.headers.get("authorization", "").partition(" ")
    return scheme == "Bearer" and tokens.use(given)


def _two_keys(ask: Ask, tokens: Tokens) -> bool:
    return _header_key(ask, tokens) and ask.headers.get(APP_KEY_HEADER.lower()) == PASSWORD


def _signed(ask: Ask, _: Tokens) -> bool:
    expected = hmac.digest(KEY.encode(), f"{ask.method} {ask.target}".encode(), "sha256").hex()
    return ask.headers.get("x-signature") == expected


def _cookie(ask: Ask, tokens: Tokens) -> bool:
    cookies = dict(parse_qsl(ask.headers.get("cookie", ""), separator=";"))
    return tokens.use(cookies.get(COOKIE, ""))


LOGINS: Mapping[str, tuple[Callable[[Ask, Tokens], bool], str]] = {
    "header_key": (_header_key, ""),
    "query_key": (_query_key, ""),
    "bearer": (_bearer, 'Bearer realm="sample"'),
    "basic": (_basic_login, 'Basic realm="sample"'),
    "oauth2": (_oauth2, 'Bearer realm="sample", error="invalid_token"'),
}
# Examples of docs/sources.md, without a fault at every request.
RARE_LOGINS: Mapping[str, tuple[Callable[[Ask, Tokens], bool], str]] = {
    "two_keys": (_two_keys, ""),
    "signed": (_signed, ""),
    "cookie": (_cookie, ""),
}
