"""Applies a source's `map_record`, and checks that its functions return JSON values only."""

from collections.abc import Callable, Sequence
from typing import Any

from flows.errors import ConfigurationError
from flows.json_text import scalars
from flows.load.batch import shown
from flows.page import ExactNumber
from flows.source import Record

MapRecord = Callable[[Record], Record | None]

JSON_VALUES = frozenset({str, int, float, bool, type(None), ExactNumber})


def map_records(name: str, function: MapRecord, found: Sequence[Any]) -> dict[int, Any]:
    """The result of the function for each record, by the record's position.

    Records that it skipped are missing. A value that is not a JSON object is returned unchanged,
    without a call of the function, and gets rejected later.

    Raises:
        ConfigurationError: when it returned neither a record nor None; correct the function.
    """
    results: dict[int, Any] = {}
    for position, record in enumerate(found):
        if not isinstance(record, dict):
            results[position] = record
            continue
        result = function(record)
        if result is not None:
            results[position] = _checked(name, result)
    return results


def _checked(name: str, result: Any) -> Record:
    is_record = isinstance(result, dict) and bool(result)
    if not is_record or not all(isinstance(field, str) for field in result):
        raise ConfigurationError(
            f"{name}: its `map_record` returned {shown(repr(result))}. Return a dict with a string "
            "for each field's name, or None to skip the record."
        )
    record: Record = result
    return record


def check_values(name: str, role: str, records: Sequence[Any]) -> None:
    """Refuse values that are not of a JSON type.

    Raises:
        ConfigurationError: names the field; correct the function in the source.
    """
    for record in records:
        for path, value in scalars(record):
            if type(value) not in JSON_VALUES:
                raise ConfigurationError(
                    f"{name}: its `{role}` function returned a {type(value).__name__} in the field "
                    f"{shown(path)}, which is not a JSON type. Return text, e.g. str(value) or "
                    "value.isoformat(), and cast it in dbt staging."
                )
