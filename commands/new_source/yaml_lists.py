"""Adds to a list in a YAML file, or takes out of it, and leaves all other text as it is."""

from collections.abc import Collection, Iterator, Mapping
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
    with _refused(place, "can't be added to"):
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
    with _refused(place, "can't be added to"):
        node = _node_at(text, place)
        if position:
            found = _behind(text, node, position - 1, f"\n{item}")
        else:
            found = _before(text, node, f"{item}\n")
        _check(text, found, place, slice(position, position + 1))
    return found


def without(text: str, place: Place, positions: Collection[int]) -> str:
    """The text without the items at these positions of the list, and the comments above them.

    Raises:
        ConfigurationError: when there is no such list of one item a line, or others use an anchor
            in one of the items.
    """
    found = text
    with _refused(place, "can't be shortened"):
        for position in sorted(positions, reverse=True):
            node = _node_at(found, place)
            begin = _above(found, node, position)
            last = position == len(node.value) - 1
            end = _last(found, node.end_mark.index) if last else _above(found, node, position + 1)
            end = _next_line(found, end, node.start_mark.column) if last else end
            found = found[:begin] + found[end:]
        _check(found, text, place, positions)
    return found


@contextmanager
def _refused(place: Place, what: str) -> Iterator[None]:
    try:
        yield
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:
        shown = ".".join(map(str, place))
        raise ConfigurationError(
            f"The list {shown} of the YAML {what}: {error}. Change it by hand."
        ) from error


def _node_at(text: str, place: Place) -> yaml.SequenceNode:
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for step in place:
        if not isinstance(node, yaml.CollectionNode):
            raise ValueError("there is none")
        if isinstance(step, int):
            node = node.value[step]
        else:
            found = [value for name, value in node.value if name.value == step]
            if len(found) != 1:
                raise ValueError(f"{step} is there {len(found)} times")
            [node] = found
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
    at = _above(text, node, 0)
    return text[:at] + _indented(item, node) + text[at:]


def _above(text: str, node: yaml.SequenceNode, position: int) -> int:
    """Where an item begins, with the comments above it."""
    lines = text[: node.value[position].start_mark.index].split("\n")[:-1]
    while lines and lines[-1].lstrip().startswith("#"):
        lines.pop()
    return sum(len(line) + 1 for line in lines)


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
    before: str,
    after: str,
    place: Place,
    added: slice | Collection[int],
    items: list[Any] | None = None,
) -> None:
    """Refuse a text that reads otherwise than before, apart from what is added to the list."""
    found: Any = yaml.safe_load(after)
    listed: Any = found
    for step in place:
        listed = listed[step]
    positions = range(len(listed))[added] if isinstance(added, slice) else added
    new = [listed[position] for position in positions]
    listed[:] = [each for at, each in enumerate(listed) if at not in positions]
    if found != yaml.safe_load(before) or items not in (None, new):
        raise ValueError("it would read differently")


def index_of(document: Any, key: str, name: str) -> int | None:
    """The position in the document's list `key` of the mapping with that name; None without one."""
    listed = document.get(key) if isinstance(document, Mapping) else None
    for position, item in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(item, Mapping) and item.get("name") == name:
            return position
    return None
