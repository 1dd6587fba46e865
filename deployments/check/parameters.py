"""Checks that a flow accepts the parameters in the files, as Prefect's server and the flow would.

Prefect checks a deployment's parameters at deployment. It checks those of a schedule or a trigger
only when their runs start, which then fail.
"""

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, get_type_hints

from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import TypeAdapter, ValidationError

from deployments.check.located_yaml import Problem, YamlNode

_TEMPLATE = re.compile(r"\{\{|__prefect_kind")
_NOT_JSON = re.compile(r"\{\{\s*[\w.]*\b(?:id|occurred|timestamp|\w+_time|created|updated)\s*\}\}")

AnyFlow = Flow[..., Any]


def refused(flow: AnyFlow, given: YamlNode, values: Mapping[str, Any]) -> Iterator[Problem]:
    """Parameters that the flow does not have, and values that it refuses.

    Args:
        flow: has the signature.
        given: the parameters with their lines.
        values: the same as JSON with the environment filled in; templates are not checked.
    """
    schema = parameter_schema(flow).model_dump()
    known = schema["properties"]
    for key in given.keys:
        if key not in known:
            yield Problem(given.line_at([key]), _unknown(flow, str(key), known))
    checked = {
        name: value
        for name, value in values.items()
        if name in known and not _TEMPLATE.search(json.dumps(value))
    }
    found = [*_by_schema(checked, schema)]
    names = {path[0] for path, _ in found if path}
    found += _by_type(flow, {name: checked[name] for name in checked if name not in names})
    for path, message in found:
        where = ".".join(map(str, path))
        yield Problem(given.line_at(path), f"{where}: {message}. Correct it.")


def missing(flow: AnyFlow, given: Collection[str]) -> list[str]:
    """The required parameters that are not given."""
    return [name for name in parameter_schema(flow).required if name not in given]


def unprintable(given: YamlNode) -> Iterator[Problem]:
    """Templates of events that become InvalidJinja: Prefect converts a lone expression to JSON.

    The trigger's run would never be created, and no error would be reported.
    """
    for name, scalar in given.scalars():
        if isinstance(scalar.value, str) and _NOT_JSON.fullmatch(scalar.value.strip()):
            inner = scalar.value.strip()[2:-2].strip()
            text = f"{name}: {inner} is not JSON: write {{{{ {inner} | string }}}}."
            yield Problem(scalar.line, text)


def _unknown(flow: AnyFlow, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), 1)
    meant = f"{near[0]} may be meant" if near else f"it has {', '.join(known) or 'none'}"
    return f"{name}: the flow {flow.name} has no such parameter; {meant}."


def _by_schema(
    values: Mapping[str, Any], schema: dict[str, Any]
) -> Iterator[tuple[list[Any], str]]:
    """Paths and messages of the values that Prefect's server refuses."""
    for error in validate(dict(values), schema, ignore_required=True):
        yield list(error.absolute_path), error.message


def _by_type(flow: AnyFlow, values: Mapping[str, Any]) -> Iterator[tuple[list[Any], str]]:
    """Paths and messages of the values that the flow refuses when it is called."""
    hints = get_type_hints(flow.fn, include_extras=True)
    for name, value in values.items():
        for path, message in _complaints(hints.get(name, Any), value):
            yield [name, *path], message


def _complaints(hint: Any, value: Any) -> list[tuple[list[Any], str]]:
    try:
        TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        return [(list(each["loc"]), f"is refused: {each['msg']}") for each in error.errors()]
    return []
