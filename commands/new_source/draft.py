"""What `make new-source` is going to write about a resource, whatever told it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from commands.new_source import inference
from commands.new_source.inference import Column
from commands.new_source.literals import Call
from commands.new_source.nested import NestedList
from flows.deletes import DELETED_AT
from flows.load.column_names import column_name

# Usual names of the field that says that a record is deleted.
DELETED = {"deleted", "deleted_at", "is_deleted"}


@dataclass(frozen=True)
class Draft:
    """Everything to write about one resource.

    Attributes:
        login: the source's; several calls sign one request together.
        notes: what a person has to know about the guesses.
        lists: the lists inside of records.
        partitions: a call of `RowsOf`, or calls of `Partition`.
        about: what the API's document says the endpoint is.
        to_check: what nothing told, or what only a name told.
        inner_fields: the paths of the fields inside of objects and lists (`customer.email`).
    """

    source: str
    base_url: str
    resource: str
    path: str
    params: Mapping[str, Any]
    records: Call
    paging: Call | None
    key: tuple[str, ...]
    login: Call | tuple[Call, ...] | None
    columns: list[Column]
    notes: tuple[str, ...] = ()
    lists: tuple[NestedList, ...] = ()
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    cursor: Call | None = None
    partitions: Call | tuple[Call, ...] | None = None
    partition_columns: tuple[str, ...] = ()
    disposition: str = ""
    about: str = ""
    to_check: tuple[str, ...] = ()
    inner_fields: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The staging model's name; at most 63 bytes."""
        return column_name(f"stg_{self.source}__{self.resource}")

    @property
    def entity(self) -> str:
        """The name of one row, e.g. `order`."""
        return inference.singular(self.resource)

    @cached_property
    def staged(self) -> dict[str, str]:
        """The staging model's name of each raw column."""
        return inference.staged_names(self.columns, self.entity)

    @property
    def keys(self) -> list[Column]:
        """The columns of the key."""
        by_field = {column.field: column for column in self.columns}
        return [by_field[field] for field in self.key]

    @property
    def personal(self) -> list[str]:
        """The fields that look like data about a person, by their paths."""
        listed = [f"{each.column.field}.{x.field}" for each in self.lists for x in each.fields]
        fields = [*(each.field for each in self.columns), *self.inner_fields, *listed]
        return [each for each in dict.fromkeys(fields) if inference.is_personal(each)]

    @property
    def change_time(self) -> str | None:
        """The field that a cursor could read, if there is a key and no cursor yet."""
        times = [each.field for each in self.columns if inference.is_change_time(each)]
        return times[0] if times and self.key and self.cursor is None else None

    @property
    def tombstone(self) -> Call | None:
        """How deleted records say so, if a field is named accordingly."""
        found = [
            each.field
            for each in self.columns
            if each.name in DELETED and each.type != "jsonb" and "." not in each.field
        ]
        is_told = bool(self.key and found) and found[0] not in self.key
        return Call("Tombstones", (found[0],)) if is_told else None

    @property
    def condition(self) -> str:
        """The clause that leaves out deleted rows, where they are known."""
        return f"\n    where {DELETED_AT} is null" if self.tombstone else ""

    @property
    def parent_key(self) -> dict[str, str]:
        """The raw columns of the key by their names in staging."""
        return {self.staged[column.name]: column.name for column in self.keys}

    def list_model(self, nested: NestedList) -> str:
        """The name of the model of a list's elements, e.g. `stg_shop__order_lines`."""
        return column_name(f"stg_{self.source}__{self.entity}_{nested.column.name}")

    def declaration(self) -> Call:
        """The call of `Resource`."""
        arguments = {
            "name": self.resource,
            "path": self.path,
            "method": None if self.method == "GET" else self.method,
            "params": dict(self.params),
            "headers": dict(self.headers),
            "body": self.body,
            "records": self.records,
            "paging": self.paging,
            "key": self.key,
            "disposition": self.disposition or None,
            "cursor": self.cursor,
            "partitions": self.partitions,
            "partition_columns": self.partition_columns,
            "deletes": self.tombstone,
        }
        return Call("Resource", (), given(arguments))


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that say something."""
    return {name: value for name, value in arguments.items() if value not in (None, {}, ())}
