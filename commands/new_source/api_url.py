"""Parses the address that a person gives into the parts of a source, and a login if it has one.

A secret in the address is removed before anything is written or shown.
"""

import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from urllib.parse import SplitResult, unquote, unquote_plus, unquote_to_bytes, urlsplit

from flows.errors import ConfigurationError
from flows.extract.auth import ApiKey, Basic
from flows.extract.url_policy import without_params
from flows.source import Login

# Usual names of query parameters that hold a secret: in lower case, letters and digits only.
_LOGIN_PARAMS = frozenset(
    {
        "accesskey", "accesstoken", "apikey", "apitoken", "appid", "appkey", "apptoken",
        "authkey", "authorization", "authtoken", "clientsecret", "jwt", "key", "passwd",
        "password", "personalaccesstoken", "privatetoken", "pwd", "secret", "servicekey", "sig",
        "signature", "subscriptionkey", "token", "xaccesstoken", "xapikey", "xauthtoken",
    }
)  # fmt: skip
_UNFIT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class UrlLogin:
    """The login of an address, and the secret's value, which is not written anywhere."""

    login: Login
    value: str
    place: str


@dataclass(frozen=True)
class ApiUrl:
    """An address without its login.

    Attributes:
        url: safe to show.
        path: the last part, with braces doubled as `Resource.path` requires, and with the query
            if that can't be declared as parameters.
    """

    url: str
    base_url: str
    name: str
    path: str
    params: dict[str, str | list[str]]
    login: UrlLogin | None


def parsed(url: str, source: str) -> ApiUrl:
    """The parts of an address.

    Raises:
        ConfigurationError: when it names no resource, or a login in it can't be declared.
    """
    clean, login = _without_login(url.strip(), source)
    parts = _split(clean)
    path = parts.path.rstrip("/")
    folder, _, last = path.rpartition("/")
    if parts.scheme not in {"http", "https"} or not parts.netloc or not last or "//" in path:
        raise ConfigurationError(f"URL={clean} must name one resource: https://host/path/orders")
    declared = (last + parts.path[len(path) :]).replace("{", "{{").replace("}", "}}")
    params = _params(parts.query)
    if params is None:
        query = parts.query.replace("{", "{{").replace("}", "}}")
        declared, params = f"{declared}?{query}", {}
    base_url = f"{parts.scheme}://{parts.netloc}{folder}/"
    return ApiUrl(clean, base_url, unquote(last).split(".")[0], declared, params, login)


def _split(url: str) -> SplitResult:
    """Split the address. An error does not show it, because it may contain a secret.

    Raises:
        ConfigurationError: when the address is invalid.
    """
    if _UNFIT.search(url):
        raise ConfigurationError(
            "The URL contains a line break, another control character or an unpaired surrogate. "
            "Percent-encode it: %0A for a line break."
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"The URL is invalid: {error}. Correct it.") from error
    return parts


def _params(query: str) -> dict[str, str | list[str]] | None:
    """The query as parameters, with a list for a repeated one.

    None if they would not reproduce the query.
    """
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    if ";" in query or not all(mark and _is_text(n) and _is_text(v) for n, mark, v in pairs):
        return None
    params: dict[str, str | list[str]] = {}
    decoded = [(unquote_plus(name), unquote_plus(value)) for name, _, value in pairs]
    for name, group in groupby(decoded, itemgetter(0)):
        if name in params:
            return None
        values = [value for _, value in group]
        params[name] = values if len(values) > 1 else values[0]
    return params


def _is_text(encoded: str) -> bool:
    """True if it decodes to valid UTF-8."""
    return unquote_to_bytes(encoded.replace("+", " ")) == unquote_plus(encoded).encode()


def _without_login(url: str, source: str) -> tuple[str, UrlLogin | None]:
    """The address without its login, which is a user and password, or a parameter.

    Raises:
        ConfigurationError: when there are several logins, or a user without a password.
    """
    found = [*_user(_split(url), source), *_keys(_split(url).query, source)]
    if len({login.login for login in found}) > 1 or len({login.value for login in found}) > 1:
        places = ", ".join(login.place for login in found)
        raise ConfigurationError(
            f"The URL contains several logins: {places}. Keep one, and declare the others in the "
            "module by hand."
        )
    parts = _split(without_params(url, _is_login) if found else url)
    clean = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    return clean, found[0] if found else None


def _user(parts: SplitResult, source: str) -> list[UrlLogin]:
    if "@" not in parts.netloc:
        return []
    if not parts.username or not parts.password:
        raise ConfigurationError(
            "The URL contains a user without a password, which may be a key. Remove it, and name "
            "the login: LOGIN=header:HEADER:SECRET, for example."
        )
    login = Basic(unquote(parts.username), _secret(source, "password"))
    return [UrlLogin(login, unquote(parts.password), "user and password")]


def _keys(query: str, source: str) -> list[UrlLogin]:
    pairs = [pair.partition("=") for pair in query.split("&")]
    decoded = [(unquote_plus(name), unquote_plus(value)) for name, _, value in pairs]
    return [
        UrlLogin(ApiKey(_secret(source, name), param=name), value, f"the parameter {name!r}")
        for name, value in decoded
        if _is_login(name, value)
    ]


def _is_login(name: str, value: str) -> bool:
    return bool(value) and re.sub("[^a-z0-9]", "", name.lower()) in _LOGIN_PARAMS


def _secret(source: str, what: str) -> str:
    """The name of a secret in the store, e.g. `shop-api-key`."""
    return re.sub("[^a-z0-9]+", "-", f"{source}-{what}".lower()).strip("-")
