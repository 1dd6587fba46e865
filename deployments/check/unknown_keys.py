"""Finds unknown keys and invalid values, by Prefect's own models.

Prefect ignores unknown keys at every level except schedules.
"""

import difflib
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from deployments.check.located_yaml import Problem, YamlNode

_RETRIES = (
    "a deployment has no such key. Retries are the flow's parameter: write `parameters: {retry: "
    "{retries: 3, delay_seconds: 60}}`."
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
# By the type that Prefect converts to: the accepted Python types, and the remedy.
_WRITTEN: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "write true or false, without quotes"),
    int: ((int,), "write a whole number, without quotes"),
    timedelta: ((int, float, str), "write a number of seconds"),
}


def keys_of(model: type[BaseModel]) -> set[str]:
    """A model's keys, by their aliases where they have one."""
    return {field.alias or name for name, field in model.model_fields.items()}


def unknown_keys(node: YamlNode, known: Collection[str]) -> Iterator[Problem]:
    """A problem per unknown key, with the known key that may be meant."""
    for key in node.keys:
        if key not in known:
            yield Problem(node.line_at([key]), f"{key}: {_remedy(str(key), known)}")


def _remedy(key: str, known: Collection[str]) -> str:
    if key in _REMEDIES and "entrypoint" in known:
        return _REMEDIES[key]
    if near := difflib.get_close_matches(key, sorted(known), 1, cutoff=0.75):
        return f"there is no such key, and Prefect would drop it; {near[0]} may be meant."
    return f"there is no such key, and Prefect would drop it. Known: {', '.join(sorted(known))}."


def unlisted(node: YamlNode, *keys: str) -> Iterator[Problem]:
    """Values that should be lists; nothing below them would be checked."""
    for key in keys:
        if not isinstance(node.get(key).value, list | None):
            text = f"{key} must be a list: begin each of its entries with `- `."
            yield Problem(node.line_at([key]), text)


def misread(node: YamlNode, model: type[BaseModel]) -> Iterator[Problem]:
    """Values that Prefect would convert to another type, e.g. `"no"` to a boolean.

    `refusals` finds values that Prefect would refuse, including unresolved templates.
    """
    for name, field in model.model_fields.items():
        key = field.alias or name
        value = node.get(key).value
        types, remedy = _WRITTEN.get(_kind(field), ((), ""))
        if types and type(value) not in types and _converts(value, _kind(field)):
            yield Problem(node.line_at([key]), f"{key}: {value!r} is refused: {remedy}.")


def _kind(field: FieldInfo) -> Any:
    """The only type of a field except str, which may be a template; None if there are several."""
    kinds = {*(get_args(field.annotation) or [field.annotation])} - {str, type(None)}
    return kinds.pop() if len(kinds) == 1 else None


def _converts(value: Any, kind: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def below_one(node: YamlNode, key: str) -> Iterator[Problem]:
    """A number of runs or events below 1, with which nothing would ever start."""
    value = node.get(key).value
    if type(value) is int and value < 1:
        text = f"{key}: {value} is refused: write a whole number, 1 or more."
        yield Problem(node.line_at([key]), text)


def refusals(node: YamlNode, validate: Callable[[], object]) -> Iterator[Problem]:
    """The validation errors of a node's plain value, with their lines."""
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
