"""Finds records that an API sends as a list for each column: `{"time": [1, 2], "rain": [0, 3]}`."""

from typing import Any

DEEPEST = 3


def column_lists(document: Any) -> str | None:
    """The path of the only such object; None if there is none, several, or a list of objects.

    Two lists of the same length may be a coincidence in one record, so at least two values each
    and nothing but lists are asked for.
    """
    paths = _paths(document, ())
    return paths[0] if len(paths) == 1 else None


def _paths(value: Any, path: tuple[str, ...]) -> list[str]:
    if _is_table(value):
        return [".".join(path)]
    if not isinstance(value, dict) or len(path) == DEEPEST:
        return []
    return [each for name, item in value.items() for each in _paths(item, (*path, name))]


def _is_table(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) < 2:
        return False
    lists = [each for each in value.values() if isinstance(each, list)]
    plain = not any(isinstance(item, dict | list) for each in lists for item in each)
    lengths = {len(each) for each in lists}
    return len(lists) == len(value) and plain and len(lengths) == 1 and min(lengths) > 1
