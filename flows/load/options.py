"""What a load was asked for, and the slice of time that comes of it and of the cursor."""

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from typing import Any

from dateutil.parser import isoparse

from flows.errors import BadPayloadError, ConfigurationError
from flows.load.ledger import Checkpoint
from flows.source import Cursor, Resource, Window

log = logging.getLogger(__name__)

ANY_TIME = Window()
EARLIEST = datetime.min.replace(tzinfo=timezone.utc)
LATEST = datetime.max.replace(tzinfo=timezone.utc)

_DATE = re.compile(r"\d{4}-?(?:\d\d-?\d\d|W\d\d)")
_LEAP_SECOND = re.compile(r"([T ]\d\d:?\d\d):?60")


@dataclass(frozen=True)
class LoadOptions:
    """What a person or a schedule asked for.

    Attributes:
        window: a range to load by hand; the cursor then stays where it is.
        full_refresh: read everything anew, and delete what the API no longer sends.
        replays: the load whose rejects are read instead of the API (`flows.load.replay`).
        waits: wait for another load of the partition instead of failing.
        run_id: the run that loads; its retries have the same one. A run appends a partition once:
            a retry sees in the ledger that it is done, even if the answer to the last commit was
            lost. With None each load is one of its own, and a retry may append rows twice.
        accepts_shrinkage: let this load take more rows from its table than the resource declares.
        is_backfill: the partition is a window of a backfill; whether it can be loaded says nothing
            about whether the table is complete.
    """

    window: Window = ANY_TIME
    full_refresh: bool = False
    replays: int | None = None
    waits: bool = False
    run_id: str | None = None
    is_backfill: bool = False
    accepts_shrinkage: bool = False

    @property
    def by_hand(self) -> bool:
        """Whether a person named the range."""
        return self.window != ANY_TIME

    def __post_init__(self) -> None:
        """Refuse windows that are empty, or that would delete what lies outside of them."""
        since, until = self.window.since, self.window.until
        if since and until and since >= until:
            raise ConfigurationError(
                f"since ({since:%Y-%m-%d}) must be before until ({until:%Y-%m-%d}), which is the "
                "first day that is not loaded."
            )
        if self.full_refresh and self.by_hand:
            raise ConfigurationError(
                "full_refresh reads everything: leave since and until empty, or full_refresh off."
            )


DEFAULT_OPTIONS = LoadOptions()


def window_to_read(
    resource: Resource, options: LoadOptions, checkpoint: Checkpoint, now: datetime
) -> Window:
    """What to ask the API for: the range named by hand, or from the cursor's lookback on.

    Starts fall on midnight UTC, so that a load that is repeated within a day asks the same.
    `replace` reads everything. An append that was begun is read up to where it was to end then, or
    it would not go on but begin anew, and store its first rows twice.

    Raises:
        ConfigurationError: when a range is named by hand while an append is not complete.
    """
    cursor = resource.cursor
    if cursor is None:
        return Window()
    since = options.window.since
    reads_all = options.full_refresh or resource.writes == "replace"
    if since is None and checkpoint.cursor_at is not None and not reads_all:
        since = _midnight(_earlier(checkpoint.cursor_at, cursor.lookback))
    since = max(filter(None, [since, None if options.by_hand else cursor.start]), default=None)
    since = since or cursor.start
    until = options.window.until
    if cursor.step is not None:
        begun = _end_of_begun_append(resource, options, checkpoint)
        until = until or begun or _midnight(now)
    return Window(since, until)


def _end_of_begun_append(
    resource: Resource, options: LoadOptions, checkpoint: Checkpoint
) -> datetime | None:
    begun = checkpoint.window_until if resource.writes == "append" else None
    if begun and options.by_hand:
        raise ConfigurationError(
            f"{resource.name}: its last load is not complete and could not resume after a range "
            "that is loaded by hand. Load it without since and until first."
        )
    return begun


def without_future(checkpoint: Checkpoint, cursor: Cursor | None, now: datetime) -> Checkpoint:
    """The checkpoint, without cursor values that lie too far ahead of now.

    Versions before 2026-11 stored such values. What came after them was never asked for, so the
    load reads everything again.
    """
    latest = now + cursor.slack if cursor else LATEST
    if max(filter(None, [checkpoint.cursor_at, checkpoint.cursor_seen_at]), default=now) <= latest:
        return checkpoint
    log.warning("The stored cursor is later than %s: this load reads everything again.", latest)
    return Checkpoint()


@dataclass(frozen=True)
class Times:
    """What the values of a cursor field say; times are UTC.

    Attributes:
        newest_at: the newest that may move the cursor.
        ahead: those that are too far ahead of now to do so.
    """

    newest_at: datetime | None = None
    ahead: frozenset[datetime] = frozenset()


def times_of(values: Iterable[Any], latest: datetime) -> Times:
    """Sort the values of a cursor field by whether they lie after `latest`; nulls do not count.

    Raises:
        BadPayloadError: when one is not an ISO 8601 date or time.
    """
    texts = {value if isinstance(value, str) else json.dumps(value) for value in values}
    times = set(map(_as_time, texts - {"null"}))
    ahead = frozenset(at for at in times if at > latest)
    return Times(max(times - ahead, default=None), ahead)


def value_of(record: Any, field: str) -> tuple[bool, Any]:
    """Whether a record has a field, or what its dotted name leads to, and the field's value."""
    if not isinstance(record, dict):
        return False, None
    if field in record:
        return True, record[field]
    name, dot, deeper = field.partition(".")
    return value_of(record.get(name), deeper) if dot else (False, None)


def _as_time(value: Any) -> datetime:
    """An ISO 8601 date or time in UTC; one without an offset is UTC already.

    What an offset moves beyond the calendar's years 1 to 9999 becomes its first or last moment.
    """
    at = _parsed(value)
    if at is None:
        raise BadPayloadError(
            f"The cursor field holds {value!r}, which is not an ISO 8601 date or time. Choose "
            "another cursor field, or turn it into one in the source's `records` function."
        )
    if at.tzinfo is None:
        return at.replace(tzinfo=timezone.utc)
    try:
        return at.astimezone(timezone.utc)
    except OverflowError:
        return EARLIEST if at.year == 1 else LATEST


def _parsed(value: Any) -> datetime | None:
    """None without the error, which would quote a secret in a form that is not redacted.

    Python's own parser is fast, but 3.10 reads fewer forms than 3.11; dateutil reads all of them.
    """
    if not isinstance(value, str) or not _DATE.match(value):
        return None
    text = _LEAP_SECOND.sub(r"\1:59", value)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        parsed: datetime = isoparse(text)
    except ValueError:
        return None
    return parsed


def _earlier(at: datetime, by: timedelta) -> datetime:
    return at - by if at - EARLIEST > by else EARLIEST


def _midnight(at: datetime) -> datetime:
    return datetime.combine(at.astimezone(timezone.utc).date(), time(), timezone.utc)
