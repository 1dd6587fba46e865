"""Column names: snake_case, at most 63 bytes, the same every time."""

import hashlib
import re
from collections.abc import Iterable

from flows.errors import ConfigurationError

POSTGRES_NAME_BYTES = 63
RESERVED = frozenset({"_loaded_at", "_load_id", "_ordinal"})

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_IN_A_NAME = re.compile(r"\W+")


def column_name(field: str) -> str:
    """`OrderID` → `order_id`, `temperature_2m_max` as it is, `@odata.etag` → `odata_etag`.

    A name over 63 bytes is cut and ends with eight hex digits of the whole name's SHA-256.
    """
    name = _NOT_IN_A_NAME.sub("_", _WORD_STARTS.sub("_", field)).lower()
    name = (name.strip("_") if not field.startswith("_") else name.rstrip("_")) or "_"
    if name[0].isdigit():
        name = f"_{name}"
    if len(name.encode()) <= POSTGRES_NAME_BYTES:
        return name
    digest = hashlib.sha256(field.encode()).hexdigest()[:8]
    return f"{name.encode()[: POSTGRES_NAME_BYTES - 9].decode(errors='ignore')}_{digest}"


def column_names(fields: Iterable[str]) -> dict[str, str]:
    """The column name of each field.

    Raises:
        ConfigurationError: when two fields meet in one name, or in one of our own columns.
    """
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for field in fields:
        name = column_name(field)
        other = taken.setdefault(name, field)
        if other != field or name in RESERVED:
            meets = "a column of the load itself" if name in RESERVED else repr(other)
            raise ConfigurationError(
                f"The field {field!r} becomes the column {name!r}, and so does {meets}. "
                "Rename or drop one of them in the source's `records` function."
            )
        names[field] = name
    return names
