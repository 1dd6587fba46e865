"""Placeholders for the ends of a window: `{since}`, `{after}`, `{until}`, `{last}`; and `{token}`.

`{since}` is the first time or number to request, and `{after}` the one before it, for APIs that
leave the start out. `{until}` is the first one not to request, and `{last}` the one before it, for
APIs that include the end. They are written in the cursor's format, or in one that they name:
`{since:epoch_ms}`, `{last:%Y-%m-%d}`. Times are rounded down to the format's smallest unit, and
"the one before" is the unit before: the day before, if a format has only the day.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from flows import cursor_formats
from flows.cursors import ENDS, PLACEHOLDER
from flows.errors import ConfigurationError
from flows.local_time import EARLIEST
from flows.source import Cursor, Resource, Window

# A time that is earlier by one of them is written otherwise, whatever the format.
_UNITS = [
    timedelta(microseconds=1),
    timedelta(milliseconds=1),
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=31),
    timedelta(days=366),
]
_ANY = Cursor("")
EndOf = Callable[[re.Match[str]], str | int | None]


def end(resource: Resource, window: Window, name: str, form: str) -> str | int | None:
    """What a placeholder stands for; None if the window has no such end.

    Raises:
        ConfigurationError: when the format is unknown, or would move an edge of an append.
    """
    if window.number is not None and name in ("since", "after"):
        number = window.number - (name == "after")
        return format(number, form) if form else number
    if name == "token":
        return window.token
    at = window.since if name in ("since", "after") else window.until
    if at is None:
        return None
    cursor = resource.time_cursor or _ANY
    form = form or cursor.format
    cursor_formats.check(f"{resource.name}: {{{name}:{form}}}", form)
    text = cursor_formats.written(at, form, cursor.time_zone)
    before = [cursor_formats.written(_earlier(at, by), form, cursor.time_zone) for by in _UNITS]
    is_append = resource.time_cursor is not None and resource.writes == "append"
    if is_append and text == before[0] and at != EARLIEST:
        raise ConfigurationError(
            f"{resource.name}: {{{name}:{form}}} can't express {at}, where a window begins or "
            "ends: an append would store rows twice, or leave rows out. Name a finer format, or "
            "give the cursor a `start`, `step`, `align` and `zone` with which windows are full "
            "units of the format. If these have changed since the last load, load once with "
            "full_refresh."
        )
    if name in ("since", "until"):
        return text
    if name == "last":
        return before[0]
    return next((each for each in before if each != text), text)


def _earlier(at: datetime, by: timedelta) -> datetime:
    return at - by if at - EARLIEST > by else EARLIEST


def fill(declared: Any, resource: Resource, window: Window) -> Any:
    """Parameters or a body with the window's ends in their texts.

    What names an end that the window lacks is left out; an end that no window of this cursor has is
    none, and stays as it is. A text that is nothing but a placeholder becomes a number where the
    format is one.
    """

    def end_of(found: re.Match[str]) -> str | int | None:
        is_end = found[1] in ENDS[type(resource.cursor)]
        return end(resource, window, found[1], found[2] or "") if is_end else found[0]

    filled = _filled(declared, end_of)
    return None if filled is _MISSING else filled


_MISSING = object()


def _filled(value: Any, end_of: EndOf) -> Any:
    if isinstance(value, str):
        return _filled_text(value, end_of)
    if isinstance(value, Mapping):
        members = {name: _filled(each, end_of) for name, each in value.items()}
        return {name: each for name, each in members.items() if each is not _MISSING}
    if isinstance(value, list | tuple):
        found = [_filled(each, end_of) for each in value]
        kept = [each for each in found if each is not _MISSING]
        return kept if kept or not found else _MISSING
    return value


def _filled_text(text: str, end_of: EndOf) -> Any:
    found = {match[0]: end_of(match) for match in PLACEHOLDER.finditer(text)}
    if None in found.values():
        return _MISSING
    if text in found:
        return found[text]
    return PLACEHOLDER.sub(lambda match: str(found[match[0]]), text)
