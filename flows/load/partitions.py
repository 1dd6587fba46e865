"""The partitions of a resource: those it declares, or one per row of its parent's raw table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from flows.checks.partitions import check_told_apart
from flows.checks.rows import repeated
from flows.errors import ConfigurationError
from flows.load.deletions import live
from flows.load.ledger import Address
from flows.load.table_schema import column_types
from flows.source import Partition, Resource, RowsOf

_ROWS = sql.SQL(
    "select {changed_by}, {columns} from {table} where ({columns}) is not null{where}"
    " group by {columns} order by {columns}"
)


def partitions_of(connection: Connection, source: str, resource: Resource) -> tuple[Partition, ...]:
    """The partitions to load; none if the parent has no rows or is not loaded yet.

    Parents that are marked as deleted have none.

    Raises:
        ConfigurationError: when the parent's raw table lacks one of the columns, or two partitions
            would have one name, or the same values in their partition_columns.
    """
    parent = resource.partitions
    if not isinstance(parent, RowsOf):
        return parent
    table = Address(source, parent.resource, "").table
    with connection, connection.cursor() as cursor:
        present = column_types(cursor, table)
        needed = [*parent.columns.values(), *parent.where]
        missing = [name for name in needed if name not in present]
        if present and missing:
            raise ConfigurationError(
                f"{source}.{resource.name} is partitioned by {', '.join(missing)} of {source}."
                f"{parent.resource}, whose raw table only has: {', '.join(present)}."
            )
        if not present:
            return ()
        columns = sql.SQL(", ").join(map(sql.Identifier, parent.columns.values()))
        changed_by = sql.SQL("max(_load_id)" if parent.changed_only else "null::bigint")
        where = _condition(parent.where) + live(present, parent.resource)
        rows = _ROWS.format(changed_by=changed_by, columns=columns, table=table, where=where)
        cursor.execute(rows)
        found = tuple(
            replace(partition_of(parent, row), parent_load_id=load_id) for load_id, *row in cursor
        )
    if twice := repeated([partition.name for partition in found]):
        raise ConfigurationError(
            f"{source}.{resource.name} would have two partitions {twice[0]!r}: values of "
            f"{', '.join(parent.columns.values())} that differ only in their type. Partition it "
            f"by a column of {parent.resource} that is not JSON."
        )
    check_told_apart(f"{source}.{resource.name}", found, resource.partition_columns)
    return found


def _condition(where: Mapping[str, Any]) -> sql.Composable:
    """The condition as further clauses: each column has its value, or one of its values."""
    clauses: list[sql.Composable] = []
    for name, wanted in where.items():
        values = wanted if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
        column = sql.Identifier(name)
        either = [
            sql.SQL("{} = {}").format(column, sql.Literal(v)) for v in values if v is not None
        ]
        either += [sql.SQL("{} is null").format(column)] if None in values else []
        clauses.append(sql.SQL(" and ({})").format(sql.SQL(" or ").join(either)))
    return sql.Composed(clauses)


def partition_of(parent: RowsOf, row: Sequence[object]) -> Partition:
    """The partition of a row of values, in the order of the parent's columns."""
    return Partition(_name(row), dict(zip(parent.columns, row, strict=True)))


def _name(row: Sequence[object]) -> str:
    """The values joined by commas; if there are several, a comma inside a value becomes `\\,`."""
    texts = list(map(str, row))
    if len(texts) == 1:
        return texts[0]
    return ",".join(text.replace("\\", "\\\\").replace(",", "\\,") for text in texts)
