"""The login of a new source: what LOGIN names, and a login that an address contains."""

from dataclasses import fields
from typing import Any

from commands.new_source.api_url import UrlLogin
from commands.new_source.literals import Call
from flows.errors import ConfigurationError
from flows.extract.auth import (
    ApiKey,
    Basic,
    Bearer,
    OAuth2,
    ReadSecret,
    secret_from_environment,
    variable,
)
from flows.source import Login

FORMS = (
    "bearer:SECRET, header:HEADER:SECRET, param:PARAMETER:SECRET, basic:USER:SECRET, "
    "oauth2:CLIENT:SECRET:TOKEN_URL or refresh:CLIENT:SECRET:REFRESH_TOKEN:TOKEN_URL"
)
# A URL, which ends these, has colons itself.
_COLONS = {"oauth2": 2, "refresh": 3}


def parsed_login(text: str) -> Login | None:
    """The login that LOGIN names; its secret is read from the environment.

    Raises:
        ConfigurationError: when it has another form.
    """
    if not text:
        return None
    kind, _, rest = text.partition(":")
    words = rest.split(":", _COLONS.get(kind, -1))
    if all(words):
        match kind, words:
            case "bearer", [secret]:
                return Bearer(secret)
            case "header", [header, secret]:
                return ApiKey(secret, header=header)
            case "param", [param, secret]:
                return ApiKey(secret, param=param)
            case "basic", [user, secret]:
                return Basic(user, secret)
            case "oauth2" | "refresh", [client, secret, *token, url] if _is_whole(kind, words):
                return OAuth2(url, client, secret, refresh_token="".join(token))
    raise ConfigurationError(
        f"LOGIN={text} must be {FORMS}; SECRET is the name of the stored secret, e.g. github-token."
    )


def _is_whole(kind: str, words: list[str]) -> bool:
    """Whether all words are there, and the last one is a URL."""
    return len(words) == _COLONS[kind] + 1 and words[-1].startswith(("http://", "https://"))


def chosen(login: Login | None, found: UrlLogin | None) -> tuple[Login | None, ReadSecret]:
    """The login to declare, and a function that returns its secret now.

    Raises:
        ConfigurationError: when the URL contains another login than LOGIN names.
    """
    if found is None:
        return login, secret_from_environment
    if login is not None and (not login.param or login.param != found.login.param):
        raise ConfigurationError(
            f"The URL contains a login ({found.place}), and LOGIN names another one. Remove one."
        )
    return login or found.login, lambda _: found.value


def notes(found: UrlLogin | None, login: Login | None) -> list[str]:
    """The user's next step for a login that the URL contained."""
    if found is None or login is None:
        return []
    return [
        f"the URL's login ({found.place}) is not in the files: the source names the secret "
        f"{login.secret!r}. Set {variable(login.secret)} to it."
    ]


def login_call(login: Any) -> Call | None:
    """The call that declares a login: the first argument by position, the rest by name."""
    if login is None:
        return None
    first, *others = fields(login)
    named = {one.name: getattr(login, one.name) for one in others}
    differing = {
        one.name: named[one.name] for one in others if named[one.name] not in (one.default, {})
    }
    return Call(type(login).__name__, (getattr(login, first.name),), differing)
