r"""Records to COPY text: types by JSON's own types, values escaped, misfits set aside.

Knows nothing of connections. The format is Postgres' COPY text: tab between values, newline
between rows, `\N` for null (https://www.postgresql.org/docs/current/sql-copy.html).
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from flows.declaration import Record

BIGINT_BOUNDS = range(-(2**63), 2**63)
EXACT_DOUBLES_TO = 2**53
NULL = "\\N"

_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SUSPECT = re.compile(
    rb"\\u(?:0000|[dD][89a-fA-F])|[eE]\+?[0-9]{3}|[0-9]{200}|\x00|\xed[\xa0-\xbf]"
)


@dataclass(frozen=True)
class Reject:
    """A record that can't be stored as it is, and why."""

    record: Any
    reason: str


class Frame(Protocol):
    """Rows of one or more pages, ready for COPY.

    Attributes:
        natural: per field, the narrowest type that holds its values; None where all are null.
        beyond_double: the bigint fields with a value that a double would round.
        count: how many rows.
    """

    natural: Mapping[str, str | None]
    beyond_double: frozenset[str]
    count: int

    def copy_source(self, types: Mapping[str, str]) -> tuple[str, bytes]:
        """COPY's format and the rows in it, a column per field of `types`, in that order."""


class RecordFrame:
    """Records as Python objects: the way that takes whatever JSON there is."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self.count = len(records)
        self.natural: Mapping[str, str | None] = natural_types(records, fields_of(records))
        self.beyond_double = frozenset(beyond_double(records, self.natural))

    def copy_source(self, types: Mapping[str, str]) -> tuple[str, bytes]:
        """Text format: what a record lacks is null."""
        return "text", copy_text(self._records, types)


def sort_out(
    records: Iterable[Any], key: Sequence[str], suspect: bool
) -> tuple[list[Record], list[Reject]]:
    """Part the records that can be stored from those that can't.

    With `suspect`, every value is looked at; without, only the key (see `is_suspect`).
    """
    good: list[Record] = []
    rejects: list[Reject] = []
    for record in records:
        reason = _misfit(record, key)
        if reason is None and suspect and not _storable(record):
            reason = "has a NUL character, half a surrogate pair, or a number beyond double"
        if reason is None:
            good.append(record)
        else:
            rejects.append(Reject(record, reason))
    return good, rejects


def is_suspect(body: bytes) -> bool:
    """Whether a page's bytes could hold a value that Postgres can't store.

    Two of the signs are bytes: zeros stand in UTF-16 and UTF-32, ED A0 to ED BF begin a surrogate.
    """
    return _SUSPECT.search(body) is not None


def _misfit(record: Any, key: Sequence[str]) -> str | None:
    if not isinstance(record, dict):
        return f"is {json.dumps(record)[:50]}, not an object"
    if not record:
        return "is an empty object"
    missing = [field for field in key if record.get(field) is None]
    return f"has no {', '.join(missing)}, which is its key" if missing else None


def _storable(value: Any) -> bool:
    """Whether Postgres can hold every string and number in `value`, however deep."""
    if isinstance(value, str):
        return _UNSTORABLE.search(value) is None
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_storable, value)) and all(map(_storable, value.values()))
    return all(map(_storable, value)) if isinstance(value, list) else True


def fields_of(records: Sequence[Record]) -> list[str]:
    """Every field that some record has, in the order of their first appearance."""
    return list(dict.fromkeys(chain.from_iterable(records)))


def natural_types(records: Sequence[Record], fields: Iterable[str]) -> dict[str, str | None]:
    """Per field, the narrowest type that holds its values exactly; None where all are null."""
    return {field: natural_type([record.get(field) for record in records]) for field in fields}


def beyond_double(records: Sequence[Record], natural: Mapping[str, str | None]) -> set[str]:
    """The bigint fields with a value that a double would round."""
    return {
        field
        for field, kind in natural.items()
        if kind == "bigint" and not all(_exact_as_double(record.get(field)) for record in records)
    }


def natural_type(values: Sequence[Any]) -> str | None:
    """The narrowest Postgres type that holds all values exactly; None when all are null."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return None
    if kinds & {dict, list}:
        return "jsonb"
    if kinds == {bool}:
        return "boolean"
    if kinds == {int} and all(v is None or v in BIGINT_BOUNDS for v in values):
        return "bigint"
    if kinds <= {int, float} and all(_exact_as_double(v) for v in values):
        return "double precision"
    return "text"


def _exact_as_double(value: float | None) -> bool:
    return value is None or isinstance(value, float) or abs(value) <= EXACT_DOUBLES_TO


def copy_text(records: Sequence[Record], types: Mapping[str, str]) -> bytes:
    """The records as COPY text, a column per field of `types`; what a record lacks is null."""
    columns = [
        _texts([record.get(field) for record in records], kind) for field, kind in types.items()
    ]
    return "".join(f"{row}\n" for row in map("\t".join, zip(*columns, strict=True))).encode()


def _texts(values: Sequence[Any], kind: str) -> list[str]:
    if kind == "bigint" and set(map(type, values)) <= {int, type(None)}:
        return [NULL if v is None else str(v) for v in values]
    if kind == "jsonb":
        return _escaped([None if v is None else json.dumps(v, ensure_ascii=False) for v in values])
    return _escaped([None if v is None else _text(v) for v in values])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _escaped(texts: list[str | None]) -> list[str]:
    if _SPECIAL.search("".join(filter(None, texts))) is None:
        return [NULL if text is None else text for text in texts]
    return [NULL if text is None else text.translate(_ESCAPES) for text in texts]
