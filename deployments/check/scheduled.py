"""Automations that automations.yaml declares once for all scheduled deployments with a tag.

So a new deployment is watched from its first deploy, and the file stays as it is.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, cast
from zoneinfo import ZoneInfo

from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule
from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import TypeAdapter

from deployments.check.located_yaml import Problem, YamlNode

KEY = "for_each_scheduled"
NAME, HOURS = "{{ scheduled.name }}", "{{ scheduled.hours }}"
# Enough to meet the longest pause of a schedule, e.g. a weekend or February.
RUNS = 60
_SCHEDULE: TypeAdapter[CronSchedule | IntervalSchedule | RRuleSchedule] = TypeAdapter(
    CronSchedule | IntervalSchedule | RRuleSchedule
)


def problems(node: YamlNode) -> Iterator[Problem]:
    """What is wrong with an automation's `for_each_scheduled`."""
    tag = node.get(KEY).value
    if KEY not in node.keys:
        return
    if not isinstance(tag, str) or not tag:
        text = f"{KEY}: {tag!r} is refused: write the tag of the deployments, e.g. `watched`."
        yield Problem(node.line_at([KEY]), text)
    if NAME not in str(node.get("name").value):
        text = f"name: all deployments would share it. Write e.g. `{NAME} is silent`."
        yield Problem(node.line_at(["name"]), text)
    within = node.get("trigger").get("within").value
    if not isinstance(within, int):
        yield Problem(
            node.get("trigger").line_at(["within"]),
            "within is missing: write the seconds that it adds to the longest time between two "
            "runs of the deployment.",
        )


def expanded(
    specs: Iterable[Mapping[str, Any]], deployments: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """The automations, with one for each deployment in place of those declared for many."""
    found: list[Mapping[str, Any]] = []
    for spec in specs:
        if KEY not in spec:
            found.append(spec)
            continue
        for deployment in deployments:
            schedules = _active_schedules(deployment)
            if spec[KEY] in deployment.get("tags", ()) and schedules:
                found.append(_filled(spec, str(deployment["name"]), longest_pause(schedules)))
    return found


def _active_schedules(deployment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = deployment.get("schedules") or []
    return [each for each in listed if each.get("active", True) is not False]


def _filled(spec: Mapping[str, Any], name: str, pause: timedelta) -> dict[str, Any]:
    within = pause + timedelta(seconds=spec["trigger"]["within"])
    hours = f"{within / timedelta(hours=1):g}"
    text = json.dumps({key: value for key, value in spec.items() if key != KEY})
    text = text.replace(NAME, json.dumps(name)[1:-1]).replace(HOURS, hours)
    filled = cast(dict[str, Any], json.loads(text))
    filled["trigger"]["within"] = int(within.total_seconds())
    return filled


def longest_pause(schedules: Sequence[Mapping[str, Any]]) -> timedelta:
    """The longest time between two runs by these schedules, as entries of prefect.yaml.

    By the clock of each schedule's zone: the hour that a night in spring lacks does not count.
    """
    runs = [_runs(each) for each in schedules]
    end = min(times[-1] for times in runs)
    times = sorted({time for each in runs for time in each if time <= end})
    return max((later - earlier for earlier, later in pairwise(times)), default=timedelta())


def _runs(config: Mapping[str, Any]) -> list[datetime]:
    """The times of the next runs by one schedule, by its own clock, without an offset."""
    given = _schedule_config_to_deployment_schedule(dict(config))["schedule"]
    schedule = _SCHEDULE.validate_python(given.model_dump())
    zone = ZoneInfo(schedule.timezone or "UTC")
    times = asyncio.run(schedule.get_dates(n=RUNS, start=datetime.now(UTC)))
    return [datetime.fromtimestamp(time.timestamp(), zone).replace(tzinfo=None) for time in times]
