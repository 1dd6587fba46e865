"""Cursors of a resource, and the windows of records that they request."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from flows import cursor_formats
from flows.errors import ConfigurationError
from flows.limits import check_expired, check_least, check_positive
from flows.local_time import DAY

# An end of the window in a path, parameter or body (`flows.extract.placeholders`).
PLACEHOLDER = re.compile(r"\{(since|after|until|last|token)(?::([^{}]*))?\}")


@dataclass(frozen=True)
class Window:
    """What to request: a time window, or where an integer cursor goes on.

    Attributes:
        since: the first time, inclusive, in UTC; None leaves this end open.
        until: the end, exclusive, in UTC; None leaves it open.
        number: the first number to request; None requests everything.
        token: what the API gave for the records it has sent so far; None requests everything.
    """

    since: datetime | None = None
    until: datetime | None = None
    number: int | None = None
    token: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing lies between its ends."""
        return self.since is not None and self.until is not None and self.since >= self.until


@dataclass(frozen=True)
class Cursor:
    """The record field whose time shows which records are new.

    Attributes:
        field: the field's name as the API sends it. Dots name a nested field
            (`meta.updated`), unless the record has a field of exactly that name.
        lookback: how far behind the newest value the next load starts, for late and corrected rows.
        start: where the first load starts; None requests everything.
        step: reads the window in slices of this length, oldest first. Needs `start`; the last slice
            then ends with the last full unit of `align`, by default with yesterday.
        slack: how far in the future a value may be and still move the cursor. Without it, a record
            dated 2999 would end incremental loading.
        format: how the field's values are written: `iso` (8601), `epoch_s`, `epoch_ms`, `epoch_us`,
            or strftime text. Requests have the window's ends in the same form, unless their
            placeholder names another one.
        zone: the time zone of values without an offset, of days, and of times in requests.
        lag: nothing newer than this is requested, and the cursor stays behind it; for APIs whose
            newest records are incomplete.
        align: windows begin and end with full units of this length since midnight, e.g. with full
            quarters of an hour. By default a day, or `step` if that is shorter.
    """

    field: str
    lookback: timedelta = timedelta()
    start: datetime | None = None
    step: timedelta | None = None
    slack: timedelta = timedelta(days=1)
    format: str = "iso"
    zone: str = "UTC"
    lag: timedelta = timedelta()
    align: timedelta | None = None

    @property
    def time_zone(self) -> tzinfo:
        """The time zone."""
        return UTC if self.zone == "UTC" else ZoneInfo(self.zone)

    @property
    def unit(self) -> timedelta:
        """What windows are aligned to."""
        return self.align or min(self.step or DAY, DAY)

    def __post_init__(self) -> None:
        """Refuse a step without a start, a start without a time zone, and unknown formats."""
        owner = f"Cursor({self.field!r})"
        if self.step is not None and self.start is None:
            raise ConfigurationError(f"{owner} has a step, so it needs a start.")
        if self.start is not None and self.start.utcoffset() is None:
            raise ConfigurationError(
                f"{owner}: its start, {self.start}, has no time zone. "
                "Write datetime(…, tzinfo=timezone.utc)."
            )
        check_positive(owner, timedelta(), step=self.step, align=self.align)
        check_least(owner, timedelta(), lookback=self.lookback, slack=self.slack, lag=self.lag)
        if self.align is not None and DAY % self.align:
            raise ConfigurationError(
                f"{owner}: align={self.align} is not a part of a day. Use e.g. a day, an hour or "
                "five minutes."
            )
        cursor_formats.check(owner, self.format)
        _check_zone(owner, self.zone)


def _check_zone(owner: str, zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (LookupError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"{owner}: there is no time zone {zone!r}. Use a name such as 'Europe/Berlin' "
            "(https://en.wikipedia.org/wiki/List_of_tz_database_time_zones)."
        ) from error


@dataclass(frozen=True)
class IntegerCursor:
    """The record field whose number shows which records are new: an id or a sequence number.

    The next load starts after the highest number so far.

    Attributes:
        field: as for `Cursor`.
        lookback: how many numbers behind the highest one are requested again. Needed if numbers
            come late or repeat: with 0, a record whose number is not higher is never requested.
        start: the first number that the first load requests; None requests everything.
    """

    field: str
    lookback: int = 0
    start: int | None = None

    def __post_init__(self) -> None:
        """Refuse a negative lookback."""
        check_least(f"IntegerCursor({self.field!r})", 0, lookback=self.lookback)


@dataclass(frozen=True)
class TokenCursor:
    """A token of the API that stands for all it has sent: a sync token, or the link to a delta.

    The last page of a load has it, and the next load sends it: the API then answers with what has
    changed since. It is kept once a load has read everything.

    Attributes:
        field: where the last page's body has the token; dots name a nested field.
        header: the response header that has it, instead of `field`.
        is_link: it is the address of the next load's first request. Otherwise `params`, `headers`
            or `body` say where it goes, with `{token}`.
        expired: the statuses with which the API refuses a token that is too old: of 400 to 499,
            but none that is retried. The load then reads everything, without a token.
    """

    field: str = ""
    header: str = ""
    is_link: bool = False
    expired: tuple[int, ...] = (410,)

    def __post_init__(self) -> None:
        """Refuse a token that stands nowhere or in two places, and statuses that refuse none."""
        check_expired(str(self), self.expired, "a token is too old")
        if bool(self.field) == bool(self.header):
            raise ConfigurationError(
                f"{self}: say where the token stands, in a field of the last page or in a header "
                'of its response: TokenCursor("nextSyncToken") or TokenCursor(header="X-Sync").'
            )


AnyCursor = Cursor | IntegerCursor | TokenCursor


# The ends of a window that each kind of cursor has.
ENDS: Mapping[type, tuple[str, ...]] = {
    Cursor: ("since", "after", "until", "last"),
    IntegerCursor: ("since", "after"),
    TokenCursor: ("token",),
}
