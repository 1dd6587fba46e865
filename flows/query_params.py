"""Query parameters and form fields as a source declares them, and as they are sent."""

from collections.abc import Mapping, Sequence
from typing import Any

from flows.errors import ConfigurationError

ParamValue = str | int | bool


Params = Mapping[str, ParamValue | Sequence[ParamValue]]


def query_pairs(resource: str, params: Params) -> list[tuple[str, str]]:
    """The query parameters as text, in their order; a list gives one pair per value.

    Raises:
        ConfigurationError: when a value is not a string, an integer, a boolean or a list of them.
    """
    return _pairs(f"{resource}: the query parameter", params)


def form_pairs(resource: str, body: Any) -> list[tuple[str, str]]:
    """The fields of a form as text; otherwise as `query_pairs`.

    Raises:
        ConfigurationError: when the body is no mapping of such values.
    """
    if not isinstance(body, Mapping):
        raise ConfigurationError(
            f"{resource}: a form is sent with a body of type {type(body).__name__}. Give its "
            "fields in a dict."
        )
    return _pairs(f"{resource}: the form field", body)


def _pairs(owner: str, params: Params) -> list[tuple[str, str]]:
    return [
        (name, _text(f"{owner} {name!r}", value))
        for name, values in params.items()
        for value in (values if isinstance(values, list | tuple) else [values])
    ]


def _text(owner: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    raise ConfigurationError(
        f"{owner} has the value {value!r}, of type "
        f"{type(value).__name__}. Give it as a string, an integer, a boolean, or a list of them."
    )
