"""Formats of time cursors: how a value is read from a record and written into a request.

A format is `iso`, `epoch_s`, `epoch_ms`, `epoch_us`, or strftime text such as `%d.%m.%Y %H:%M`.
"""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any

from dateutil.parser import isoparse

from flows.errors import BadPayloadError, ConfigurationError
from flows.local_time import EARLIEST, LATEST, in_zone

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PER_SECOND = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000}
WORDS = ("iso", *PER_SECOND)

_DATE = re.compile(r"\d{4}-?(?:\d\d-?\d\d|W\d\d)")
_LEAP_SECOND = re.compile(r"([T ]\d\d:?\d\d):?60")
_INTEGER = re.compile(r"-?\d{1,30}")
# Times from 2001 to 2286 have so many digits.
_WORD_OF_DIGITS = {10: "epoch_s", 13: "epoch_ms", 16: "epoch_us"}


def check(owner: str, form: str) -> None:
    """Refuse what is not a format.

    Raises:
        ConfigurationError: with the formats to choose from.
    """
    if form not in WORDS and "%" not in form:
        raise ConfigurationError(
            f"{owner}: {form!r} is not a format of times. Use {', '.join(WORDS)}, or strftime "
            "text, e.g. '%Y-%m-%d'."
        )


def written(at: datetime, form: str, zone: tzinfo) -> str | int:
    """A time as a request has it, rounded down to the format's smallest unit."""
    if form in PER_SECOND:
        microseconds = (at - EPOCH) // timedelta(microseconds=1)
        return microseconds * PER_SECOND[form] // 1_000_000
    local = in_zone(at, zone)
    return local.isoformat() if form == "iso" else local.strftime(form)


def times_of(values: Iterable[Any], form: str, zone: tzinfo) -> set[datetime]:
    """The distinct times that values of a cursor field stand for, in UTC; nulls are ignored.

    Raises:
        BadPayloadError: when one of them is not a time in this format.
    """
    if form in PER_SECOND:
        return {_from_epoch(value, form) for value in _distinct(values)}
    texts = {value if isinstance(value, str) else json.dumps(value) for value in values}
    return {_from_text(text, form, zone) for text in texts - {"null"}}


def integers_of(values: Iterable[Any]) -> set[int]:
    """The distinct integers in values of a cursor field; nulls are ignored.

    Raises:
        BadPayloadError: when one of them is not an integer.
    """
    return set(map(_integer, _distinct(values)))


def _distinct(values: Iterable[Any]) -> Iterable[Any]:
    """The values without nulls, each once unless there are lists or objects among them."""
    found = [value for value in values if value is not None]
    try:
        return set(found)
    except TypeError:
        return found


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    raise BadPayloadError(
        f"The cursor field holds {value!r}, which is not an integer. Choose another field, or "
        "declare a Cursor for times."
    )


def _from_epoch(value: Any, form: str) -> datetime:
    try:
        if type(value) is int:
            return EPOCH + timedelta(microseconds=value * 1_000_000 // PER_SECOND[form])
        number = Decimal(str(value))
        return EPOCH + timedelta(microseconds=int(number * 1_000_000 / PER_SECOND[form]))
    except (InvalidOperation, ValueError, OverflowError):
        raise BadPayloadError(
            f"The cursor field holds {value!r}, which is not a time as {form!r}.{_advice(value)}"
        ) from None


def _advice(value: Any) -> str:
    """The declaration that would fit the value."""
    text = str(value).removeprefix("-")
    if not _INTEGER.fullmatch(text):
        return (
            " Declare the field's format (Cursor.format), choose another field, or turn it into a "
            "time in the resource's `map_record`."
        )
    word = _WORD_OF_DIGITS.get(len(text))
    if word:
        return f' Declare Cursor(…, format="{word}"), or IntegerCursor(…) if it is no time.'
    return " Declare IntegerCursor(…), or Cursor(…, format=…) if it is a time."


def _from_text(text: str, form: str, zone: tzinfo) -> datetime:
    """A time in UTC; one without an offset is in the cursor's zone.

    A time that its offset moves out of the years 1 to 9999 becomes their first or last moment.
    """
    at = _iso(text) if form == "iso" else _strptime(text, form)
    if at is None:
        kind = "an ISO 8601 date or time" if form == "iso" else f"a time as {form!r}"
        raise BadPayloadError(
            f"The cursor field holds {text!r}, which is not {kind}.{_advice(text)}"
        )
    at = at.replace(tzinfo=zone) if at.tzinfo is None else at
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return EARLIEST if at.year == 1 else LATEST


def _strptime(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)  # noqa: DTZ007 (the caller adds the zone)
    except ValueError:
        return None


def _iso(text: str) -> datetime | None:
    """None if it is not a time; the parser's error could quote a secret without redaction.

    Python's own parser is fast, but reads fewer formats than dateutil.
    """
    if not _DATE.match(text):
        return None
    text = _LEAP_SECOND.sub(r"\1:59", text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        parsed: datetime = isoparse(text)
    except ValueError:
        return None
    return parsed
