"""The changes that bring the server to the state that the files declare.

Only reads. Objects with the project's tag belong to this project, and those that the files do not
declare are to be removed. What a person paused or disabled in Prefect's UI stays so, unless the
file states otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import Automation, AutomationCore

from blocks.environment import own
from deployments import actual, desired
from deployments.check import automations
from deployments.check.prefect_yaml import Declared
from deployments.desired import DesiredDeployment
from deployments.diff import diff, plain

Kind = Literal["work pool", "deployment", "schedule", "automation"]


@dataclass(frozen=True)
class Change:
    """One thing to change on the server.

    Attributes:
        verb: create, update or remove.
        name: for a schedule, the name of its deployment.
        details: the fields that change, old -> new.
        slug: the schedule's; empty for other kinds.
        ids: on the server: the object's; for a schedule, the deployment's and the schedule's.
        body: the desired state.
    """

    verb: Literal["create", "update", "remove"]
    kind: Kind
    name: str
    details: tuple[str, ...] = ()
    slug: str = ""
    ids: tuple[UUID, ...] = ()
    body: Any = None

    def __str__(self) -> str:
        """`update schedule daily of elt/shop: cron '0 5 * * *' -> '0 6 * * *'`."""
        what = f"{self.slug} of {self.name}" if self.slug else self.name
        details = f": {'; '.join(self.details)}" if self.details else ""
        return f"{self.verb} {self.kind} {what}{details}"


@dataclass(frozen=True)
class Plan:
    """All changes, and what a person paused or disabled on the server and stays so.

    Attributes:
        paused: deployments that were paused by hand, by name.
        disabled: automations that were disabled by hand.
        missing_blocks: notification blocks that the files name and that do not exist.
    """

    changes: Sequence[Change]
    paused: Mapping[str, UUID]
    disabled: frozenset[str]
    missing_blocks: Sequence[str]

    def of(self, kind: Kind, *verbs: str) -> list[Change]:
        """The changes of a kind, with any verb if none is given."""
        return [
            each for each in self.changes if each.kind == kind and (not verbs or each.verb in verbs)
        ]


def compare(
    client: SyncPrefectClient, declared: Declared, disabled: frozenset[str] = frozenset()
) -> Plan:
    """Compare the server with the files.

    Args:
        client: of the server.
        declared: the files, checked.
        disabled: automations to disable again: deploying a deployment recreates those of its
            triggers as enabled.
    """
    all_wanted = desired.deployments(declared)
    found = actual.deployments(client, declared.project, [each.name for each in all_wanted])
    named = {each.name for each in all_wanted}
    pools = sorted({each.pool for each in all_wanted})
    changes = [
        Change("create", "work pool", pool) for pool in pools if not actual.has_pool(client, pool)
    ]
    for each in all_wanted:
        changes += _deployment(each, found.get(each.name))
    ids = {name: response.id for name, response in found.items()}
    autos, kept = _automations(client, declared, all_wanted, ids, disabled)
    changes += autos
    changes += [
        Change("remove", "deployment", name, ids=(response.id,))
        for name, response in sorted(found.items())
        if name not in named
    ]
    paused = {
        each.name: found[each.name].id
        for each in all_wanted
        if each.name in found and found[each.name].paused and "paused" not in each.fields
    }
    return Plan(changes, paused, kept, _missing_blocks(client, declared))


def _deployment(each: DesiredDeployment, found: DeploymentResponse | None) -> Iterator[Change]:
    if found is None:
        times = [f"schedule {slug} {_when(fields)}" for slug, fields in each.schedules.items()]
        yield Change("create", "deployment", each.name, tuple(times))
        return
    if details := diff(_fields(found, each.fields), _normal(each.fields)):
        yield Change("update", "deployment", each.name, tuple(details), ids=(found.id,))
    yield from _schedules(each, found)


def _fields(found: DeploymentResponse, like: Mapping[str, Any]) -> dict[str, Any]:
    """The compared fields of the server's deployment: those that `like` has."""
    fields = {name: getattr(found, name) for name in like if name != "concurrency_limit"}
    limit = found.global_concurrency_limit
    fields["concurrency_limit"] = limit.limit if limit else None
    return _normal(fields)


