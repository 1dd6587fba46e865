"""How long an API asks to wait: the many forms in which servers put it into headers.

Retry-After is RFC 9110, 10.2.3; RateLimit and RateLimit-Reset are two drafts of
https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/; the others are conventions.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import time

from flows.redaction import start_of

LIMIT_HEADER = "RateLimit"
RESET_HEADERS = (
    LIMIT_HEADER,
    "RateLimit-Reset",
    "X-RateLimit-Reset-After",
    "X-RateLimit-Reset",
    "X-Rate-Limit-Reset",
)
REMAINING_HEADERS = ("RateLimit-Remaining", "X-RateLimit-Remaining", "X-Rate-Limit-Remaining")

# A larger number is a Unix time, in seconds, or beyond LAST_MOMENT_IN_SECONDS in milliseconds etc.
FIRST_MOMENT = 1e9
LAST_MOMENT_IN_SECONDS = 1e11
UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}

_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]*)?")
_PART = r"([0-9]{1,20}(?:\.[0-9]+)?)\s*(ms|[smhd]|sec|min|(?:second|minute|hour|day)s?)\s*"
_LENGTH = re.compile(f"({_PART})+", re.IGNORECASE)
# The comma of `Wed, 21 Oct 2026` does not separate values.
_BETWEEN_VALUES = re.compile(r"(?<!Mon|Tue|Wed|Thu|Fri|Sat|Sun|day),")
_UTC = re.compile(r"\s*(Z|UTC)$")
_NAME = re.compile('"[^"]*"')
_PARAMETER = re.compile(r"\b(r|t|remaining|reset)\s*=\s*([0-9]{1,20})", re.IGNORECASE)


@dataclass(frozen=True)
class Wait:
    """The wait that an API requests before a retry.

    Attributes:
        seconds: from now; 0 if the wait is over or can't be read.
        said: a sentence that quotes the header.
    """

    seconds: float
    said: str


def requested_wait(headers: Mapping[str, str], is_limited: bool) -> Wait | None:
    """The wait of the first readable header; None if there is no such header.

    Many APIs send the end of a rate limit with every response. It counts only if the limit may have
    caused this one: `is_limited`, and the headers show no remaining requests.
    """
    is_about_limit = is_limited and is_exhausted(headers) is not False
    names = ("Retry-After", *(RESET_HEADERS if is_about_limit else ()))
    values = {name: headers[name] for name in names if headers.get(name, "").strip()}
    for name, value in values.items():
        seconds = _parse_seconds(name, value)
        if seconds is not None:
            return _wait(seconds, name, value)
    return next((_unreadable(name, value) for name, value in values.items()), None)


def _wait(seconds: float, name: str, value: str) -> Wait:
    quoted = f"({name}: {start_of(value)!r})"
    if seconds <= 0:
        return Wait(0, f"The wait it asks for is over {quoted}.")
    return Wait(seconds, f"It asks to wait {math.ceil(seconds):,} s {quoted}.")


def _unreadable(name: str, value: str) -> Wait:
    return Wait(0, f"The wait it asks for can't be read ({name}: {start_of(value)!r}).")


def is_exhausted(headers: Mapping[str, str]) -> bool | None:
    """Whether a rate limit is used up; None if no header shows it."""
    texts = [text for name in REMAINING_HEADERS for text in headers.get(name, "").split(",")]
    left = [float(text) for text in map(str.strip, texts) if _NUMBER.fullmatch(text)]
    left += [limit["r"] for limit in _limits(headers.get(LIMIT_HEADER, "")) if "r" in limit]
    return min(left) <= 0 if left else None


def _parse_seconds(name: str, value: str) -> float | None:
    """The longest wait in a header, which may have several values."""
    if name == LIMIT_HEADER:
        limits = [limit for limit in _limits(value) if "t" in limit]
        reached = [limit["t"] for limit in limits if not limit.get("r")]
        return max(reached, default=None)
    found = [_parse_wait(text.strip(' "')) for text in _BETWEEN_VALUES.split(value)]
    return max((seconds for seconds in found if seconds is not None), default=None)


def _limits(value: str) -> Iterator[dict[str, float]]:
    """The `r` (what is left) and `t` (its end) of each limit in `"default";r=0;t=40`.

    An earlier draft has `limit=100, remaining=0, reset=40`: of one limit, but with commas.
    """
    plain = _NAME.sub("", value)
    for limit in [plain] if "reset" in plain.lower() else plain.split(","):
        yield {
            {"remaining": "r", "reset": "t"}.get(name.lower(), name.lower()): float(number)
            for name, number in _PARAMETER.findall(limit)
        }


def _parse_wait(text: str) -> float | None:
    """The seconds to wait by a text: a number, a duration, or a point in time."""
    if _NUMBER.fullmatch(text):
        return _from_number(float(text))
    if _LENGTH.fullmatch(text):
        parts = re.findall(_PART, text.lower())
        return sum(
            float(number) * UNIT_SECONDS[unit if unit == "ms" else unit[0]]
            for number, unit in parts
        )
    # Python would read the first digits of a long number as an ISO time.
    at = None if text.isdecimal() else _moment(text)
    return None if at is None else at.timestamp() - time()


def _from_number(number: float) -> float:
    if number < FIRST_MOMENT:
        return number
    while number > LAST_MOMENT_IN_SECONDS:
        number /= 1000
    return number - time()


def _moment(text: str) -> datetime | None:
    """An ISO time or an HTTP date; without an offset, it is UTC."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            at = read(_UTC.sub("+00:00", text))
        except ValueError:
            continue
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return None
