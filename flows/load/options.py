"""Options of a load, and the window derived from them and the cursor."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from flows.errors import ConfigurationError
from flows.load.checkpoints import Checkpoint
from flows.local_time import EARLIEST, floor, in_clocks_of
from flows.source import Cursor, Disposition, IntegerCursor, Resource, Window

ANY_TIME = Window()
_MINUTE = timedelta(minutes=1)


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
        now: what cursors and windows take for the present; by default the clock's time.
        accepts_shrinkage: let this load remove more rows from its table than the resource allows.
        is_backfill: the partition is a window of a backfill; its success does not mean that the
            table is complete.
        limit: reading ends after the page with which so many records are read. If that was not the
            last page, the cursor stays and the next load without a limit reads everything; a
            `replace` fails, since a part can't replace a table.
    """

    window: Window = ANY_TIME
    full_refresh: bool = False
    replays: int | None = None
    waits: bool = False
    run_id: str | None = None
    is_backfill: bool = False
    accepts_shrinkage: bool = False
    limit: int | None = None
    now: datetime | None = None

    @property
    def by_hand(self) -> bool:
        """Whether a person named the range."""
        return self.window != ANY_TIME

    @property
    def is_regular(self) -> bool:
        """Whether it reads what each scheduled load reads."""
        is_other = self.full_refresh or self.by_hand or self.is_backfill or self.limit
        return not is_other and self.replays is None

    def disposition_of(self, resource: Resource) -> Disposition:
        """How the load writes the resource's rows."""
        return "replace" if self.full_refresh else resource.writes

    def __post_init__(self) -> None:
        """Refuse windows that are empty, or that would delete rows outside of them."""
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"limit={self.limit} reads nothing: give it 1 or more.")
        if self.limit is not None and self.full_refresh:
            raise ConfigurationError(
                "full_refresh reads everything: leave limit empty, or full_refresh off."
            )
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
    """What to request: the range given by hand, or what follows the cursor, less its lookback.

    Windows begin and end with full units of the cursor's `align`, by default at midnight, so a load
    that is repeated within that time sends the same requests. An append begins where its last
    window ended, even if units were others then. `replace` reads everything. An interrupted load
    keeps its original end: another end could restart it, and an append would then duplicate rows.

    Raises:
        ConfigurationError: when a range of days is given by hand while an append is incomplete, for
            an append with `max_pages`, or for a cursor that is not one of times.
    """
    if isinstance(resource.cursor, IntegerCursor):
        return _numbers_to_read(resource, resource.cursor, options, checkpoint)
    if resource.token_cursor is not None:
        return _changes_to_read(resource, options, checkpoint)
    cursor = resource.time_cursor
    if cursor is None:
        return Window()
    _check_range(resource, options)
    zone = cursor.time_zone
    by_hand = options.window
    since, until = (end and in_clocks_of(end, zone) for end in (by_hand.since, by_hand.until))
    everything = since is not None or _reads_all(resource, options)
    if isinstance(checkpoint.cursor, datetime) and not everything:
        since = _start(resource, cursor, checkpoint.cursor)
    since = max(filter(None, [since, None if options.by_hand else cursor.start]), default=None)
    since = since or cursor.start
    if cursor.step is not None or cursor.lag:
        interrupted = _interrupted_end(resource, options, checkpoint)
        until = until or interrupted or _end(cursor, now)
    return Window(since, until)


def _check_range(resource: Resource, options: LoadOptions) -> None:
    """Refuse to append a part of a range: once another load was between, it would start again."""
    limits = {"max_pages": resource.max_pages, "limit": options.limit}
    for name, limit in limits.items():
        if options.by_hand and resource.writes == "append" and limit is not None:
            raise ConfigurationError(
                f"{resource.name}: {name}={limit} may end an append before all of the range is "
                f"read, and loading the range again could store rows twice. Remove {name}, or "
                "load without since and until."
            )


def _start(resource: Resource, cursor: Cursor, at: datetime) -> datetime:
    """The start of a window that follows the cursor's value."""
    if resource.writes == "append":
        return at
    return floor(_earlier(at, cursor.lookback), cursor.unit, cursor.time_zone)


def _end(cursor: Cursor, now: datetime) -> datetime:
    """The end of a window; without a step, a lag alone asks for all up to the last full minute."""
    unit = cursor.unit if cursor.step or cursor.align else _MINUTE
    return floor(now - cursor.lag, unit, cursor.time_zone)


def _numbers_to_read(
    resource: Resource, cursor: IntegerCursor, options: LoadOptions, checkpoint: Checkpoint
) -> Window:
    if options.by_hand:
        raise ConfigurationError(
            f"{resource.name} is read by the number {cursor.field!r}, not by date: leave since and "
            "until empty for it."
        )
    number = cursor.start
    if isinstance(checkpoint.cursor, int) and not _reads_all(resource, options):
        following = checkpoint.cursor + 1 - cursor.lookback
        number = following if number is None else max(following, number)
    return Window(number=number)


def _changes_to_read(resource: Resource, options: LoadOptions, checkpoint: Checkpoint) -> Window:
    if options.by_hand:
        raise ConfigurationError(
            f"{resource.name} is read by the API's token, not by date: leave since and until empty "
            "for it, or run it with full_refresh."
        )
    if _reads_all(resource, options) or not isinstance(checkpoint.cursor, str):
        return Window()
    return Window(token=checkpoint.cursor)


def _reads_all(resource: Resource, options: LoadOptions) -> bool:
    """Whether a load reads everything, whatever the cursor."""
    return options.full_refresh or resource.writes == "replace"


def _interrupted_end(
    resource: Resource, options: LoadOptions, checkpoint: Checkpoint
) -> datetime | None:
    """The end of the window of an incomplete load that goes on."""
    is_append = resource.writes == "append"
    goes_on = is_append or checkpoint.resume is not None
    interrupted = checkpoint.window_until if goes_on else None
    if interrupted and options.by_hand and is_append:
        raise ConfigurationError(
            f"{resource.name}: its last load is not complete and could not resume after a range "
            "that is loaded by hand. Load it without since and until first."
        )
    return None if options.by_hand else interrupted


def _earlier(at: datetime, by: timedelta) -> datetime:
    return at - by if at - EARLIEST > by else EARLIEST
