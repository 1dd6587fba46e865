"""The values of a cursor field: which of them is the newest, and which may not move the cursor."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flows.cursor_formats import integers_of, times_of
from flows.load.checkpoints import Checkpoint, CursorValue
from flows.source import AnyCursor, Cursor, IntegerCursor, Resource, TokenCursor, Window

log = logging.getLogger(__name__)

_KINDS: Mapping[type, type] = {Cursor: datetime, IntegerCursor: int, TokenCursor: str}


@dataclass(frozen=True)
class Values:
    """The values of a cursor field; times are UTC.

    Attributes:
        newest: the newest value that may move the cursor.
        ahead: the times that are too far in the future to move it.
    """

    newest: CursorValue | None = None
    ahead: frozenset[datetime] = frozenset()


def values_of(cursor: Cursor | IntegerCursor, values: Iterable[Any]) -> Values:
    """Read the values that a page has in the cursor's field; nulls are ignored.

    Raises:
        BadPayloadError: when one does not have the cursor's format.
    """
    if isinstance(cursor, IntegerCursor):
        return Values(max(integers_of(values), default=None))
    latest = datetime.now(UTC) + cursor.slack
    times = times_of(values, cursor.format, cursor.time_zone)
    ahead = frozenset(at for at in times if at > latest)
    return Values(max(times - ahead, default=None), ahead)


def field_value(record: Any, field: str) -> tuple[bool, Any]:
    """Whether a record has a field (also by a dotted path into objects), and its value."""
    if not isinstance(record, dict):
        return False, None
    if field in record:
        return True, record[field]
    name, dot, deeper = field.partition(".")
    return field_value(record.get(name), deeper) if dot else (False, None)


def newest(values: Iterable[CursorValue | None]) -> CursorValue | None:
    """The newest of some values of one cursor; None if there is none."""
    found: list[Any] = [value for value in values if value is not None]
    return max(found, default=None)


def name_of(cursor: AnyCursor | None) -> str | None:
    """The field or header that identifies a cursor."""
    if cursor is None:
        return None
    return cursor.field or cursor.header if isinstance(cursor, TokenCursor) else cursor.field


def moved(
    before: CursorValue | None, seen: CursorValue | None, window: Window
) -> CursorValue | None:
    """Where the cursor stands after a load of the window: a token replaces the one before."""
    return seen if isinstance(seen, str) else newest([before, within(seen, window)])


def of_rejects(before: CursorValue | None, seen: CursorValue | None) -> CursorValue | None:
    """Where the cursor stands after a load that replaced all rows, but rejected too many records.

    No new row lies behind it, and no more than before was skipped; a token stays.
    """
    found: list[Any] = [before, seen]
    if isinstance(before, str):
        return before
    return None if None in found else min(found)


def within(value: CursorValue | None, window: Window) -> CursorValue | None:
    """The value, or the end of the window that was read: what lies behind it was not requested."""
    is_behind = isinstance(value, datetime) and window.until is not None and value > window.until
    return window.until if is_behind else value


def usable(checkpoint: Checkpoint, resource: Resource, now: datetime) -> Checkpoint:
    """The checkpoint, or an empty one if its value does not tell which records are new.

    It belongs to another field or another kind of cursor, or it is too far in the future: versions
    before 2026-11 stored such values, and later records were never requested. The cursor of an
    append is the end of its last window, whatever the field: from the start it would repeat rows.
    """
    cursor = resource.cursor
    stored = [each for each in (checkpoint.cursor, checkpoint.seen) if each is not None]
    if cursor is None or not stored:
        return checkpoint
    field = None if resource.writes == "append" else checkpoint.field
    problem = _problem(cursor, field, stored, now)
    if not problem:
        return checkpoint
    log.warning("The stored cursor %s: this load reads everything again.", problem)
    return Checkpoint()


def _problem(
    cursor: AnyCursor, field: str | None, stored: Iterable[CursorValue], now: datetime
) -> str:
    name = name_of(cursor)
    if field not in (None, name):
        return f"is one of {field!r}, not of {name!r}"
    kind = _KINDS[type(cursor)]
    if not all(isinstance(value, kind) for value in stored):
        return f"is of another kind than {name!r}"
    if isinstance(cursor, Cursor):
        latest = now + cursor.slack
        if any(isinstance(value, datetime) and value > latest for value in stored):
            return f"is later than {latest}"
    return ""
