"""Tokens: how a login asks for one, and what the answer promises (RFC 6749)."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flows.extract.response import Response

# A token is renewed this long before it expires, to allow for clock skew and slow responses.
MARGIN_SECONDS = 60
MARGIN_SHARE = 0.1


@dataclass(frozen=True)
class TokenRequest:
    """A POST that asks for a token, with the secrets in it.

    Attributes:
        form: sent as a form; `json` is sent instead if there is no form.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    json: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Token:
    """What signs requests.

    Attributes:
        usable_seconds: how long to use it before renewing it; infinite if the server promises
            nothing.
        refresh_token: gets the next token; empty if the server sent none.
        parts: parts of the value that are secrets of their own.
    """

    value: str = field(repr=False)
    usable_seconds: float = math.inf
    refresh_token: str = field(default="", repr=False)
    parts: tuple[str, ...] = field(default=(), repr=False)


class ShareToken(Protocol):
    """Renews tokens on behalf of all processes that use the same refresh token."""

    def __call__(
        self,
        name: str,
        first: str,
        refused: str | None,
        exchange: Callable[[str], Token],
        within_seconds: float,
    ) -> Token:
        """The token in use, unless it is the refused one or has ended; otherwise a new one.

        A new one comes from `exchange`, called by one process at a time with the newest refresh
        token. What it returns is stored before anybody uses it. `first` is the value of the secret
        `name`: the refresh token from which all others descend. An exchange takes at most
        `within_seconds`.
        """


def parse_token(response: Response) -> Token | None:
    """The tokens of an answer, if there are any (RFC 6749, 5.1)."""
    try:
        document = json.loads(response.body) if response.is_success else {}
        value = document["access_token"]
    except (ValueError, LookupError, TypeError):
        return None
    if not isinstance(value, str) or not value:
        return None
    refresh_token = document.get("refresh_token")
    return Token(
        value,
        _usable_seconds(_lifetime_seconds(document.get("expires_in"))),
        refresh_token if isinstance(refresh_token, str) else "",
    )


def _usable_seconds(lifetime_seconds: float) -> float:
    return lifetime_seconds - min(MARGIN_SECONDS, MARGIN_SHARE * lifetime_seconds)


def _lifetime_seconds(expires_in: object) -> float:
    """The seconds, as a number or as text; infinite if they make no sense."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return math.inf
    try:
        seconds = float(expires_in)
    except (ValueError, OverflowError):
        return math.inf
    return seconds if seconds > 0 else math.inf
