"""Refuses rows that a load would lose, duplicate or expose."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.deletes import Tombstones
from flows.errors import ConfigurationError
from flows.limits import SYSTEM_COLUMNS, check_least, check_length, check_positive
from flows.personal_data import check_personal

if TYPE_CHECKING:
    from flows.source import Resource

_COLUMN = re.compile("[a-z][a-z0-9_]{0,62}")
_TABLE = re.compile(r"[^\W\d]\w*")


def check_rows(resource: "Resource") -> None:
    """Refuse what a resource declares of its rows and of the table that they go to.

    Raises:
        ConfigurationError: with what to write instead.
    """
    _check_table(resource.name)
    _check_fields(resource.name, "key", resource.key)
    _check_fields(resource.name, "partition_columns", resource.partition_columns)
    _check_disposition(resource)
    _check_deletes(resource)
    _check_names(resource)
    _check_personal(resource)
    _check_limits(resource)


def _check_table(name: str) -> None:
    if not _TABLE.fullmatch(name) or name != name.lower():
        raise ConfigurationError(
            f"The resource name {name!r} is not a valid raw table name. Use a letter or _, then "
            "letters, digits and _, all in lower case. The resource's `path` may be anything."
        )
    check_length("The resource name", name)


def _check_limits(resource: "Resource") -> None:
    owner = resource.name
    sizes = {
        "checkpoint_rows": resource.checkpoint_rows,
        "max_record_bytes": resource.max_record_bytes,
    }
    check_least(owner, 1, **sizes)
    check_least(
        owner, 0, checkpoint_seconds=resource.checkpoint_seconds, max_rejects=resource.max_rejects
    )
    check_positive(owner, 1, unusual_factor=resource.unusual_factor)
    _check_shrinkage(owner, resource.max_shrinkage)


def _check_disposition(resource: "Resource") -> None:
    if resource.writes == "merge" and not resource.key:
        raise ConfigurationError(f"{resource.name}: merge needs a key.")
    if resource.writes != "append" or resource.cursor is None:
        return
    cursor = resource.time_cursor
    remedy = "Declare a key" + (", or give the cursor a step and no lookback." if cursor else ".")
    if cursor is None or cursor.lookback or cursor.step is None:
        raise ConfigurationError(
            f"{resource.name}: append with a cursor duplicates rows at its edge. {remedy}"
        )


def _check_deletes(resource: "Resource") -> None:
    """Refuse deletions without a key, and those that other records would look like."""
    deletes = resource.deletes
    if deletes is None:
        return
    owner = f"{resource.name}: deletes={type(deletes).__name__}(…)"
    if not resource.key or resource.disposition == "append":
        raise ConfigurationError(
            f"{owner} marks the row with a record's key. Declare a key, and no append."
        )
    if isinstance(deletes, Tombstones):
        _check_tombstones(resource, deletes, owner)
    else:
        _check_full_list(resource, owner)


def _check_tombstones(resource: "Resource", deletes: Tombstones, owner: str) -> None:
    for path in (*resource.key, *resource.personal):
        if deletes.field == path or deletes.field.startswith(f"{path}."):
            raise ConfigurationError(
                f"{owner} reads {path!r}, which is part of its key or replaced by `personal`. Name "
                "a field that says whether the record is deleted."
            )
    root, _, rest = deletes.field.partition(".")
    column = letters(resource.names.get(root, root))
    for name, kind in resource.columns.items():
        if rest and letters(name) == column and kind.lower() not in ("json", "jsonb"):
            raise ConfigurationError(
                f"{owner} reads {deletes.field!r}, but `columns` makes {name!r} {kind}, into which "
                "no path leads. Remove it there, or make it jsonb."
            )


def _check_full_list(resource: "Resource", owner: str) -> None:
    """Refuse whatever ends a list before all of it is read, or asks for a part."""
    partial = {
        "a cursor": resource.cursor is not None,
        "max_pages": resource.max_pages is not None,
        "a rule that stops reading": any(rule.then == "stop" for rule in resource.rules),
        "a rule `end` for pages that the API leads to": _ends_midway(resource),
    }
    found = [name for name, is_declared in partial.items() if is_declared]
    if found:
        raise ConfigurationError(
            f"{owner} marks all rows that a load does not read, and with {found[0]} it reads only "
            "some. Remove it; or read new records with a cursor here, and all ids by a resource of "
            "their own (docs/sources.md, Deletions)."
        )
    if resource.disposition == "merge":
        raise ConfigurationError(
            f"{owner} writes a list as a whole, as `replace` does. Remove disposition='merge'."
        )


def _ends_midway(resource: "Resource") -> bool:
    """Whether an error may end the reading where it does not say that there is no such page.

    A 204 is none: it says that there are no records.
    """
    is_counted = hasattr(resource.paging, "beyond")  # `offset` and `page_number`
    ends = [rule for rule in resource.rules if rule.then == "end" and rule.status != 204]
    return not is_counted and bool(ends)


def _check_fields(resource: str, argument: str, names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise ConfigurationError(
            f"{resource}: {argument}={names!r} is text, not a tuple of names. "
            f"Write {argument}=({names!r},)."
        )
    if twice := repeated(names):
        raise ConfigurationError(f"{resource}: {argument} names {twice[0]!r} twice. Remove one.")


def _check_shrinkage(resource: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigurationError(
            f"{resource}: max_shrinkage={share} is not a share from 0 to 1. 0.5 lets a load remove "
            "half of the rows."
        )


def _check_personal(resource: "Resource") -> None:
    """Refuse to protect the cursor, whose values are compared, and what check_personal refuses."""
    cursor = resource.cursor_field or ""
    for path in resource.personal:
        if cursor == path or cursor.startswith(f"{path}."):
            raise ConfigurationError(
                f"{resource.name}: `personal` names {path!r}, which is its cursor. Loads compare "
                "and store its values, so it can't be protected."
            )
    for path in resource.personal:
        if _is_paged_by(resource, path):
            raise ConfigurationError(
                f"{resource.name}: `personal` names {path!r}, by which its paging goes on. "
                "Requests and resume points contain its values, so it can't be protected. Page by "
                "another field."
            )
    check_personal(resource.name, resource.personal, set(resource.key))


def _is_paged_by(resource: "Resource", path: str) -> bool:
    """Whether the next request would have a record's value at this path in it, or one around it.

    So it is with `keyset`; the field may be one of the list that it counts, and have another name
    in the records (`parents`).
    """
    field = getattr(resource.paging, "record_field", "")
    if not field:
        return False
    counts = getattr(resource.paging, "counts", "")
    name, dot, rest = path.partition(".")
    above = getattr(resource.records, "parents", {}).get(name) if counts else None
    if above is not None:
        path, field = f"{above}{dot}{rest}", f"{counts}[].{field}"
    return f"{path}.".startswith(f"{field}.")


def _check_names(resource: "Resource") -> None:
    columns = list(resource.names.values())
    for field_name, column in resource.names.items():
        problem = ""
        if not _COLUMN.fullmatch(column) or column in SYSTEM_COLUMNS:
            problem = (
                "is not a valid column name. Use a lower-case letter, then up to 62 of a-z, 0-9 "
                "and _; Postgres' system columns are reserved"
            )
        elif columns.count(column) > 1:
            problem = "is used twice. Give each field its own column"
        elif field_name != column and column in {*resource.key, *resource.partition_columns}:
            problem = "belongs to another field, in its key or partition_columns"
        if problem:
            raise ConfigurationError(
                f"{resource.name}: `names` gives {field_name!r} the column {column!r}, which "
                f"{problem}."
            )


def letters(name: str) -> str:
    """What a field and its column have in common: `emailAddress` is stored as `email_address`."""
    return re.sub(r"[\W_]", "", name).lower()


def repeated(names: Sequence[str]) -> list[str]:
    """The names that occur more than once, in order."""
    return [name for name, count in Counter(names).items() if count > 1]
