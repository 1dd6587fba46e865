"""YAML with the line number of each key and value, so that problems can name their lines.

Knows nothing of the keys' meanings.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.errors import ConfigurationError

Step = str | int
_MERGE = "tag:yaml.org,2002:merge"
_SCALARS = yaml.SafeLoader("")


class Key(str):
    """A mapping's key; if it came through an anchor, its line is that of the anchor's mapping."""

    line: int

    def __new__(cls, name: object, line: int) -> "Key":
        """The line does not take part in comparison and hashing."""
        key = super().__new__(cls, name)
        key.line = line
        return key


@dataclass(frozen=True)
class Problem:
    """A problem in a file and its remedy. Lines count from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class YamlNode:
    """A value: `dict[Key, Node]`, `list[Node]`, or a scalar as Python knows it."""

    value: Any
    line: int

    @property
    def keys(self) -> list[Key]:
        """Empty if this is not a mapping."""
        return list(self.value) if isinstance(self.value, dict) else []

    @property
    def items(self) -> list["YamlNode"]:
        """Empty if this is not a sequence."""
        return self.value if isinstance(self.value, list) else []

    def get(self, step: Step) -> "YamlNode":
        """The value at a key or index; if there is none, a null with this node's line."""
        if isinstance(self.value, dict) and isinstance(step, str):
            found = self.value.get(step)
        else:
            found = self.items[step] if isinstance(step, int) and self.items[step:] else None
        return found or YamlNode(None, self.line)

    def line_at(self, path: Iterable[Step]) -> int:
        """The line of the key or item at a path; steps that do not exist are skipped.

        So pydantic's locations work, which also name the members of unions.
        """
        node, line = self, self.line
        for step in path:
            found = node.get(step)
            if found.value is None and step not in node.keys:
                continue
            keys = [key.line for key in node.keys if key == step]
            node, line = found, keys[0] if keys else found.line
        return line

    def plain(self) -> Any:
        """The value as plain Python, without lines."""
        if isinstance(self.value, dict):
            return {str(key): node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def scalars(self, name: str = "") -> Iterator[tuple[str, "YamlNode"]]:
        """Every scalar below, with the last key of its path."""
        for key in self.keys:
            yield from self.value[key].scalars(key)
        for item in self.items:
            yield from item.scalars(name)
        if not isinstance(self.value, (dict, list)):
            yield name, self


def read(path: Path) -> tuple[YamlNode, list[Problem]]:
    """A file's document and its YAML problems.

    Raises:
        ConfigurationError: when the file does not exist.
    """
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is missing: restore it.") from error
    problems: list[Problem] = []
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        return (_node(tree, problems) if tree else YamlNode({}, 1)), problems
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return YamlNode({}, 1), [Problem(line, f"this is not valid YAML: {error.problem}.")]


def _node(tree: yaml.Node, problems: list[Problem]) -> YamlNode:
    line = tree.start_mark.line + 1
    if isinstance(tree, yaml.MappingNode):
        return YamlNode(_mapping(tree, problems), line)
    if isinstance(tree, yaml.SequenceNode):
        return YamlNode([_node(item, problems) for item in tree.value], line)
    return YamlNode(_SCALARS.construct_object(tree), line)


def _mapping(tree: yaml.MappingNode, problems: list[Problem]) -> dict[Key, YamlNode]:
    """The keys written here, followed by merged keys that are not written here."""
    own: dict[Key, YamlNode] = {}
    merged: dict[Key, YamlNode] = {}
    for name, value in tree.value:
        if name.tag == _MERGE:
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                for key, node in _node(source, problems).value.items():
                    merged.setdefault(key, node)
            continue
        key = Key(_SCALARS.construct_object(name), name.start_mark.line + 1)
        if key in own:
            text = f"{key!s} is here twice, and only the last one counts: keep one."
            problems.append(Problem(key.line, text))
            del own[key]
        own[key] = _node(value, problems)
    return {**{key: node for key, node in merged.items() if key not in own}, **own}
