"""How a resource learns that records were deleted at the API.

A row that is marked keeps its values and gets the time in `_deleted_at`. It is unmarked when the
API sends its record again.
"""

from dataclasses import dataclass

from flows.errors import ConfigurationError

# The column of raw tables that marks rows; null for rows that are there.
DELETED_AT = "_deleted_at"


@dataclass(frozen=True)
class Tombstones:
    """Deleted records are sent once more, with a field that says so.

    A tombstone may lack the record's other fields: its row keeps their values.

    Attributes:
        field: by default, any value of it but null, false, 0 and an empty text says that the record
            is deleted. May be a path into objects, e.g. `meta.deletedAt`.
        values: only these values say so, e.g. `("archived", "cancelled")`.
    """

    field: str
    values: tuple[str | int | bool, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a missing field, and values in which each letter would count."""
        if not self.field:
            raise ConfigurationError("Tombstones needs a field, e.g. Tombstones('deleted').")
        if isinstance(self.values, str):
            raise ConfigurationError(
                f"{self}: values={self.values!r} is text, not a tuple. "
                f"Write values=({self.values!r},)."
            )


@dataclass(frozen=True)
class FullList:
    """Each load reads the complete list, so what is missing from it is deleted.

    The load writes as `replace` does: all at once, from the start after an interruption, and within
    `max_shrinkage`. But it marks the rows that `replace` would delete. If a record was rejected, it
    marks nothing: the record may be that of a row which seems to be missing.
    """


Deletes = Tombstones | FullList
