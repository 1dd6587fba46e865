"""YAML with the line number of each key and value, so that problems can name their lines.

PyYAML reads the values, as it does for Prefect; ruamel.yaml knows their lines. Knows nothing of the
keys' meanings.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError

from flows.errors import ConfigurationError

Step = str | int


@dataclass(frozen=True)
class Problem:
    """A problem in a file and its remedy. Lines count from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class YamlNode:
    """A plain value and its line; the lines of what it contains are in ruamel.yaml's tree of it."""

    value: Any
    line: int
    tree: Any = None

    @property
    def keys(self) -> list[Any]:
        """Empty if this is not a mapping."""
        return list(self.value) if isinstance(self.value, dict) else []

    @property
    def items(self) -> list["YamlNode"]:
        """Empty if this is not a sequence."""
        return [self.get(index) for index in self._steps()] if isinstance(self.value, list) else []

    def get(self, step: Step) -> "YamlNode":
        """The value at a key or index; if there is none, a null with this node's line."""
        if step not in self._steps():
            return YamlNode(None, self.line)
        _, line, tree = self._place(step)
        return YamlNode(self.value[step], line, tree)

    def line_at(self, path: Iterable[Step]) -> int:
        """The line of the key or item at a path; steps that do not exist are skipped.

        So pydantic's locations work, which also name the members of unions.
        """
        node, line = self, self.line
        for step in path:
            if step in node._steps():
                line, _, _ = node._place(step)
                node = node.get(step)
        return line

    def scalars(self, name: Step = "") -> Iterator[tuple[str, "YamlNode"]]:
        """Every scalar below, with the last key of its path."""
        for key in self.keys:
            yield from self.get(key).scalars(key)
        for item in self.items:
            yield from item.scalars(name)
        if not isinstance(self.value, (dict, list)):
            yield str(name), self

    def _steps(self) -> Collection[Any]:
        if isinstance(self.value, dict):
            return self.value
        return range(len(self.value)) if isinstance(self.value, list) else ()

    def _place(self, step: Step) -> tuple[int, int, Any]:
        """The lines of a key or item and of its value, and the value's tree.

        The few keys that only PyYAML knows, e.g. a bare `on`, get this node's line.
        """
        holder = _holder(self.tree, step)
        if holder is None:
            return self.line, self.line, None
        lines = holder.lc.data[step][::2]  # between them are columns; an item has one line
        return lines[0] + 1, lines[-1] + 1, holder[step]


def _holder(tree: Any, step: Step) -> Any:
    """The mapping or sequence in which a step is written: this one, or one that it merges."""
    if tree is None or step in (tree.lc.data or ()):
        return tree
    return next(filter(None, (_holder(each, step) for each in getattr(tree, "merge", ()))), None)


class _Constructor(RoundTripConstructor):
    """Collects duplicate keys, of which the last one counts, as it does for Prefect."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.duplicates: list[Problem] = []

    def check_mapping_key(
        self, node: Any, key_node: Any, mapping: Any, key: Any, value: Any
    ) -> bool:
        """Note a duplicate, and let it replace the first."""
        if key in mapping:
            text = f"{key!s} is here twice, and only the last one counts: keep one."
            self.duplicates.append(Problem(key_node.start_mark.line + 1, text))
        return True


def read(path: Path) -> tuple[YamlNode, list[Problem]]:
    """A file's document and its YAML problems.

    Raises:
        ConfigurationError: when the file does not exist.
    """
    try:
        text = path.read_text()
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is missing: restore it.") from error
    locating = YAML()
    locating.Constructor = _Constructor
    try:
        value, tree = yaml.safe_load(text), locating.load(text)
    except (yaml.MarkedYAMLError, MarkedYAMLError) as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return YamlNode({}, 1), [Problem(line, f"this is not valid YAML: {error.problem}.")]
    line = tree.lc.line + 1 if hasattr(tree, "lc") else 1
    return YamlNode({} if value is None else value, line, tree), locating.constructor.duplicates
