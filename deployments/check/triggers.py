"""Checks that a trigger names its events and has no unknown keys.

A trigger without `match` and `expect` fires on every event, including its own, until the server
is down. A typo in these keys is enough.
"""

from collections.abc import Collection, Iterator
from typing import Any

from prefect.events import DeploymentTriggerTypes
from prefect.events.schemas.automations import (
    CompoundTrigger,
    EventTrigger,
    MetricTrigger,
    MetricTriggerQuery,
    SequenceTrigger,
    TriggerTypes,
    trigger_discriminator,
)
from prefect.events.schemas.deployment_triggers import BaseDeploymentTrigger
from pydantic import BaseModel, TypeAdapter

from deployments.check.located_yaml import Problem, YamlNode
from deployments.check.unknown_keys import below_one, keys_of, misread, refusals, unknown_keys

MODELS: dict[str, type[BaseModel]] = {
    "event": EventTrigger,
    "metric": MetricTrigger,
    "compound": CompoundTrigger,
    "sequence": SequenceTrigger,
}
DEPLOYMENT_KEYS = frozenset(keys_of(BaseDeploymentTrigger))
_AUTOMATIONS: TypeAdapter[Any] = TypeAdapter(TriggerTypes)
_DEPLOYMENTS: TypeAdapter[Any] = TypeAdapter(DeploymentTriggerTypes)


def problems(node: YamlNode, value: Any, of_deployment: bool) -> Iterator[Problem]:
    """All problems of a trigger.

    Args:
        node: the trigger.
        value: its plain value with templates filled in.
        of_deployment: the trigger belongs to a deployment, and also has the keys for its runs.
    """
    found = [*_drops(node, DEPLOYMENT_KEYS if of_deployment else frozenset())]
    if of_deployment:
        found += misread(node, BaseDeploymentTrigger)
    yield from found
    if not found and isinstance(value, dict):
        adapter = _DEPLOYMENTS if of_deployment else _AUTOMATIONS
        named = {"name": "unnamed", **value} if of_deployment else value
        yield from refusals(node, lambda: adapter.validate_python(named))


def _drops(node: YamlNode, more: Collection[str]) -> Iterator[Problem]:
    """Keys that Prefect would drop or misread, in a trigger and in those nested in it."""
    kind = trigger_discriminator(node.value) if node.keys else "event"
    if kind not in MODELS:
        known = ", ".join(MODELS)
        yield Problem(node.line_at(["type"]), f"type: {kind!r} is not a trigger. Known: {known}.")
        return
    yield from unknown_keys(node, keys_of(MODELS[kind]) | set(more))
    yield from misread(node, MODELS[kind])
    yield from _spans(node)
    if kind == "event":
        yield from _emptiness(node, ["match", "expect"])
        yield from below_one(node, "threshold")
    if kind == "metric":
        yield from _emptiness(node, ["match"])
        yield from unknown_keys(node.get("metric"), keys_of(MetricTriggerQuery))
    if kind in ("compound", "sequence"):
        yield from _emptiness(node, ["triggers"])
        for inner in node.get("triggers").items:
            yield from _drops(inner, frozenset())


def _spans(node: YamlNode) -> Iterator[Problem]:
    """A `within` that is negative, or that Prefect would replace by its minimum."""
    within = node.get("within").value
    if node.get("posture").value == "Proactive" and not within:
        problem = "is missing" if within is None else "is refused"
        shown = "within" if within is None else f"within: {within}"
        text = f"{shown} {problem}: write the seconds of silence after which it fires, 10 or more."
        yield Problem(node.line_at(["within"]), text)
    elif isinstance(within, int | float) and within < 0:
        text = f"within: {within} is refused: write a number of seconds, 0 or more."
        yield Problem(node.line_at(["within"]), text)


def _emptiness(node: YamlNode, keys: Collection[str]) -> Iterator[Problem]:
    for key in keys:
        if not node.get(key).value:
            yield Problem(
                node.line_at([key]),
                f"{key} is empty or missing: the trigger would fire on every event and flood the "
                "server. Name what it is for.",
            )
