"""The partition routers of Airbyte's manifests that have a counterpart here."""

from collections.abc import Callable, Sequence

from commands.new_source.airbyte_component import Component
from commands.new_source.documents import items, text_of
from commands.new_source.draft import Draft
from commands.new_source.inference import Column, column
from commands.new_source.literals import Call
from flows.errors import ConfigurationError
from flows.load.column_names import column_name

Partitions = tuple[Call | tuple[Call, ...] | None, list[Column], str]


def partitions_of(router: Component, parents: Sequence[Draft]) -> Partitions:
    """The partitions, their columns, and the query that they add to the path."""
    routers: dict[str, Callable[[], Partitions]] = {
        "SubstreamPartitionRouter": lambda: _substream(router, parents),
        "ListPartitionRouter": lambda: _list(router),
    }
    if router.type in routers:
        return routers[router.type]()
    if router.node or isinstance(router.node, list):
        router.lose(router.type or "its list of routers")
    return None, [], ""


def _substream(router: Component, parents: Sequence[Draft]) -> Partitions:
    router.lose_other("parent_stream_configs")
    configs = router.children("parent_stream_configs")
    if len(configs) != 1:
        raise ConfigurationError(f"{router.place} has several parents. Write it by hand.")
    config = configs[0]
    config.lose_other("stream", "parent_key", "partition_field")
    parent = column_name(column_name(text_of(config.child("stream").value("name"))))
    own = column_name(config.text("partition_field"))
    found = next((each for each in parents if each.resource == parent), None)
    if found is None:
        raise ConfigurationError(
            f"{router.place} needs its parent {parent!r}: choose it as well, in RESOURCES."
        )
    field_name = config.text("parent_key")
    name = next((each.name for each in found.columns if each.field == field_name), "")
    kind = next((each.type for each in found.columns if each.field == field_name), "text")
    filled = column(own, own, kind, "", (own,))
    return Call("RowsOf", (parent, {own: name or column_name(field_name)})), [filled], ""


def _list(router: Component) -> Partitions:
    router.lose_other("values", "cursor_field", "request_option")
    own = column_name(router.text("cursor_field"))
    values = [str(each) for each in items(router.node.get("values"))]
    option = router.child("request_option")
    query = ""
    if option.text("inject_into") == "request_parameter":
        name = escaped(option.text("field_name"))
        query = f"?{name}={{{own}}}"
    elif option.node:
        option.lose("inject_into")
    if not values:
        router.lose("values")
        return None, [], ""
    calls = tuple(Call("Partition", (value, {own: value})) for value in values)
    return calls, [column(own, own, "text", "", (own,))], query


def escaped(literal: str) -> str:
    """A literal part of a path, as `Resource.path` has it."""
    return literal.replace("{", "{{").replace("}", "}}")
