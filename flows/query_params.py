"""Query parameters as a source declares them, and as they are sent."""

from collections.abc import Mapping, Sequence

from flows.errors import ConfigurationError

ParamValue = str | int | bool


Params = Mapping[str, ParamValue | Sequence[ParamValue]]


def query_pairs(resource: str, params: Params) -> list[tuple[str, str]]:
    """The query parameters as text, in their order; a list gives one pair per value.

    Raises:
        ConfigurationError: when a value is not a string, an integer, a boolean or a list of them.
    """
    return [
        (name, _query_text(resource, name, value))
        for name, values in params.items()
        for value in (values if isinstance(values, list | tuple) else [values])
    ]


def _query_text(resource: str, name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    raise ConfigurationError(
        f"{resource}: the query parameter {name!r} has the value {value!r}, of type "
        f"{type(value).__name__}. Give it as a string, an integer, a boolean, or a list of them."
    )
