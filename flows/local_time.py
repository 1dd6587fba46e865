"""Times of a zone: days, hours and steps as its clocks show them.

When summer time ends, one hour is there twice. A text such as `02:30` then means either, so windows
neither begin nor end there. All functions take and return UTC.
"""

from datetime import UTC, datetime, time, timedelta, tzinfo

EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)
DAY = timedelta(days=1)


def in_zone(at: datetime, zone: tzinfo) -> datetime:
    """The time in a zone; the first and the last day of the calendar stay in UTC."""
    is_at_the_edge = at - EARLIEST < DAY or LATEST - at < DAY
    return at.astimezone(UTC if is_at_the_edge else zone)


def floor(at: datetime, unit: timedelta, zone: tzinfo) -> datetime:
    """The last full unit since midnight in a zone, or one before an hour that is there twice."""
    local = in_zone(at, zone)
    midnight = datetime.combine(local.date(), time())
    if unit >= DAY:
        return _as_utc(midnight, local.tzinfo)
    floored = midnight + (local.replace(tzinfo=None) - midnight) // unit * unit
    twice = _offset(floored, local.tzinfo, 0) - _offset(floored, local.tzinfo, 1)
    return _as_utc(floored - max(twice, timedelta()), local.tzinfo)


def later(at: datetime, step: timedelta, zone: tzinfo) -> datetime:
    """The time a step later on the clocks of a zone: a day may have 23 or 25 hours."""
    if zone is UTC:
        return at + step
    local = in_zone(at, zone)
    found = _as_utc(local.replace(tzinfo=None) + step, local.tzinfo)
    return found if found > at else at + step


def in_clocks_of(at: datetime, zone: tzinfo) -> datetime:
    """The moment at which the clocks of a zone show what those of UTC show at `at`."""
    return at if zone is UTC else _as_utc(at.astimezone(UTC).replace(tzinfo=None), zone)


def _offset(local: datetime, zone: tzinfo | None, fold: int) -> timedelta:
    return local.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta()


def _as_utc(local: datetime, zone: tzinfo | None) -> datetime:
    return local.replace(tzinfo=zone).astimezone(UTC)