def _normal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields in one form, since the server returns some in another form than it accepts."""
    known: dict[str, Any] = plain(fields)
    options = known["concurrency_options"] or {}
    return {
        **known,
        "tags": sorted(known["tags"]),
        "description": known["description"] or "",
        "pull_steps": known["pull_steps"] or [],
        "work_queue_name": known["work_queue_name"] or "default",
        "concurrency_options": {key: value for key, value in options.items() if value is not None},
    }


def _schedules(each: DesiredDeployment, found: DeploymentResponse) -> Iterator[Change]:
    there = {schedule.slug or "": schedule for schedule in found.schedules}
    change = partial(Change, kind="schedule", name=each.name)
    for slug, fields in each.schedules.items():
        schedule = there.get(slug)
        if schedule is None:
            yield change("create", details=(_when(fields),), slug=slug)
            continue
        has = {
            **desired.schedule_fields(schedule.schedule, schedule.parameters),
            "active": schedule.active,
        }
        old = {name: has.get(name) for name in fields}
        if details := diff(old, dict(fields)):
            ids = (found.id, schedule.id)
            yield change("update", details=tuple(details), slug=slug, ids=ids, body=fields)
    for schedule in found.schedules:
        if schedule.slug not in each.schedules:
            fields = desired.schedule_fields(schedule.schedule, {})
            slug = schedule.slug or "without slug"
            ids = (found.id, schedule.id)
            yield change("remove", details=(_when(fields),), slug=slug, ids=ids)


def _when(fields: Mapping[str, Any]) -> str:
    """`30 5 * * * Europe/London`; an interval's anchor in the schedule's time zone."""
    time = fields.get("cron") or fields.get("rrule") or f"every {fields.get('interval')}"
    if anchor := fields.get("anchor_date"):
        local = datetime.fromisoformat(anchor).astimezone(ZoneInfo(fields["timezone"]))
        time = f"{time} from {local.isoformat()}"
    return f"{time} {fields['timezone']}"


def _automations(
    client: SyncPrefectClient,
    declared: Declared,
    all_wanted: Sequence[DesiredDeployment],
    ids: Mapping[str, UUID],
    disabled: frozenset[str],
) -> tuple[list[Change], frozenset[str]]:
    """The changes of automations, and the names of those that were disabled by hand."""
    there = actual.automations(client)
    changes: list[Change] = []
    kept, off = set(), set(disabled)
    for core, says_enabled in _cores(client, declared, all_wanted, ids):
        found = [each for each in there if _is_same(each, core, declared.project)]
        kept |= {each.id for each in found[:1]}
        if not says_enabled and found and not found[0].enabled:
            off.add(core.name)
        body = (
            core.model_copy(update={"enabled": core.name not in off}) if not says_enabled else core
        )
        changes += _automation(body, found[0] if found else None)
    changes += [
        Change("remove", "automation", each.name, ids=(each.id,))
        for each in there
        if declared.project in each.tags and each.id not in kept
    ]
    return changes, frozenset(off)


def _cores(
    client: SyncPrefectClient,
    declared: Declared,
    all_wanted: Sequence[DesiredDeployment],
    ids: Mapping[str, UUID],
) -> Iterator[tuple[AutomationCore, bool]]:
    """The automations of automations.yaml and the triggers; whether the file sets `enabled`."""
    for each in all_wanted:
        for trigger, says_enabled in each.triggers:
            trigger.set_deployment_id(ids.get(each.name, automations.UNKNOWN))
            core = trigger.as_automation()
            yield core.model_copy(update={"tags": [declared.project]}), says_enabled
    find = partial(_find, client, ids)
    pools = {"work_pool": {"name": all_wanted[0].pool}} if all_wanted else {}
    for spec in declared.automations:
        core = automations.core(spec, declared.project, find, pools)
        yield core, "enabled" in spec


def _find(client: SyncPrefectClient, ids: Mapping[str, UUID], kind: str, name: str) -> UUID:
    """The id of a block or a deployment, or `UNKNOWN` if it does not exist yet."""
    if kind == "deployment":
        other = None if name in ids else actual.deployment(client, name)
        return other.id if other else ids.get(name, automations.UNKNOWN)
    return actual.block(client, name) or automations.UNKNOWN


def named_blocks(declared: Declared) -> set[str]:
    """The notification blocks that the files name, e.g. apprise/email."""
    named = {block for spec in declared.automations for block in automations.blocks(spec)}
    for entry in declared.deployments:
        named |= {own(name) for name in (entry.get("parameters") or {}).get("blocks") or []}
    return named


def _missing_blocks(client: SyncPrefectClient, declared: Declared) -> list[str]:
    return [slug for slug in sorted(named_blocks(declared)) if actual.block(client, slug) is None]


def _is_same(there: Automation, core: AutomationCore, project: str) -> bool:
    """True if the name matches and it is ours: by tag, or just created by `prefect deploy`."""
    if there.name != core.name:
        return False
    runs = {getattr(action, "deployment_id", None) for action in there.actions}
    return project in there.tags or f"{core.owner_resource}" in {
        f"prefect.deployment.{run}" for run in runs
    }


def _automation(body: AutomationCore, found: Automation | None) -> Iterator[Change]:
    if found is None:
        yield Change("create", "automation", body.name, body=body)
        return
    ignored = {"owner_resource", "name"}
    old = plain(AutomationCore(**found.model_dump(exclude={"id"})).model_dump(exclude=ignored))
    if details := diff(old, plain(body.model_dump(exclude=ignored))):
        yield Change("update", "automation", body.name, tuple(details), ids=(found.id,), body=body)
