"""Parts of an Airbyte manifest, with their references and parameters, and what gets lost."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from commands.new_source.documents import Document, Node, items, text_of

_PARAMETER = re.compile(r"\{\{\s*parameters(?:\.(\w+)|\[\s*['\"](\w+)['\"]\s*\])\s*\}\}")


@dataclass
class Component:
    """A part of a manifest, its references followed and its `$parameters` filled in.

    Attributes:
        place: where it is, to name what has no counterpart.
        lost: those words, of the whole stream.
    """

    document: Document
    node: Node
    place: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, document: Document, value: Any, place: str) -> "Component":
        """A component without a parent."""
        return cls(document, {}, place)._child(value, place)

    def _child(self, value: Any, place: str) -> "Component":
        node = self.document.resolved(value)
        own = node.get("$parameters")
        parameters = {**self.parameters, **(own if isinstance(own, Mapping) else {})}
        return Component(self.document, node, place, parameters, self.lost)

    def child(self, name: str) -> "Component":
        """The component under a name; an empty one if there is none."""
        return self._child(self.node.get(name), f"{self.place}.{name}")

    def children(self, name: str) -> "list[Component]":
        """The components of a list."""
        place = f"{self.place}.{name}"
        return [self._child(each, place) for each in items(self.node.get(name))]

    @property
    def type(self) -> str:
        return text_of(self.node.get("type"))

    def value(self, name: str) -> Any:
        """The value of a field, or of the parameter that is called like it."""
        found = self.node.get(name, self.parameters.get(name))
        return self.filled(found) if isinstance(found, str) else found

    def text(self, name: str) -> str:
        """A text without expressions; an empty one, and a loss, where it has some."""
        found = self.value(name)
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        if "{{" in text_of(found):
            self.lose(f"{name}: {found}")
            return ""
        return text_of(found)

    def filled(self, text: str) -> str:
        """The text with the values of `parameters`."""

        def value(found: re.Match[str]) -> str:
            known = self.parameters.get(found[1] or found[2])
            return str(known) if isinstance(known, str | int) else found[0]

        return _PARAMETER.sub(value, text)

    def lose(self, what: str) -> None:
        """Note what has no counterpart."""
        self.lost.append(" ".join(f"{self.place}.{what}".split())[:200])

    def lose_other(self, *known: str) -> None:
        """Note the fields that are not among the known ones."""
        for name in self.node:
            if name not in {*known, "type", "$parameters", "name", "description"}:
                self.lose(name)
