"""Whether a flow takes what the files give it, as Prefect's server and the flow itself see it.

Prefect checks a deployment's parameters when it is deployed, and a schedule's or a trigger's only
when their runs begin, which then fail.
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
    """Parameters that the flow has not, or not so.

    Args:
        flow: whose signature counts.
        given: the parameters where they are written.
        values: the same as JSON, the environment filled in; what is a template is not judged.
    """
    schema = parameter_schema(flow).model_dump()
    known = schema["properties"]
    for key in given.keys:
        if key not in known:
            yield Problem(key.line, _unknown(flow, key, known))
    judged = {
        name: value
        for name, value in values.items()
        if name in known and not _TEMPLATE.search(json.dumps(value))
    }
    found = [*_by_schema(judged, schema)]
    names = {path[0] for path, _ in found if path}
    found += _by_type(flow, {name: judged[name] for name in judged if name not in names})
    for path, message in found:
        where = ".".join(map(str, path))
        yield Problem(given.line_at(path), f"{where}: {message}. Correct it.")


def missing(flow: AnyFlow, given: Collection[str]) -> list[str]:
    """The parameters that a run needs and does not get."""
    return [name for name in parameter_schema(flow).required if name not in given]


def unprintable(given: YamlNode) -> Iterator[Problem]:
    """Templates of events that would end as InvalidJinja: Prefect makes JSON of a lone expression.

    So the run of the trigger would never be made, and nobody told.
    """
    for name, scalar in given.scalars():
        if isinstance(scalar.value, str) and _NOT_JSON.fullmatch(scalar.value.strip()):
            inner = scalar.value.strip()[2:-2].strip()
            text = f"{name}: {inner} is no JSON: write {{{{ {inner} | string }}}}."
            yield Problem(scalar.line, text)


def _unknown(flow: AnyFlow, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), 1)
    meant = f"{near[0]} may be meant" if near else f"it has {', '.join(known) or 'none'}"
    return f"{name}: the flow {flow.name} has no such parameter; {meant}."


def _by_schema(
    values: Mapping[str, Any], schema: dict[str, Any]
) -> Iterator[tuple[list[Any], str]]:
    """What Prefect's server complains about."""
    for error in validate(dict(values), schema, ignore_required=True):
        yield list(error.absolute_path), error.message


def _by_type(flow: AnyFlow, values: Mapping[str, Any]) -> Iterator[tuple[list[Any], str]]:
    """What the flow itself complains about, when it is called."""
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
