"""Whether a trigger says which events it is for, and nothing that Prefect would drop.

A trigger without `match` and `expect` fires on every event, its own among them, until the server
is down: a typo in these words is enough.
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
    """All that is wrong with a trigger.

    Args:
        node: the trigger.
        value: its plain value with templates filled in.
        of_deployment: it stands at a deployment, and says too how that is run.
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
    """What Prefect would drop or read as something else, in a trigger and those within."""
    kind = trigger_discriminator(node.plain()) if node.keys else "event"
    if kind not in MODELS:
        known = ", ".join(MODELS)
        yield Problem(node.line_at(["type"]), f"type: no trigger is {kind!r}; it is {known}.")
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
    """A time that is over before it began, or that Prefect would replace by its least."""
    within = node.get("within").value
    if node.get("posture").value == "Proactive" and not within:
        said = "is missing" if within is None else "is refused"
        shown = "within" if within is None else f"within: {within}"
        text = f"{shown} {said}: say after how many seconds of silence it fires, 10 or more."
        yield Problem(node.line_at(["within"]), text)
    elif isinstance(within, int | float) and within < 0:
        text = f"within: {within} is refused: write a number of seconds, 0 or more."
        yield Problem(node.line_at(["within"]), text)


def _emptiness(node: YamlNode, keys: Collection[str]) -> Iterator[Problem]:
    for key in keys:
        if not node.get(key).value:
            yield Problem(
                node.line_at([key]),
                f"{key} is empty or missing: the trigger would take every event for its own, and "
                "flood the server. Name what it is for.",
            )
