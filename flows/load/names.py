"""Column names: snake_case, at most 63 bytes, the same every time."""

import hashlib
import re
from collections.abc import Iterable

from flows.load.frames import MisfitError

POSTGRES_NAME_BYTES = 63
OWN_COLUMNS = frozenset({"_loaded_at", "_load_id", "_ordinal"})
SYSTEM_COLUMNS = frozenset({"ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"})

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_IN_A_NAME = re.compile(r"\W+")


def column_name(field: str) -> str:
    """`OrderID` → `order_id`, `temperature_2m_max` as it is, `@odata.etag` → `odata_etag`.

    A name over 63 bytes is cut and ends with eight hex digits of the whole name's SHA-256; one that
    the load or Postgres itself uses (`_load_id`, `xmin`) gets an underscore at its end.
    """
    name = _NOT_IN_A_NAME.sub("_", _WORD_STARTS.sub("_", field)).lower()
    name = (name.strip("_") if not field.startswith("_") else name.rstrip("_")) or "_"
    if name[0].isdigit():
        name = f"_{name}"
    if name in OWN_COLUMNS | SYSTEM_COLUMNS:
        name = f"{name}_"
    if len(name.encode()) <= POSTGRES_NAME_BYTES:
        return name
    digest = hashlib.sha256(field.encode()).hexdigest()[:8]
    return f"{name.encode()[: POSTGRES_NAME_BYTES - 9].decode(errors='ignore')}_{digest}"


def column_names(fields: Iterable[str]) -> dict[str, str]:
    """The column name of each field.

    Raises:
        MisfitError: when two fields meet in one name.
    """
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for field in fields:
        name = column_name(field)
        other = taken.setdefault(name, field)
        if other != field:
            raise MisfitError(
                f"has the field {field!r}, which becomes the column {name!r} as {other!r} does"
            )
        names[field] = name
    return names
