"""Adds to a list in a YAML file, and leaves all other text of it as it is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from textwrap import indent
from typing import Any

import yaml

from commands.new_source.literals import yaml_text
from flows.errors import ConfigurationError

Place = tuple[str | int, ...]
VALUES = (yaml.ScalarToken, yaml.AliasToken, yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)


def appended(text: str, place: Place, items: list[Any]) -> str:
    """The text with more items at the end of the list at the place.

    Raises:
        ConfigurationError: when there is no such list of one item a line.
    """
    added = yaml_text(items)
    with _refused(place):
        node = _node_at(text, place)
        found = _behind(text, node, len(node.value) - 1, added)
        _check(text, found, place, slice(len(node.value), None), items)
    return found


def inserted(text: str, place: Place, position: int, item: str) -> str:
    """The text with one more item, which is a text, and a blank line between it and the others.

    Raises:
        ConfigurationError: when there is no such list of one item a line, or the item has aliases
            that the text doesn't know.
    """
    with _refused(place):
        node = _node_at(text, place)
        if position:
            found = _behind(text, node, position - 1, f"\n{item}")
        else:
            found = _before(text, node, f"{item}\n")
        _check(text, found, place, slice(position, position + 1))
    return found


@contextmanager
def _refused(place: Place) -> Iterator[None]:
    try:
        yield
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        shown = ".".join(map(str, place))
        raise ConfigurationError(
            f"Nothing can be added to the list {shown} of the YAML: {error}. Add it by hand."
        ) from error


def _node_at(text: str, place: Place) -> yaml.SequenceNode:
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for step in place:
        if not isinstance(node, yaml.CollectionNode):
            raise ValueError("there is none")
        if isinstance(step, int):
            node = node.value[step]
        else:
            [node] = [value for name, value in node.value if name.value == step]
    if not isinstance(node, yaml.SequenceNode) or node.flow_style or not node.value:
        raise ValueError("its items are not one to a line")
    return node


def _behind(text: str, node: yaml.SequenceNode, position: int, item: str) -> str:
    """The text with an item behind that at the position."""
    following = node.value[position + 1 : position + 2]
    limit = following[0].start_mark.index if following else node.end_mark.index
    at = _next_line(text, _last(text, limit), node.start_mark.column)
    ended = "" if text[:at].endswith("\n") else "\n"
    return text[:at] + ended + _indented(item, node) + text[at:]


def _before(text: str, node: yaml.SequenceNode, item: str) -> str:
    """The text with an item before the first one and the comments above that."""
    lines = text[: node.start_mark.index].split("\n")[:-1]
    while lines and lines[-1].lstrip().startswith("#"):
        lines.pop()
    at = sum(len(line) + 1 for line in lines)
    return text[:at] + _indented(item, node) + text[at:]


def _indented(item: str, node: yaml.SequenceNode) -> str:
    return indent(item, " " * node.start_mark.column)


def _last(text: str, limit: int) -> int:
    """Where the last value before a limit ends; a node's own end includes what is behind it."""
    values = [token for token in yaml.scan(text) if isinstance(token, VALUES)]
    return max(int(each.end_mark.index) for each in values if each.end_mark.index <= limit)


def _next_line(text: str, end: int, column: int) -> int:
    """Where the line behind a value begins, after comments that are indented as its item is."""
    at = text.find("\n", max(end - 1, 0)) + 1 or len(text)
    while text[at:].partition("\n")[0].lstrip().startswith("#"):
        line = text[at:].partition("\n")[0]
        if len(line) - len(line.lstrip()) <= column:
            break
        at = min(at + len(line) + 1, len(text))
    return at


def _check(
    before: str, after: str, place: Place, added: slice, items: list[Any] | None = None
) -> None:
    """Refuse a text that reads otherwise than before, apart from what is added to the list."""
    found: Any = yaml.safe_load(after)
    listed: Any = found
    for step in place:
        listed = listed[step]
    new = listed[added]
    del listed[added]
    if found != yaml.safe_load(before) or items not in (None, new):
        raise ValueError("it would read differently")


def index_of(document: Any, key: str, name: str) -> int | None:
    """The position in the document's list `key` of the mapping with that name; None without one."""
    listed = document.get(key) if isinstance(document, Mapping) else None
    for position, item in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(item, Mapping) and item.get("name") == name:
            return position
    return None
