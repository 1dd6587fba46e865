"""Loads a source's resource for real and reads its raw table."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.load.ledger import Entry
from flows.load.loader import load
from flows.load.partitions import partitions_of
from flows.source import Source

Query = Callable[..., list[tuple[Any, ...]]]

RECORDS = "select to_jsonb(raw) - '_loaded_at' - '_load_id' from {} as raw order by {}"
WHOLE_ROWS = "select raw::text from {} as raw order by 1"


def load_resource(connection: Connection, source: Source, name: str) -> list[Entry]:
    """Load a resource's partitions one after the other, as the flow does: an entry for each."""
    resource = source.resource(name)
    with Client(source) as client:
        return [
            load(
                connection,
                source.name,
                resource,
                partition,
                partial(read_pages, client, source, resource, partition),
            )
            for partition in partitions_of(connection, source.name, resource)
        ]


def extracted(entries: Sequence[Entry]) -> int:
    """How many records the loads read."""
    return sum(entry.extracted for entry in entries)


def changed(entries: Sequence[Entry]) -> tuple[int, int, int]:
    """How many rows the loads inserted, updated and deleted."""
    return (
        sum(entry.inserted for entry in entries),
        sum(entry.updated for entry in entries),
        sum(entry.deleted for entry in entries),
    )


def stored(query: Query, source: Source, name: str, order_by: str = "id") -> list[dict[str, Any]]:
    """A raw table's records, without the columns that are ours."""
    statement = sql.SQL(RECORDS).format(_table(source, name), sql.Identifier(order_by))
    return [record for (record,) in query(statement)]


def whole_rows(query: Query, source: Source, name: str) -> list[tuple[Any, ...]]:
    """A raw table's rows as text, with their load and its time: the same only if left untouched."""
    return query(sql.SQL(WHOLE_ROWS).format(_table(source, name)))


def _table(source: Source, name: str) -> sql.Identifier:
    return sql.Identifier(f"raw_{source.name}", name)
