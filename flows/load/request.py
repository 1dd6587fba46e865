"""What a load was asked for, and the slice of time that comes of it and of the cursor."""

from dataclasses import dataclass
from datetime import datetime, time, timezone
from typing import Any

from flows.declaration import Resource, Window
from flows.errors import BadPayloadError, ConfigurationError
from flows.load.ledger import Checkpoint

WHENEVER = Window()


@dataclass(frozen=True)
class Request:
    """What a person or a schedule asked for.

    Attributes:
        window: a range to load by hand; the cursor then stays where it is.
        full_refresh: read everything anew, and delete what the API no longer sends.
        run_id: what the ledger calls the run that loads.
    """

    window: Window = WHENEVER
    full_refresh: bool = False
    run_id: str | None = None

    @property
    def by_hand(self) -> bool:
        """Whether a person named the range."""
        return self.window != WHENEVER

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
                "full_refresh reads everything: leave since and until empty, or leave it off."
            )


EVERYTHING_NEW = Request()


def window_to_read(
    resource: Resource, request: Request, checkpoint: Checkpoint, now: datetime
) -> Window:
    """What to ask the API for: the range named by hand, or from the cursor's lookback on.

    Starts fall on midnight UTC, so that a load that is repeated within a day asks the same.
    `replace` reads everything.
    """
    cursor = resource.cursor
    if cursor is None:
        return Window()
    since = request.window.since
    reads_all = request.full_refresh or resource.writes == "replace"
    if since is None and checkpoint.cursor_at is not None and not reads_all:
        since = _midnight(checkpoint.cursor_at - cursor.lookback)
    since = max(filter(None, [since, None if request.by_hand else cursor.start]), default=None)
    since = since or cursor.start
    until = request.window.until
    if cursor.step is not None:
        until = until or _midnight(now)
    return Window(since, until)


def newest_of(values: set[Any]) -> datetime | None:
    """The newest of a cursor field's values; nulls do not count."""
    return max(map(_as_time, values - {None}), default=None)


def _as_time(value: Any) -> datetime:
    """An ISO 8601 date or time as an aware time; one without an offset is UTC."""
    try:
        at = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except (AttributeError, ValueError) as error:
        raise BadPayloadError(
            f"The cursor field holds {value!r}, which is not an ISO 8601 date or time. Choose "
            "another cursor field, or turn it into one in the source's `records` function."
        ) from error
    return at if at.tzinfo else at.replace(tzinfo=timezone.utc)


def _midnight(at: datetime) -> datetime:
    return datetime.combine(at.astimezone(timezone.utc).date(), time(), timezone.utc)
