"""Records that a source's own functions made: mapped one by one, with values that JSON has."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flows.declaration import ExactNumber, Record
from flows.errors import ConfigurationError
from flows.load.frames import shown

MapRecord = Callable[[Record], Record | None]

JSON_VALUES = frozenset({str, int, float, bool, type(None), ExactNumber})


def mapped(name: str, function: MapRecord, found: Sequence[Any]) -> dict[int, Any]:
    """What the function returned for each record, by the record's position.

    Records that it left out are missing. What is no JSON object is not given to it: that is
    rejected as it is.

    Raises:
        ConfigurationError: when it returned neither a record nor None; correct the function.
    """
    results = {
        position: function(record) if isinstance(record, dict) else record
        for position, record in enumerate(found)
    }
    for position, result in results.items():
        if isinstance(found[position], dict) and result is not None:
            _check_record(name, result)
    return {
        position: result
        for position, result in results.items()
        if result is not None or not isinstance(found[position], dict)
    }


def _check_record(name: str, result: Any) -> None:
    if not isinstance(result, dict) or not result or not all(map(_is_text, result)):
        raise ConfigurationError(
            f"{name}: its `map_record` returned {shown(repr(result))}. Return a dict with a string "
            "for each field's name, or None to leave the record out."
        )


def _is_text(name: Any) -> bool:
    return isinstance(name, str)


def check_values(name: str, role: str, records: Sequence[Any]) -> None:
    """Refuse values that JSON has not.

    Raises:
        ConfigurationError: names the field; correct the function in the source.
    """
    for record in records:
        for path, value in _scalars(record):
            if type(value) not in JSON_VALUES:
                raise ConfigurationError(
                    f"{name}: its `{role}` function returned a {type(value).__name__} in the field "
                    f"{shown(path)}, which JSON has not. Return text, e.g. str(value) or "
                    "value.isoformat(), and cast it in dbt staging."
                )


def _scalars(record: Any) -> Iterator[tuple[str, Any]]:
    """Each value that is neither a dict nor a list, with its path."""
    left: list[tuple[str, Any]] = [("", record)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{path}.{name}" if path else str(name), v) for name, v in value.items()]
        elif isinstance(value, list):
            left += [(f"{path}[{number}]", v) for number, v in enumerate(value)]
        else:
            yield path, value
