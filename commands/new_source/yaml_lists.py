"""Appends to a list in a YAML file, and leaves all other text of it as it is."""

from collections.abc import Mapping
from typing import Any

import yaml

from commands.new_source.literals import yaml_text
from flows.errors import ConfigurationError


def appended(text: str, place: tuple[str | int, ...], items: list[Any]) -> str:
    """The text with more items at the end of the list at the place.

    Raises:
        ConfigurationError: when there is no such list of one item a line.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        found = _with_items(text, _node_at(node, place), items)
        _check(text, found, place, items)
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        shown = ".".join(map(str, place))
        raise ConfigurationError(
            f"Nothing can be added to the list {shown} of the YAML: {error}. Add it by hand."
        ) from error
    return found


def _node_at(node: Any, place: tuple[str | int, ...]) -> yaml.SequenceNode:
    for step in place:
        if isinstance(step, int):
            node = node.value[step]
        else:
            [node] = [value for name, value in node.value if name.value == step]
    if not isinstance(node, yaml.SequenceNode) or node.flow_style or not node.value:
        raise ValueError("its items are not one to a line")
    return node


def _with_items(text: str, node: yaml.SequenceNode, items: list[Any]) -> str:
    indent = " " * node.start_mark.column
    lines = yaml_text(items).splitlines(keepends=True)
    new = "".join(f"{indent}{line}" for line in lines)
    end = text.find("\n", max(_last(node) - 1, 0))
    if end < 0:
        return f"{text}\n{new}"
    return text[: end + 1] + new + text[end + 1 :]


def _last(node: yaml.Node) -> int:
    """Where the last value of a node ends; a node's own end includes what is behind it."""
    if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        return _last(node.value[-1])
    if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
        return _last(node.value[-1][1])
    return int(node.end_mark.index)


def _check(before: str, after: str, place: tuple[str | int, ...], items: list[Any]) -> None:
    """Refuse a text that reads otherwise than the items at the end of the list."""
    wanted: Any = yaml.safe_load(before)
    found: Any = wanted
    for step in place:
        found = found[step]
    found.extend(items)
    if yaml.safe_load(after) != wanted:
        raise ValueError("it would read differently")


def index_of(document: Any, key: str, name: str) -> int | None:
    """The position in the document's list `key` of the mapping with that name; None without one."""
    listed = document.get(key) if isinstance(document, Mapping) else None
    for position, item in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(item, Mapping) and item.get("name") == name:
            return position
    return None
