"""Reads prefect.yaml and automations.yaml, and checks them completely before any deployment.

Needs no server: it does not check what only the server knows (its variables and blocks).
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.cli.deploy._schedules import _schedule_config_to_deployment_schedule
from prefect.client.schemas.actions import DeploymentScheduleUpdate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.exceptions import PrefectException
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.templating import apply_values
from pydantic import TypeAdapter

from blocks.environment import own
from deployments import environments
from deployments.check import (
    automations,
    located_yaml,
    parameters,
    scheduled,
    schedules,
    secrets,
    triggers,
)
from deployments.check.located_yaml import Problem, YamlNode
from deployments.check.unknown_keys import (
    below_one,
    keys_of,
    misread,
    refusals,
    unknown_keys,
    unlisted,
)
from flows.errors import ConfigurationError

DEPLOYMENTS = "prefect.yaml"
AUTOMATIONS = "deployments/automations.yaml"
_VARIABLE = re.compile(r"\{\{\s*\$(\w+)\s*\}\}")
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
_CHECKED_APART = ("schedule", "schedules", "triggers", "concurrency_limit", "work_pool")


@dataclass(frozen=True)
class Declared:
    """The contents of the two files, which have no problems, with the environment's names.

    Attributes:
        root: the folder of prefect.yaml; entrypoints are relative to it.
        project: prefect.yaml's name; the tag of everything that this project deploys.
        deployments: as written in the file, with anchors resolved and templates unresolved.
        pull: the pull steps of deployments that have none of their own; None for Prefect's.
        automations: as written in their file, but one per deployment of those declared for many.
        flows: by entrypoint.
    """

    root: Path
    project: str
    deployments: Sequence[Mapping[str, Any]]
    pull: Any
    automations: Sequence[Mapping[str, Any]]
    flows: Mapping[str, Flow[..., Any]] = field(repr=False)


def read(root: Path) -> Declared:
    """Read and check the files in a project's folder, which must be the current folder.

    Raises:
        ConfigurationError: when the files have problems; the message lists all of them.
    """
    top, problems = located_yaml.read(root / DEPLOYMENTS)
    flows = _Flows()
    problems += _deployments_file(top, flows)
    found = [f"{DEPLOYMENTS}:{each.line}: {each.text}" for each in _ordered(problems)]
    specs: Any = []
    if (root / AUTOMATIONS).exists():
        rest, problems = located_yaml.read(root / AUTOMATIONS)
        problems += automations.problems(rest)
        found += [f"{AUTOMATIONS}:{each.line}: {each.text}" for each in _ordered(problems)]
        specs = rest.get("automations").value or []
    if found:
        raise ConfigurationError(
            f"Correct {_count_problems(found)} first:\n  " + "\n  ".join(found)
        )
    value = top.value
    project, written = value["name"], value.get("deployments") or []
    deployments = environments.own_deployments(written, project)
    specs = environments.own_automations(specs, written, project)
    specs = scheduled.expanded(specs, with_environment(deployments))
    pull = environments.own_steps(value.get("pull"))
    return Declared(root, own(project), deployments, pull, specs, flows.loaded)


def with_environment(value: Any) -> Any:
    """A plain value as JSON types, with those environment variables filled in that are set."""
    as_json = _ANYTHING.dump_python(value, mode="json")
    return apply_values(as_json, {}, remove_notset=False)


def _ordered(problems: Sequence[Problem]) -> list[Problem]:
    """Sorted by line, without duplicates: several deployments may share an anchor."""
    return sorted(set(problems), key=lambda each: (each.line, each.text))


def _count_problems(found: Sequence[str]) -> str:
    return "1 problem" if len(found) == 1 else f"{len(found)} problems"


class _Flows:
    """Loads the flow of each entrypoint once; `complaints` has the errors of those that fail."""

    def __init__(self) -> None:
        self.loaded: dict[str, Flow[..., Any]] = {}
        self.complaints: dict[str, str] = {}

    def find(self, entrypoint: str) -> Flow[..., Any] | None:
        if entrypoint not in self.loaded and entrypoint not in self.complaints:
            try:
                self.loaded[entrypoint] = load_flow_from_entrypoint(
                    entrypoint, use_placeholder_flow=False
                )
            except (PrefectException, ImportError, OSError, ValueError, AttributeError) as error:
                cause = error.__cause__ or error
                self.complaints[entrypoint] = f"{type(cause).__name__}: {cause}".rstrip(". ")
        return self.loaded.get(entrypoint)


def _deployments_file(top: YamlNode, flows: _Flows) -> Iterator[Problem]:
    yield from unknown_keys(top, keys_of(PrefectYamlModel) | {"definitions"})
    yield from unlisted(top, "deployments")
    project = top.get("name").value
    if not isinstance(project, str) or not project:
        yield Problem(top.line, "name is missing: it tags everything that this project deploys.")
    yield from secrets.passwords_in_urls(top)
    yield from _duplicates(top.get("deployments").items, "name", "deployments")
    for node in top.get("deployments").items:
        yield from _deployment(node, str(project), flows)


def _duplicates(nodes: Sequence[YamlNode], key: str, what: str) -> Iterator[Problem]:
    counts = Counter(node.get(key).value for node in nodes)
    for node in nodes:
        name = node.get(key).value
        if name is not None and counts[name] > 1:
            text = f"{key}: {counts[name]} {what} are called {name!r}: give each its own {key}."
            yield Problem(node.line_at([key]), text)


def _deployment(node: YamlNode, project: str, flows: _Flows) -> Iterator[Problem]:
    if not node.keys:
        yield Problem(node.line, "a deployment is a mapping with a name and an entrypoint.")
        return
    yield from unknown_keys(node, keys_of(DeploymentConfig))
    yield from unlisted(node, "schedules", "triggers")
    yield from misread(node, DeploymentConfig)
    yield from _shape(node)
    yield from _tags(node, project)
    yield from _unset_variables(node)
    yield from _work_pool(node)
    yield from _concurrency_limit(node)
    yield from _stored_secrets(node)
    yield from _schedules(node)
    for trigger in node.get("triggers").items:
        value = {**with_environment(trigger.value), "parameters": {}} if trigger.keys else None
        yield from triggers.problems(trigger, value, of_deployment=True)
        yield from parameters.unprintable(trigger.get("parameters"))
    yield from _flow(node, flows)


def _shape(node: YamlNode) -> Iterator[Problem]:
    """A missing name, and values of the wrong type."""
    if not node.get("name").value:
        yield Problem(node.line, "name is missing: Prefect would skip this deployment.")
    plain = {
        key: value
        for key, value in with_environment(node.value).items()
        if key not in _CHECKED_APART
    }
    yield from refusals(node, lambda: DeploymentConfig.model_validate(plain))


def _tags(node: YamlNode, project: str) -> Iterator[Problem]:
    tags = with_environment(node.get("tags").value) or []
    if project not in ([tags] if isinstance(tags, str) else tags):
        yield Problem(
            node.line_at(["tags"]),
            f"tags of {node.get('name').value!r} lack {project!r}: `make deploy` removes only what "
            f"has this tag once it leaves the file. Write `tags: [{project}]`.",
        )


def _unset_variables(node: YamlNode) -> Iterator[Problem]:
    """Variables that are not set. Pull steps are excluded: a run fills them in on its machine."""
    for key in node.keys:
        if key == "pull":
            continue
        for name, scalar in node.get(key).scalars(key):
            for variable in _VARIABLE.findall(str(scalar.value)):
                if variable not in os.environ:
                    text = f"{name}: {variable} is not set: set it in .env, or write the value."
                    yield Problem(scalar.line, text)


def _work_pool(node: YamlNode) -> Iterator[Problem]:
    pool = node.get("work_pool")
    yield from unknown_keys(pool, keys_of(WorkPoolConfig))
    if pool.value is not None:
        yield from refusals(
            pool, lambda: WorkPoolConfig.model_validate(with_environment(pool.value))
        )
    for name, scalar in pool.get("job_variables").get("env").scalars("env"):
        if not isinstance(scalar.value, str | None):
            text = f"{name}: {scalar.value!r} is refused: write it in quotes, as text."
            yield Problem(scalar.line, text)


def _concurrency_limit(node: YamlNode) -> Iterator[Problem]:
    limit = node.get("concurrency_limit")
    yield from below_one(node, "concurrency_limit")
    if limit.keys:
        yield from unknown_keys(limit, keys_of(ConcurrencyLimitSpec))
        yield from misread(limit, ConcurrencyLimitSpec)
        yield from below_one(limit, "limit")
        if not limit.get("collision_strategy").value:
            text = "collision_strategy is missing: write CANCEL_NEW or ENQUEUE."
            yield Problem(limit.line, text)
        yield from refusals(limit, lambda: ConcurrencyLimitConfig(**with_environment(limit.value)))
    elif limit.value is not None and type(limit.value) is not int:
        yield Problem(
            limit.line,
            f"concurrency_limit: {limit.value!r} is refused: write a number of runs, 1 or more.",
        )


def _stored_secrets(node: YamlNode) -> Iterator[Problem]:
    yield from secrets.stored_secrets(node.get("work_pool").get("job_variables"))
    for holder in [node, *node.get("schedules").items, *node.get("triggers").items]:
        yield from secrets.stored_secrets(holder.get("parameters"))
        yield from secrets.stored_secrets(holder.get("job_variables"))


def _schedules(node: YamlNode) -> Iterator[Problem]:
    if node.get("schedule").value is not None:
        text = "schedule is Prefect's old key: write `schedules:`, a list, each with a slug."
        yield Problem(node.line_at(["schedule"]), text)
    yield from _duplicates(node.get("schedules").items, "slug", "schedules of this deployment")
    for schedule in node.get("schedules").items:
        yield from unknown_keys(schedule, keys_of(RawScheduleConfig))
        if not schedule.get("slug").value:
            yield Problem(
                schedule.line,
                "slug is missing: without it Prefect recreates all schedules at each deploy and "
                "forgets which were paused. Give it a name of its own, e.g. `slug: daily`.",
            )
        yield from misread(schedule, RawScheduleConfig)
        yield from schedules.without_effect(schedule)
        yield from schedules.misread_anchor(schedule)
        empty = [*schedules.emptiness(schedule)]
        yield from empty or refusals(schedule, _schedule_validator(schedule))


def _schedule_validator(schedule: YamlNode) -> Callable[[], object]:
    """Validates a schedule as `prefect deploy` does; `unknown_keys` reports unknown keys."""
    known = keys_of(RawScheduleConfig)
    plain = {key: value for key, value in with_environment(schedule.value).items() if key in known}
    if "{{" in str(plain.get("active")):
        del plain["active"]

    def validate() -> object:
        raw = RawScheduleConfig.model_validate(plain)
        config = raw.model_dump(mode="json", exclude_unset=True)
        update = DeploymentScheduleUpdate(**_schedule_config_to_deployment_schedule(config))
        schedules.must_come(update.schedule)
        return update

    return validate


def _flow(node: YamlNode, flows: _Flows) -> Iterator[Problem]:
    """Checks that the flow loads, has a description and accepts its parameters."""
    entrypoint = with_environment(node.get("entrypoint").value)
    if not isinstance(entrypoint, str) or not entrypoint:
        text = "entrypoint is missing: write `entrypoint: flows/elt.py:elt`, a file and a flow."
        yield Problem(node.line, text)
        return
    flow = flows.find(entrypoint)
    if flow is None:
        yield Problem(
            node.line_at(["entrypoint"]),
            f"entrypoint: {entrypoint} does not load: {flows.complaints[entrypoint]}.",
        )
        return
    if not (with_environment(node.get("description").value) or flow.description):
        text = "description is missing: Prefect's UI would show 'None'. Write one, or a docstring."
        yield Problem(node.line, text)
    yield from _parameters(flow, node)


def _parameters(flow: Flow[..., Any], node: YamlNode) -> Iterator[Problem]:
    own = node.get("parameters")
    starters = [*node.get("schedules").items, *node.get("triggers").items]
    for holder in [node, *starters]:
        given = holder.get("parameters")
        yield from parameters.refused(flow, given, with_environment(given.value) or {})
    for holder in starters:
        names = [*own.keys, *holder.get("parameters").keys]
        for name in parameters.missing(flow, names):
            yield Problem(
                holder.line,
                f"{name}: the flow {flow.name} needs this parameter, and runs started by this lack "
                "it: name it under the deployment's `parameters:`.",
            )
