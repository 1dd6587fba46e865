"""Column names: snake_case, at most 63 bytes, no two fields in one column."""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from flows.deletes import DELETED_AT
from flows.limits import NAME_BYTES, SYSTEM_COLUMNS

OWN_COLUMNS = frozenset({"_loaded_at", "_load_id", "_ordinal"})
# A merge's own table has this column beside the API's.
MERGE_COLUMNS = frozenset({"_present_at"})
RESERVED = OWN_COLUMNS | MERGE_COLUMNS | SYSTEM_COLUMNS | {DELETED_AT}
DIGEST_LENGTHS = (8, 16, 32)

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_IN_A_NAME = re.compile(r"\W+")


def column_name(field: str) -> str:
    """`OrderID` → `order_id`, `temperature_2m_max` as it is, `@odata.etag` → `odata_etag`.

    A name over 63 bytes is cut and ends with eight hex digits of the whole name's SHA-256. A name
    that the load or Postgres itself uses (`_load_id`, `xmin`) gets an underscore at its end.
    """
    name = _NOT_IN_A_NAME.sub("_", _WORD_STARTS.sub("_", field)).lower()
    name = (name.strip("_") if not field.startswith("_") else name.rstrip("_")) or "_"
    if name[0].isdigit():
        name = f"_{name}"
    if name in RESERVED:
        name = f"{name}_"
    if len(name.encode(errors="replace")) <= NAME_BYTES:
        return name
    return _with_digest(name, field, DIGEST_LENGTHS[0])


def column_names(
    fields: Iterable[str], known: Mapping[str, str], taken: Collection[str] = ()
) -> dict[str, str]:
    """The column of each field; the fields' order does not matter.

    A field that is `known` keeps its column. Each other field gets its own name as a column, or,
    if that is taken, the name with eight hex digits of the field's SHA-256. If several fields
    compete for one name, the field with exactly this spelling gets it, otherwise the first in
    alphabetical order.
    """
    wanted = list(fields)
    names = dict(known)
    used = {*known.values(), *taken}
    for field in sorted(wanted, key=lambda field: (column_name(field) != field, field)):
        if field not in names:
            names[field] = next(name for name in _candidates(field) if name not in used)
            used.add(names[field])
    return {field: names[field] for field in wanted}


def _candidates(field: str) -> Iterator[str]:
    name = column_name(field)
    yield name
    for length in DIGEST_LENGTHS:
        yield _with_digest(name, field, length)


def _with_digest(name: str, field: str, length: int) -> str:
    """The name, cut to leave room for an underscore and the first digits of the field's digest."""
    digest = hashlib.sha256(field.encode(errors="surrogatepass")).hexdigest()[:length]
    start = name.encode(errors="replace")[: NAME_BYTES - 1 - length]
    return f"{start.decode(errors='ignore')}_{digest}"
