"""Partitions of a resource: declared, combined, or made of the rows of another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product as combinations
from typing import Any

from flows.errors import ConfigurationError


@dataclass(frozen=True)
class Partition:
    """One slice of a resource, e.g. a city, fetched on its own. `values` fill its requests.

    Attributes:
        is_final: once loaded successfully, it is not requested again, e.g. the file of a past day.
        parent_load_id: the load that last changed the parent's row; only with
            `RowsOf(changed_only=True)`.
    """

    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    is_final: bool = False
    parent_load_id: int | None = field(default=None, compare=False)

    @property
    def version(self) -> int | None:
        """What its last successful load has to have seen to be the last one; None for no load."""
        return 0 if self.is_final else self.parent_load_id


def product(*axes: Sequence[Partition]) -> tuple[Partition, ...]:
    """Combine one partition of each axis, in every way, e.g. cities and variables."""
    return tuple(
        Partition(
            "/".join(partition.name for partition in combination),
            {name: value for part in combination for name, value in part.values.items()},
        )
        for combination in combinations(*axes)
    )


@dataclass(frozen=True)
class RowsOf:
    """Partitions made of another resource's rows, one per distinct row of the columns named.

    Attributes:
        resource: the parent, of the same source; it is loaded first.
        columns: the names of the partition's values, each with the column of the parent's raw table
            that supplies it, e.g. `{"order_id": "id"}`.
        where: only for the parent's rows that have this value, or one of these, in a column, e.g.
            `{"state": ["open", "paid"], "lines_count": 3}`; None stands for null.
        changed_only: only for rows that are new or changed since their partition was last loaded
            successfully. For APIs that change a parent whenever one of its children changes.
    """

    resource: str
    columns: Mapping[str, str]
    where: Mapping[str, Any] = field(default_factory=dict)
    changed_only: bool = False

    def __post_init__(self) -> None:
        """Refuse partitions without a value to distinguish them, and conditions no row meets."""
        if not self.columns:
            raise ConfigurationError(
                f"RowsOf({self.resource!r}) names no columns. Name at least one, e.g. "
                f'RowsOf({self.resource!r}, {{"{self.resource}_id": "id"}}).'
            )
        for column, values in self.where.items():
            if not values and isinstance(values, list | tuple | set | frozenset):
                raise ConfigurationError(
                    f"RowsOf({self.resource!r}): `where` allows no value of {column!r}. Name one, "
                    "or remove the column."
                )
