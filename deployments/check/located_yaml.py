"""YAML whose keys and values know their lines, so that a problem can say where it stands.

Knows YAML only: what the keys mean is the business of its readers.
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
    """A mapping's key; one that came through an anchor has the line where it was written."""

    line: int

    def __new__(cls, name: object, line: int) -> "Key":
        """A key is compared and hashed by its name alone."""
        key = super().__new__(cls, name)
        key.line = line
        return key


@dataclass(frozen=True)
class Problem:
    """What is wrong in a file, and how to mend it. Lines count from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class YamlNode:
    """A value: `dict[Key, Node]`, `list[Node]`, or a scalar as Python knows it."""

    value: Any
    line: int

    @property
    def keys(self) -> list[Key]:
        """None where this is no mapping."""
        return list(self.value) if isinstance(self.value, dict) else []

    @property
    def items(self) -> list["YamlNode"]:
        """None where this is no sequence."""
        return self.value if isinstance(self.value, list) else []

    def get(self, step: Step) -> "YamlNode":
        """What stands there; a null of this line where nothing does."""
        if isinstance(self.value, dict) and isinstance(step, str):
            found = self.value.get(step)
        else:
            found = self.items[step] if isinstance(step, int) and self.items[step:] else None
        return found or YamlNode(None, self.line)

    def line_at(self, path: Iterable[Step]) -> int:
        """The line of the key or item that a path leads to; steps that lead nowhere are left out.

        So pydantic's locations can be used, which also name the members of unions.
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
        """The same without lines."""
        if isinstance(self.value, dict):
            return {str(key): node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def scalars(self, name: str = "") -> Iterator[tuple[str, "YamlNode"]]:
        """Every scalar below, with the last key on the way to it."""
        for key in self.keys:
            yield from self.value[key].scalars(key)
        for item in self.items:
            yield from item.scalars(name)
        if not isinstance(self.value, (dict, list)):
            yield name, self


def read(path: Path) -> tuple[YamlNode, list[Problem]]:
    """A file's document, and what is wrong with it as YAML.

    Raises:
        ConfigurationError: when there is no such file.
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
        return YamlNode({}, 1), [Problem(line, f"this is no YAML: {error.problem}.")]


def _node(tree: yaml.Node, problems: list[Problem]) -> YamlNode:
    line = tree.start_mark.line + 1
    if isinstance(tree, yaml.MappingNode):
        return YamlNode(_mapping(tree, problems), line)
    if isinstance(tree, yaml.SequenceNode):
        return YamlNode([_node(item, problems) for item in tree.value], line)
    return YamlNode(_SCALARS.construct_object(tree), line)


def _mapping(tree: yaml.MappingNode, problems: list[Problem]) -> dict[Key, YamlNode]:
    """The keys written here, and after them those merged in that are not written here."""
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
            text = f"{key!s} stands here twice, and only the last one counts: keep one."
            problems.append(Problem(key.line, text))
            del own[key]
        own[key] = _node(value, problems)
    return {**{key: node for key, node in merged.items() if key not in own}, **own}
