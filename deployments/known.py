"""What Prefect's own models know: keys that they would drop, values that they would refuse.

Prefect ignores a key that it does not know, at every level but schedules.
"""

import difflib
from collections.abc import Callable, Collection, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from deployments.document import Node, Problem

_RETRIES = (
    "a deployment has no such key. Retries are the flow's parameter: write `parameters: {retry: "
    "{attempts: 3, delay_seconds: 60}}`."
)
_REMEDIES = {
    "retries": _RETRIES,
    "retry": _RETRIES,
    "retry_delay_seconds": _RETRIES,
    "retry_jitter_factor": _RETRIES,
    "timeout": "a deployment has no such key. Give the flow a timeout_seconds.",
    "timeout_seconds": "a deployment has no such key. Give the flow a timeout_seconds.",
    "notifications": "a deployment has no such key. Messages are sent by `notify`: see its "
    "triggers, and tag this deployment `watched`.",
}


def keys_of(model: type[BaseModel]) -> set[str]:
    """What a model is called with, aliases too."""
    return {field.alias or name for name, field in model.model_fields.items()}


def unknown_keys(node: Node, known: Collection[str]) -> Iterator[Problem]:
    """A problem per key that is none of the known ones, with the one that may be meant."""
    for key in node.keys:
        if key not in known:
            yield Problem(key.line, f"{key!s}: {_remedy(key, known)}")


def _remedy(key: str, known: Collection[str]) -> str:
    if key in _REMEDIES and "entrypoint" in known:
        return _REMEDIES[key]
    if near := difflib.get_close_matches(key, sorted(known), 1, cutoff=0.75):
        return f"there is no such key, and Prefect would drop it; {near[0]} may be meant."
    return f"there is no such key, and Prefect would drop it. Known: {', '.join(sorted(known))}."


def refusals(node: Node, validate: Callable[[], object]) -> Iterator[Problem]:
    """What the validation of a node's plain value complains about, at the lines concerned."""
    try:
        validate()
    except ValidationError as error:
        for each in error.errors():
            path = [step for step in each["loc"] if isinstance(step, (str, int))]
            yield Problem(node.line_at(path), _complaint(path, each["msg"], each.get("input")))
    except (ValueError, TypeError) as error:
        yield Problem(node.line, f"{error}. Correct it.")


def _complaint(path: list[str | int], message: str, value: Any) -> str:
    names = [str(step) for step in path]
    where = f"{'.'.join(names)}: " if names else ""
    shown = "" if isinstance(value, (dict, list)) or value is None else f"{value!r} is refused. "
    return f"{where}{shown}{message.removeprefix('Value error, ')}. Correct it."
