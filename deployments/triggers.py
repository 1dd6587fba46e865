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

from deployments.document import Node, Problem
from deployments.known import keys_of, refusals, unknown_keys

MODELS: dict[str, type[BaseModel]] = {
    "event": EventTrigger,
    "metric": MetricTrigger,
    "compound": CompoundTrigger,
    "sequence": SequenceTrigger,
}
DEPLOYMENT_KEYS = frozenset(keys_of(BaseDeploymentTrigger))
_AUTOMATIONS: TypeAdapter[Any] = TypeAdapter(TriggerTypes)
_DEPLOYMENTS: TypeAdapter[Any] = TypeAdapter(DeploymentTriggerTypes)


def problems(node: Node, value: Any, of_deployment: bool) -> Iterator[Problem]:
    """All that is wrong with a trigger.

    Args:
        node: the trigger.
        value: its plain value with templates filled in.
        of_deployment: it stands at a deployment, and says too how that is run.
    """
    found = [*_drops(node, DEPLOYMENT_KEYS if of_deployment else frozenset())]
    yield from found
    if not found and isinstance(value, dict):
        adapter = _DEPLOYMENTS if of_deployment else _AUTOMATIONS
        named = {"name": "unnamed", **value} if of_deployment else value
        yield from refusals(node, lambda: adapter.validate_python(named))


def _drops(node: Node, more: Collection[str]) -> Iterator[Problem]:
    """Keys and kinds that Prefect does not know, and emptiness, in a trigger and those within."""
    kind = trigger_discriminator(node.plain()) if node.keys else "event"
    if kind not in MODELS:
        known = ", ".join(MODELS)
        yield Problem(node.line_at(["type"]), f"type: no trigger is {kind!r}; it is {known}.")
        return
    yield from unknown_keys(node, keys_of(MODELS[kind]) | set(more))
    if kind == "event":
        yield from _emptiness(node, ["match", "expect"])
    if kind == "metric":
        yield from _emptiness(node, ["match"])
        yield from unknown_keys(node.get("metric"), keys_of(MetricTriggerQuery))
    if kind in ("compound", "sequence"):
        yield from _emptiness(node, ["triggers"])
        for inner in node.get("triggers").items:
            yield from _drops(inner, frozenset())


def _emptiness(node: Node, keys: Collection[str]) -> Iterator[Problem]:
    for key in keys:
        if not node.get(key).value:
            yield Problem(
                node.line_at([key]),
                f"{key} is empty or missing: the trigger would take every event for its own, and "
                "flood the server. Name what it is for.",
            )
