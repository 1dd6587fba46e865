"""The automations of automations.yaml: their check, and their conversion to Prefect's model.

The file names blocks and deployments (`block: custom-webhook/webhook`, `deployment: flow/name`);
Prefect needs their ids.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args
from uuid import UUID

from prefect.events.actions import ActionTypes
from prefect.events.schemas.automations import AutomationCore
from prefect.utilities.templating import apply_values
from pydantic import BaseModel

from deployments.check import scheduled, secrets, triggers
from deployments.check.located_yaml import Problem, YamlNode
from deployments.check.unknown_keys import keys_of, misread, refusals, unknown_keys, unlisted

Named = Literal["block", "deployment"]
NAMED: dict[Named, str] = {"block": "block_document_id", "deployment": "deployment_id"}
UNKNOWN = UUID(int=0)
ACTIONS: dict[str, type[BaseModel]] = {
    model.model_fields["type"].default: model for model in get_args(ActionTypes)
}
_ACTION_LISTS = ("actions", "actions_on_trigger", "actions_on_resolve")

Find = Callable[[Named, str], UUID]


def problems(top: YamlNode) -> Iterator[Problem]:
    """All problems of automations.yaml."""
    yield from unknown_keys(top, {"automations", "definitions"})
    yield from unlisted(top, "automations")
    yield from secrets.passwords_in_urls(top)
    names = [node.get("name").value for node in top.get("automations").items]
    for node in top.get("automations").items:
        yield from _automation(node)
        name = node.get("name").value
        if not isinstance(name, str) or names.count(name) > 1:
            text = f"name: {name!r}: a name identifies one automation. Give it its own."
            yield Problem(node.line_at(["name"]), text)


def _automation(node: YamlNode) -> Iterator[Problem]:
    yield from unknown_keys(node, keys_of(AutomationCore) - {"owner_resource"} | {scheduled.KEY})
    yield from scheduled.problems(node)
    yield from misread(node, AutomationCore)
    yield from unlisted(node, *_ACTION_LISTS)
    yield from triggers.problems(node.get("trigger"), node.get("trigger").value, False)
    if not node.get("actions").items:
        yield Problem(node.line_at(["actions"]), "actions is empty: name at least one action.")
    for key in _ACTION_LISTS:
        for action in node.get(key).items:
            yield from _action(action)


def _action(node: YamlNode) -> Iterator[Problem]:
    kind = node.get("type").value
    if kind not in ACTIONS:
        text = f"type: {kind!r} is not an action. Known: {', '.join(sorted(ACTIONS))}."
        yield Problem(node.line_at(["type"]), text)
        return
    yield from misread(node, ACTIONS[kind])
    known = keys_of(ACTIONS[kind])
    yield from unknown_keys(node, known | {name for name, id_ in NAMED.items() if id_ in known})
    for name in NAMED:
        if name in node.keys and str(node.get(name).value).count("/") != 1:
            text = f"{name}: {node.get(name).value!r} is refused: write type/name, or flow/name."
            yield Problem(node.line_at([name]), text)
    plain = with_ids(node.value, lambda kind, name: UNKNOWN)
    yield from refusals(node, lambda: ACTIONS[kind].model_validate(plain))


def blocks(spec: Mapping[str, Any]) -> list[str]:
    """The blocks that an automation's actions name, e.g. custom-webhook/webhook."""
    actions = [action for key in _ACTION_LISTS for action in spec.get(key) or []]
    return [action["block"] for action in actions if "block" in action]


def with_ids(action: Mapping[str, Any], find: Find) -> dict[str, Any]:
    """An action in Prefect's form, with ids in place of names."""
    found = {NAMED[name]: find(name, action[name]) for name in NAMED if name in action}
    return {**{key: value for key, value in action.items() if key not in NAMED}, **found}


def core(
    spec: Mapping[str, Any], project: str, find: Find, values: dict[str, Any]
) -> AutomationCore:
    """A declared automation as Prefect's model, with the project's tag.

    Args:
        spec: the automation as written in the file.
        project: the tag.
        find: returns the id of a block or deployment by its name.
        values: fill `{{ … }}` in the trigger; in other places these are templates of events.
    """
    trigger = apply_values(spec["trigger"], values, remove_notset=False)
    actions = {
        key: [with_ids(action, find) for action in spec[key]]
        for key in _ACTION_LISTS
        if key in spec
    }
    tags = sorted({*spec.get("tags", []), project})
    return AutomationCore.model_validate({**spec, **actions, "trigger": trigger, "tags": tags})
