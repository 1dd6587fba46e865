"""Options of a load, and the time window derived from them and the cursor."""

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from dateutil.parser import isoparse

from flows.errors import BadPayloadError, ConfigurationError
from flows.load.checkpoints import Checkpoint
from flows.source import Cursor, Resource, Window

log = logging.getLogger(__name__)

ANY_TIME = Window()
EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)

_DATE = re.compile(r"\d{4}-?(?:\d\d-?\d\d|W\d\d)")
_LEAP_SECOND = re.compile(r"([T ]\d\d:?\d\d):?60")


@dataclass(frozen=True)
class LoadOptions:
    """Options that a person or a schedule chose.

    Attributes:
        window: a range to load by hand; the cursor does not move.
        full_refresh: read everything again, and delete rows that the API no longer sends.
        replays: the load whose rejects are read instead of the API (`flows.load.replay`).
        waits: wait for another load of the partition instead of failing.
        run_id: the run that loads; its retries have the same one. A run appends a partition once:
            a retry sees in the ledger that it is done, even if the reply to the last commit was
            lost. With None, loads are independent, and a retry may append rows twice.
        accepts_shrinkage: let this load remove more rows from its table than the resource allows.
        is_backfill: the partition is a window of a backfill; its success does not mean that the
            table is complete.
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
        """Refuse windows that are empty, or that would delete rows outside of them."""
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
    """The time window to request: the range given by hand, or the one from the cursor's lookback.

    Starts are at midnight UTC, so a load that is repeated within a day sends the same requests.
    `replace` reads everything. An interrupted append keeps its original end: another end would
    restart it and duplicate rows.

    Raises:
        ConfigurationError: when a range is given by hand while an append is incomplete.
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
        interrupted = _interrupted_append_end(resource, options, checkpoint)
        until = until or interrupted or _midnight(now)
    return Window(since, until)


def _interrupted_append_end(
    resource: Resource, options: LoadOptions, checkpoint: Checkpoint
) -> datetime | None:
    interrupted = checkpoint.window_until if resource.writes == "append" else None
    if interrupted and options.by_hand:
        raise ConfigurationError(
            f"{resource.name}: its last load is not complete and could not resume after a range "
            "that is loaded by hand. Load it without since and until first."
        )
    return interrupted


def without_future(checkpoint: Checkpoint, cursor: Cursor | None, now: datetime) -> Checkpoint:
    """The checkpoint, or an empty one if its cursor values are too far in the future.

    Versions before 2026-11 stored such values. Later records were never requested, so the load
    reads everything again.
    """
    latest = now + cursor.slack if cursor else LATEST
    if max(filter(None, [checkpoint.cursor_at, checkpoint.cursor_seen_at]), default=now) <= latest:
        return checkpoint
    log.warning("The stored cursor is later than %s: this load reads everything again.", latest)
    return Checkpoint()


@dataclass(frozen=True)
class Times:
    """The values of a cursor field; times are UTC.

    Attributes:
        newest_at: the newest value that may move the cursor.
        ahead: the values that are too far in the future to move it.
    """

    newest_at: datetime | None = None
    ahead: frozenset[datetime] = frozenset()


def times_of(values: Iterable[Any], latest: datetime) -> Times:
    """Separate the values of a cursor field that lie after `latest`; nulls are ignored.

    Raises:
        BadPayloadError: when one is not an ISO 8601 date or time.
    """
    texts = {value if isinstance(value, str) else json.dumps(value) for value in values}
    times = set(map(_as_time, texts - {"null"}))
    ahead = frozenset(at for at in times if at > latest)
    return Times(max(times - ahead, default=None), ahead)


def value_of(record: Any, field: str) -> tuple[bool, Any]:
    """Whether a record has a field (also by a dotted path into objects), and its value."""
    if not isinstance(record, dict):
        return False, None
    if field in record:
        return True, record[field]
    name, dot, deeper = field.partition(".")
    return value_of(record.get(name), deeper) if dot else (False, None)


def _as_time(value: Any) -> datetime:
    """An ISO 8601 date or time in UTC; one without an offset is UTC already.

    A time that its offset moves out of the years 1 to 9999 becomes their first or last moment.
    """
    at = _parsed(value)
    if at is None:
        raise BadPayloadError(
            f"The cursor field holds {value!r}, which is not an ISO 8601 date or time. Choose "
            "another cursor field, or turn it into one in the source's `records` function."
        )
    if at.tzinfo is None:
        return at.replace(tzinfo=UTC)
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return EARLIEST if at.year == 1 else LATEST


def _parsed(value: Any) -> datetime | None:
    """None if it is not a time; the parser's error could quote a secret without redaction.

    Python's own parser is fast, but reads fewer formats than dateutil.
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
    return datetime.combine(at.astimezone(UTC).date(), time(), UTC)
