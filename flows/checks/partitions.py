"""Refuses partitions whose rows would overwrite each other."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from flows.checks.rows import repeated
from flows.errors import ConfigurationError
from flows.partitions import Partition, RowsOf

if TYPE_CHECKING:
    from flows.source import Resource


def check_partitions(resource: "Resource") -> None:
    """Refuse partitions that share a name, or whose rows can't be distinguished."""
    if resource.key_is_global and not resource.key:
        raise ConfigurationError(
            f"{resource.name}: key_is_global is set, but there is no key. Declare a key."
        )
    if isinstance(resource.partitions, RowsOf):
        _check_partition_columns(resource, resource.partitions.columns)
        _check_rows_of_partitions(resource, tuple(resource.partitions.columns))
        return
    if not resource.partitions:
        raise ConfigurationError(f"{resource.name}: needs at least one partition.")
    if twice := repeated([partition.name for partition in resource.partitions]):
        raise ConfigurationError(
            f"{resource.name}: it has two partitions {twice[0]!r}, which would share a cursor. "
            "Give each a name of its own."
        )
    for partition in resource.partitions:
        _check_partition_columns(resource, partition.values)
    if len(resource.partitions) > 1:
        _check_rows_of_partitions(resource, _distinguishing_columns(resource.partitions))
        check_told_apart(resource.name, resource.partitions, resource.partition_columns)


def _check_rows_of_partitions(resource: "Resource", proposed: tuple[str, ...]) -> None:
    """Refuse a declaration that does not identify each row's partition, or whose key may repeat.

    Otherwise one partition overwrites the rows of another: in a merge by their key, and in a
    replace of all of a partition's rows.
    """
    columns = resource.partition_columns or proposed
    if not columns:
        raise ConfigurationError(
            f"{resource.name}: its partitions have no values that distinguish their rows. Give "
            "each partition a value, and name it in partition_columns."
        )
    missing = [name for name in columns if name not in resource.key]
    key = (*missing, *resource.key)
    writes = [] if resource.partition_columns else [f"partition_columns={columns!r}"]
    remedy = ""
    if resource.key and missing and not resource.key_is_global:
        writes.append(f"key={key!r}")
        remedy = (
            f"; or, instead of the longer key, key_is_global=True, if the API never repeats "
            f"{resource.key!r} in another partition"
        )
    if writes:
        raise ConfigurationError(
            f"{resource.name}: rows of one partition could overwrite those of another. "
            f"Write {' and '.join(writes)}{remedy}."
        )


def _distinguishing_columns(partitions: Sequence[Partition]) -> tuple[str, ...]:
    """The name of one value that differs in each partition, or the names of all values."""
    names = tuple(partitions[0].values)
    for name in names:
        if len({str(partition.values.get(name)) for partition in partitions}) == len(partitions):
            return (name,)
    return names


def check_told_apart(
    resource: str, partitions: Sequence[Partition], columns: Sequence[str]
) -> None:
    """Refuse partitions whose rows have the same values in their partition_columns.

    Raises:
        ConfigurationError: with two such partitions, and the values to choose from.
    """
    known: dict[tuple[str, ...], Partition] = {}
    for partition in partitions:
        other = known.setdefault(tuple(str(partition.values[name]) for name in columns), partition)
        if other is not partition:
            raise ConfigurationError(
                f"{resource}: the partitions {other.name!r} and {partition.name!r} have the same "
                f"values of partition_columns ({', '.join(columns)}). Name more columns. "
                f"They have: {', '.join(partition.values) or 'no values'}."
            )


def _check_partition_columns(resource: "Resource", values: Collection[str]) -> None:
    for name in resource.partition_columns:
        if name not in values:
            raise ConfigurationError(
                f"{resource.name}: partition_columns names {name!r}, but not all of its "
                f"partitions have a value for it. They have: {', '.join(values) or 'no values'}."
            )
