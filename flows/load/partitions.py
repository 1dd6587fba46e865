"""The partitions of a resource: those it declares, or one per row of its parent's raw table."""

from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from flows.declaration import Partition, Resource, RowsOf
from flows.errors import ConfigurationError
from flows.load.schema import column_types

_DISTINCT = sql.SQL(
    "select distinct {columns} from {table} where ({columns}) is not null order by {columns}"
)


def partitions_of(connection: Connection, source: str, resource: Resource) -> tuple[Partition, ...]:
    """What is loaded on its own; a parent without rows, or not loaded yet, has no partitions.

    Raises:
        ConfigurationError: when the parent's raw table lacks one of the columns.
    """
    parent = resource.partitions
    if not isinstance(parent, RowsOf):
        return parent
    table = sql.Identifier(f"raw_{source}", parent.resource)
    with connection, connection.cursor() as cursor:
        present = column_types(cursor, table)
        missing = [name for name in parent.columns.values() if name not in present]
        if present and missing:
            raise ConfigurationError(
                f"{source}.{resource.name} is to be read by {', '.join(missing)} of {source}."
                f"{parent.resource}, whose raw table has: {', '.join(present)}."
            )
        if not present:
            return ()
        columns = sql.SQL(", ").join(map(sql.Identifier, parent.columns.values()))
        cursor.execute(_DISTINCT.format(columns=columns, table=table))
        return tuple(
            Partition(",".join(map(str, row)), dict(zip(parent.columns, row, strict=True)))
            for row in cursor
        )
