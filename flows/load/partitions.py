"""The partitions of a resource: those it declares, or one per row of its parent's raw table."""

from collections.abc import Sequence

from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from flows.errors import ConfigurationError
from flows.load.ledger import Address
from flows.load.table_schema import column_types
from flows.source import Partition, Resource, RowsOf, check_told_apart, repeated

_DISTINCT = sql.SQL(
    "select distinct {columns} from {table} where ({columns}) is not null order by {columns}"
)


def partitions_of(connection: Connection, source: str, resource: Resource) -> tuple[Partition, ...]:
    """The partitions to load; none if the parent has no rows or is not loaded yet.

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
        missing = [name for name in parent.columns.values() if name not in present]
        if present and missing:
            raise ConfigurationError(
                f"{source}.{resource.name} is partitioned by {', '.join(missing)} of {source}."
                f"{parent.resource}, whose raw table only has: {', '.join(present)}."
            )
        if not present:
            return ()
        columns = sql.SQL(", ").join(map(sql.Identifier, parent.columns.values()))
        cursor.execute(_DISTINCT.format(columns=columns, table=table))
        found = tuple(partition_of(parent, row) for row in cursor)
    if twice := repeated([partition.name for partition in found]):
        raise ConfigurationError(
            f"{source}.{resource.name} would have two partitions {twice[0]!r}: values of "
            f"{', '.join(parent.columns.values())} that differ only in their type. Partition it "
            f"by a column of {parent.resource} that is not JSON."
        )
    check_told_apart(f"{source}.{resource.name}", found, resource.partition_columns)
    return found


def partition_of(parent: RowsOf, row: Sequence[object]) -> Partition:
    """The partition of a row of values, in the order of the parent's columns."""
    return Partition(_name(row), dict(zip(parent.columns, row, strict=True)))


def _name(row: Sequence[object]) -> str:
    """The values joined by commas; if there are several, a comma inside a value becomes `\\,`."""
    texts = list(map(str, row))
    if len(texts) == 1:
        return texts[0]
    return ",".join(text.replace("\\", "\\\\").replace(",", "\\,") for text in texts)
