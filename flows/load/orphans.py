"""Deletes or marks rows of a child whose parent's row is gone: no load requests them any more."""

import logging
import math
from collections.abc import Iterator
from dataclasses import replace

from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from flows.guards import without_secrets
from flows.load import checkpoints, ledger, shrinkage
from flows.load.deletions import live
from flows.load.failures import postgres_errors_of
from flows.load.ledger import Address, Entry
from flows.load.loader import load
from flows.load.merge import listed
from flows.load.options import LoadOptions
from flows.load.partition_lock import transaction
from flows.load.partitions import partition_of, partitions_of
from flows.load.shrinkage import Replacement
from flows.load.table_schema import column_types
from flows.page import Page, Resume
from flows.source import Partition, Resource, RowsOf, Source, Window

log = logging.getLogger(__name__)

# An empty parent table does not show which rows are gone.
_ORPHANS = sql.SQL(
    "select {columns}, count(*) from {child} as child where ({columns}) is not null{live_child}"
    " and exists (select from {parent} as parent where true{live_parent})"
    " and not exists ("
    "select from {parent} as parent where ({parents}) = ({columns}){live_parent})"
    " group by {columns} order by {columns}"
)
_COUNT = sql.SQL("select count(*) from {} as child where true{}")


def may_delete(resource: Resource, options: LoadOptions) -> bool:
    """Whether such loads delete orphans: those of a parent's rows that replace all of them."""
    replaces = options.full_refresh or resource.writes == "replace"
    is_part = options.by_hand or options.limit is not None
    return isinstance(resource.partitions, RowsOf) and replaces and not is_part


@without_secrets
def delete_orphans(
    connection: Connection, source: Source, resource: Resource, options: LoadOptions
) -> list[Entry]:
    """Empty each partition whose parent's row is gone or marked; returns the ledger entries.

    The rows of a `FullList` are marked, unless it is a full refresh. Only after loads that replace
    (`may_delete`), and only if the parent's table is known to be complete: its last loads succeeded
    and left no rejects.

    Raises:
        BadPayloadError: more than the resource's `max_shrinkage` of its rows would be deleted.
    """
    parent = resource.partitions
    if not isinstance(parent, RowsOf) or not may_delete(resource, options):
        return []
    address = Address(source.name, resource.name, "")
    with postgres_errors_of(address, connection), transaction(connection) as cursor:
        found = _orphans(cursor, source.name, resource, parent)
    if not found:
        return []
    parents = partitions_of(connection, source.name, source.resource(parent.resource))
    with postgres_errors_of(address, connection), transaction(connection) as cursor:
        names = [partition.name for partition in parents]
        if ledger.incomplete_partitions(cursor, source.name, parent.resource, names):
            log.warning(
                "%s: the rows of %d partitions are kept although %s no longer has them, because "
                "some of its own last loads failed or left rejects.",
                *(address, len(found), parent.resource),
            )
            return []
        if not options.accepts_shrinkage:
            _check_shrinkage(cursor, source.name, resource, sum(count for _, count in found))
        for partition, _ in found:
            checkpoints.forget_partition(
                cursor, Address(source.name, resource.name, partition.name)
            )
    deletes = options.full_refresh or resource.deletes is None
    emptying = replace(options, full_refresh=deletes, accepts_shrinkage=True)
    never_unusual = replace(resource, unusual_factor=math.inf)
    return [
        load(connection, source.name, never_unusual, partition, _no_pages, emptying)
        for partition, _ in found
    ]


def _no_pages(window: Window, resume: Resume | None) -> Iterator[Page]:
    return iter(())


def _orphans(
    cursor: Cursor, source: str, resource: Resource, parent: RowsOf
) -> list[tuple[Partition, int]]:
    """The partitions in the child's table that are no longer in the parent's, with row counts.

    Empty if the tables can't be compared: the parent's has no rows, not all values of a partition
    are stored with its rows, or a value's two columns have different types.
    """
    child = Address(source, resource.name, "").table
    table = Address(source, parent.resource, "").table
    types, parent_types = column_types(cursor, child), column_types(cursor, table)
    is_comparable = parent.columns.keys() == set(resource.partition_columns) and all(
        types.get(name, "") == parent_types.get(column) != "jsonb"
        for name, column in parent.columns.items()
    )
    if not is_comparable:
        return []
    parts = {
        "child": child,
        "parent": table,
        "columns": listed("child.{}", parent.columns),
        "parents": listed("parent.{}", parent.columns.values()),
        "live_child": live(types, "child"),
        "live_parent": live(parent_types, "parent"),
    }
    cursor.execute(_ORPHANS.format(**parts))
    return [(partition_of(parent, values), count) for *values, count in cursor.fetchall()]


def _check_shrinkage(cursor: Cursor, source: str, resource: Resource, orphans: int) -> None:
    table = Address(source, resource.name, "").table
    cursor.execute(_COUNT.format(table, live(column_types(cursor, table), "child")))
    [(present,)] = cursor.fetchall()
    found = Replacement(present, present - orphans)
    shrinkage.check(found, resource, ".".join(table.strings), "", rejected=0, first=None)
