"""Checks that a schedule starts runs, at the times that are written, and has no dead keys.

Prefect accepts a schedule that never comes. Then nothing fails, and nothing runs.
"""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from prefect._vendor.croniter.croniter import CroniterBadDateError, croniter
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.types._datetime import parse_datetime

from deployments.check.located_yaml import Problem, YamlNode

_ONLY_WITH = {"anchor_date": "interval", "day_or": "cron"}
_EMPTY = {
    "cron": 'write `cron: "0 5 * * *"`, or another schedule.',
    "rrule": 'write `rrule: "FREQ=DAILY"`, or another schedule.',
    "timezone": "Prefect would use UTC. Write `timezone: UTC` if you want that.",
}
_AT_UTC = re.compile(r"(Z|UTC|[+-]00(:?00)?)$", re.IGNORECASE)
_WITHIN_A_DAY = re.compile("FREQ=(SECONDLY|MINUTELY|HOURLY)", re.IGNORECASE)
_INTERVAL = re.compile("INTERVAL=[^;]*", re.IGNORECASE)
_NO_INTERVAL = re.compile("INTERVAL=(?![1-9])", re.IGNORECASE)


def emptiness(node: YamlNode) -> Iterator[Problem]:
    """Keys with an empty string."""
    for key, remedy in _EMPTY.items():
        if node.get(key).value == "":
            yield Problem(node.line_at([key]), f"{key} is empty: {remedy}")


def without_effect(node: YamlNode) -> Iterator[Problem]:
    """Keys that Prefect drops because they belong to another kind of schedule."""
    for key, kind in _ONLY_WITH.items():
        if node.get(key).value is not None and node.get(kind).value is None:
            text = (
                f"{key}: Prefect reads it only with `{kind}:`, and would drop it here. Remove it."
            )
            yield Problem(node.line_at([key]), text)


def misread_anchor(node: YamlNode) -> Iterator[Problem]:
    """An anchor date that Prefect can't read, or would take for another time than its zone's."""
    value, zone = node.get("anchor_date").value, node.get("timezone").value or "UTC"
    if value is None or node.get("interval").value is None:
        return
    written = value.isoformat() if isinstance(value, date) else str(value)
    try:
        parsed, local = parse_datetime(written), ZoneInfo(str(zone))
    except (ValueError, KeyError, OSError):
        return  # the schedule's validator names what is wrong
    has_offset = bool(parsed.utcoffset()) or bool(_AT_UTC.search(written))
    right = (parsed if has_offset else parsed.replace(tzinfo=local)).isoformat()
    line, remedy = node.line_at(["anchor_date"]), f'Write `anchor_date: "{right}"`.'
    if not isinstance(value, str):
        text = f"anchor_date: {written} is not in quotes, and Prefect reads only text. {remedy}"
        yield Problem(line, text)
    elif not has_offset and right != parsed.isoformat():
        text = f"anchor_date: {written} has no offset: Prefect would take it as UTC, not {zone}. "
        yield Problem(line, text + remedy)


def must_come(schedule: Any) -> None:
    """Accept a schedule that starts at least one run.

    Raises:
        ValueError: when it never starts one.
    """
    if isinstance(schedule, CronSchedule):
        _cron(schedule)
    if isinstance(schedule, RRuleSchedule):
        _rrule(schedule)
    if isinstance(schedule, IntervalSchedule) and schedule.interval < timedelta(seconds=1):
        seconds = schedule.interval.total_seconds()
        raise ValueError(f"interval: {seconds} is refused: write a number of seconds, 1 or more")


def _cron(schedule: CronSchedule) -> None:
    try:
        days = croniter(schedule.cron, day_or=schedule.day_or)  # type: ignore[no-untyped-call]
        next(days)
    except CroniterBadDateError:
        text = f"cron: {schedule.cron} never comes: Prefect finds no such day in fifty years"
        raise ValueError(text) from None


def _rrule(schedule: RRuleSchedule) -> None:
    written = " ".join(schedule.rrule.splitlines())
    if _NO_INTERVAL.search(written):
        raise ValueError(f"rrule: {written}: INTERVAL is a whole number, 1 or more")
    try:
        rule = RRuleSchedule(rrule=_by_day(schedule.rrule), timezone=schedule.timezone).to_rrule()
    except ValueError as error:
        raise ValueError(
            f"rrule: {written}: {error}. Write UNTIL without the Z, or add a DTSTART with a Z"
        ) from error
    if next(iter(rule.xafter(datetime.now(UTC), inc=True)), None) is None:
        raise ValueError(
            f"rrule: {written} never comes: there is no such day, or all are past. "
            "Without a DTSTART, Prefect counts from 2020-01-01"
        )


def _by_day(rrule: str) -> str:
    """A daily rule that comes if this one does, to be evaluated in milliseconds, not minutes.

    From 2020 until now there are two thousand days, but two hundred million seconds.
    """
    if "COUNT=" in rrule.upper() or not _WITHIN_A_DAY.search(rrule):
        return rrule
    return _INTERVAL.sub("INTERVAL=1", _WITHIN_A_DAY.sub("FREQ=DAILY", rrule))
