"""What JSON Schema says of records: their fields, types and descriptions, and where they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from commands.new_source.documents import Document, Node, items, mappings, text_of
from commands.new_source.inference import DEEPEST, Column, by_group, column
from commands.new_source.nested import NestedList
from flows.load.column_names import column_names

MAX_FIELDS = 1000
LONGEST_ABOUT = 500
TYPES = {
    "integer": "bigint",
    "number": "double precision",
    "string": "text",
    "boolean": "boolean",
    "object": "jsonb",
    "array": "jsonb",
}
CASTS = {"date": "date", "date-time": "timestamptz"}


@dataclass(frozen=True)
class Schema:
    """A schema whose references are followed and whose parts are joined."""

    document: Document
    node: Node

    @property
    def type(self) -> str:
        """Its JSON type; empty if it has none or several."""
        found = self.node.get("type")
        names = [name for name in (found if isinstance(found, list) else [found]) if name != "null"]
        if len(names) == 1 and isinstance(names[0], str):
            return names[0]
        if found is None and isinstance(self.node.get("properties"), dict):
            return "object"
        return "array" if found is None and "items" in self.node else ""

    @property
    def format(self) -> str:
        return text_of(self.node.get("format"))

    @property
    def about(self) -> str:
        """Its description on one line, with a full stop and a space at its end, or nothing."""
        words = " ".join(text_of(self.node.get("description")).split())
        if len(words) > LONGEST_ABOUT:
            words = f"{words[:LONGEST_ABOUT]}…"
        return f"{words}{'' if words.endswith(('.', '!', '?', '…')) else '.'} " if words else ""

    @cached_property
    def item(self) -> "Schema":
        """That of a list's items."""
        return schema(self.document, self.node.get("items"))

    @property
    def required(self) -> frozenset[str]:
        """The fields that no record lacks."""
        return frozenset(name for name in items(self.node.get("required")) if text_of(name))

    @property
    def is_object(self) -> bool:
        return self.type == "object" and bool(self.fields)

    @cached_property
    def fields(self) -> "dict[str, Schema]":
        """The fields of an object, up to `MAX_FIELDS`."""
        found = self.node.get("properties")
        named = list(found.items())[:MAX_FIELDS] if isinstance(found, dict) else []
        return {name: schema(self.document, node) for name, node in named}


def schema(document: Document, value: Any, depth: int = 0) -> Schema:
    """The schema that a value is or refers to.

    `allOf` is joined. Of `anyOf` and `oneOf`, the only one that is not null is taken; of several
    objects, all fields, none of which is required.
    """
    node = dict(document.resolved(value))
    if depth >= DEEPEST * 2:
        return Schema(document, {})
    for part in items(node.pop("allOf", None)):
        node = _joined(node, schema(document, part, depth + 1).node)
    choices = [
        schema(document, each, depth + 1)
        for name in ("anyOf", "oneOf")
        for each in items(node.pop(name, None))
    ]
    choices = [each for each in choices if each.node.get("type") != "null"]
    for each in choices:
        other = dict(each.node)
        if len(choices) > 1:
            other = {**other, "required": []} if each.type == "object" else {}
        node = _joined(node, other)
    return Schema(document, node)


def _joined(node: Node, other: Node) -> dict[str, Any]:
    both = {**other, **node}
    if "properties" in node and "properties" in other:
        both["properties"] = {
            **dict(mappings(other["properties"])),
            **dict(mappings(node["properties"])),
        }
    both["required"] = [*items(node.get("required")), *items(other.get("required"))]
    return both


def lists(found: Schema, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The paths of the lists of objects in an object, down to the depth `DEEPEST`."""
    for name, field in found.fields.items():
        if "." in name:
            continue
        if field.type == "array" and field.item.is_object:
            yield ".".join((*path, name))
        elif field.type == "object" and len(path) < DEEPEST:
            yield from lists(field, (*path, name))


def at(found: Schema, path: str) -> Schema:
    """The schema of a nested field."""
    for name in filter(None, path.split(".")):
        found = found.fields[name]
    return found


def leaves(found: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Schema]]:
    """The fields of an object and of those in it, with their paths; not those of lists."""
    for name, field in found.fields.items():
        if field.type == "object" and len(path) < DEEPEST:
            yield from leaves(field, (*path, name))
        elif "." not in name or not path:
            yield ".".join((*path, name)), field


def columns(record: Schema, keys: Sequence[str], first: Sequence[Column] = ()) -> list[Column]:
    """The raw table's columns, those of the partitions first."""
    taken = {each.name for each in first}
    names = column_names(record.fields, known={}, taken=taken)
    found = [_column(record, field, name, keys) for field, name in names.items()]
    return by_group([*first, *found])


def nested_lists(record: Schema, table: Sequence[Column]) -> tuple[NestedList, ...]:
    """The columns that are lists of objects; no record may have had one yet."""
    found = []
    for each in table:
        known = record.fields.get(each.field)
        if known and each.type == "jsonb" and known.type == "array" and known.item.is_object:
            fields = [field for field in columns(known.item, ()) if field.field.isprintable()]
            found.append(NestedList(replace(each, is_certain=False), tuple(fields)))
    return tuple(found)


def _column(record: Schema, field: str, name: str, keys: Sequence[str]) -> Column:
    known = record.fields[field]
    kind = TYPES.get(known.type, "text")
    made = column(field, name, kind, CASTS.get(known.format, "") if kind == "text" else "", keys)
    is_certain = field in keys or field in record.required
    return Column(
        field, name, made.type, made.cast, made.group, about=known.about, is_certain=is_certain
    )
