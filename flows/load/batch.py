r"""Records to COPY text: types inferred from JSON's, values escaped, unstorable records rejected.

Has no database connection. The format is Postgres' COPY text: tab between values, newline
between rows, `\N` for null (https://www.postgresql.org/docs/current/sql-copy.html).
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Protocol

from flows.json_text import json_text
from flows.load.numerics import Scales, digits_of, fits
from flows.load.pins import Form, PinnedFields
from flows.page import ExactNumber
from flows.redaction import redact
from flows.source import Record

Texts = Callable[[], Sequence[str] | None]

BIGINT_BOUNDS = range(-(2**63), 2**63)
EXACT_DOUBLES_TO = 2**53
NULL = "\\N"
# A text in such a column is a JSON string.
JSON_KINDS = frozenset({"json", "jsonb"})

# A row of a B-tree takes 2,704 bytes: its header, and per column the value, its length and padding.
MAX_KEY_BYTES = 2690
KEY_COLUMN_BYTES = 20
# Bytes that a nested key takes as jsonb, per byte of its text: each number has its own header.
NESTED_KEY_FACTOR = 5

# Length of the excerpt of a rejected record in an error, and of its part before the cause.
EXCERPT_CHARACTERS = 200
EXCERPT_BEFORE = 60
SHOWN_NAMES = 5
SHOWN_NAME_CHARACTERS = 100

_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_SURROGATE = re.compile("[\ud800-\udfff]")
_SUSPECT = re.compile(
    rb"\\u(?:0000|[dD][89a-fA-F])|[eE]\+?[0-9]{3}|[0-9]{200}|\x00|\xed[\xa0-\xbf]"
)


class UnstorableError(Exception):
    """Rows that can't be stored unchanged; the message continues "the record …".

    Attributes:
        field: the field whose value is the cause; empty if unknown.
    """

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.field = field


class MisfitError(UnstorableError):
    """A value that its column, of a fixed type, would change."""


@dataclass(frozen=True)
class Reject:
    """A rejected record as JSON text, the reason, and the field that caused it.

    Attributes:
        is_misfit: a column's type does not fit. If there are many, the declaration is wrong.
    """

    record: str
    reason: str
    field: str = ""
    is_misfit: bool = False

    @property
    def excerpt(self) -> str:
        """The part of the record around the field, redacted before it is cut."""
        record = redact(self.record)
        start = max(0, record.find(json.dumps(self.field)) - EXCERPT_BEFORE)
        end = start + EXCERPT_CHARACTERS
        before, after = "…" if start else "", "…" if end < len(record) else ""
        return f"{before}{record[start:end]}{after}"


class Batch(Protocol):
    """Rows of one or more pages, ready for COPY.

    Attributes:
        natural: per field, the narrowest type that holds its values; None if all are null.
        beyond_double: the bigint fields with a value that a double would round.
        count: the number of rows.
        key_hashes: a hash of each row's key, equal for equal keys; None if unknown.
    """

    natural: Mapping[str, str | None]
    beyond_double: frozenset[str]
    count: int
    key_hashes: Sequence[int] | None

    def copy_source(self, types: Mapping[str, str]) -> tuple[str, bytes]:
        """COPY's format and the rows in it, a column per field of `types`, in that order."""

    def records(self) -> Sequence[Record]:
        """The rows as Python objects."""

    def texts(self) -> Sequence[str] | None:
        """The rows as the API wrote them; None if unknown."""


class RecordBatch:
    """Records as Python objects: the slower path, for any JSON."""

    def __init__(
        self, records: Sequence[Record], texts: Texts = lambda: None, key: Sequence[str] = ()
    ) -> None:
        self._records = records
        self._texts = texts
        self.count = len(records)
        self.natural: Mapping[str, str | None] = inferred_types(records, fields_of(records))
        self.beyond_double = frozenset(beyond_double(records, self.natural))
        self.key_hashes: Sequence[int] | None = _key_hashes(records, key, self.natural)

    def copy_source(self, types: Mapping[str, str]) -> tuple[str, bytes]:
        """COPY's text format; a field that a record lacks is null.

        Raises:
            UnstorableError: when a value is nested too deeply for Python to write it.
        """
        try:
            return "text", copy_text(self._records, types)
        except RecursionError as error:
            raise UnstorableError("is nested too deeply for Python to write it") from error

    def records(self) -> Sequence[Record]:
        """The rows as Python objects."""
        return self._records

    def texts(self) -> Sequence[str] | None:
        """The rows as the API wrote them; None if unknown."""
        return self._texts()


def _key_hashes(
    records: Sequence[Record], key: Sequence[str], natural: Mapping[str, str | None]
) -> list[int] | None:
    """None without a key, and where Postgres may find keys equal that Python finds different."""
    if not key:
        return None
    values = [tuple(record.get(field) for field in key) for record in records]
    for field, column in zip(key, zip(*values, strict=True), strict=False):
        if natural.get(field) == "jsonb":
            return None
        if natural.get(field) == "text" and not all(isinstance(value, str) for value in column):
            return None
    return list(map(hash, values))


def halves(batch: Batch) -> Iterator[RecordBatch]:
    """The two halves of a batch, to bisect for a refused record."""
    records, texts = batch.records(), batch.texts()
    middle = len(records) // 2
    for half in (slice(middle), slice(middle, None)):
        part = None if texts is None else texts[half]
        yield RecordBatch(records[half], partial(_itself, part))


def _itself(texts: Sequence[str] | None) -> Sequence[str] | None:
    return texts


def split_storable(
    records: Iterable[Any], key: Sequence[str], suspect: bool, pinned: PinnedFields
) -> tuple[list[Record], dict[int, UnstorableError]]:
    """The records that can be stored, and by position the reason why others can't.

    With `suspect` (see `is_suspect`), checks every value; otherwise only the key and the `pinned`
    fields.
    """
    good: list[Record] = []
    reasons: dict[int, UnstorableError] = {}
    for position, record in enumerate(records):
        reason = _misfit(record, key)
        if reason is None and suspect:
            reason = _unstorable(record, pinned.scales)
        if reason is None and pinned:
            reason = _rounded(record, pinned.scales) or _changed(record, pinned.forms)
        if reason is None:
            good.append(record)
        else:
            reasons[position] = reason
    return good, reasons


def is_suspect(body: bytes) -> bool:
    """Whether a page's bytes may contain a value that Postgres can't store.

    Two of the patterns are raw bytes: a zero means UTF-16 or UTF-32; ED A0 to ED BF start a
    surrogate.
    """
    return _SUSPECT.search(body) is not None


def _misfit(record: Any, key: Sequence[str]) -> UnstorableError | None:
    if not isinstance(record, dict):
        return UnstorableError(f"is {redact(json.dumps(record))[:50]}, not an object")
    if not record:
        return UnstorableError("is an empty object")
    for field in key:
        if record.get(field) is None:
            return _without_key(record, field)
    try:
        sizes = {field: _key_bytes(record[field]) for field in key}
    except RecursionError:
        return UnstorableError("has a key that is nested too deeply", key[0])
    if sum(sizes.values()) > MAX_KEY_BYTES - KEY_COLUMN_BYTES * len(key):
        longest = max(sizes, key=lambda field: sizes[field])
        return UnstorableError(
            f"has a key of {sum(sizes.values())} bytes, too many for an index; the longest part is "
            f"the field {longest!r}",
            longest,
        )
    return None


def _without_key(record: Record, field: str) -> UnstorableError:
    if field in record:
        return UnstorableError(f"has null in the field {field!r}, which is part of its key", field)
    names = ", ".join(shown(name) for name in list(record)[:SHOWN_NAMES])
    more = ", …" if len(record) > SHOWN_NAMES else ""
    return UnstorableError(
        f"has no field {field!r}, which is part of its key; it has the fields {names}{more}"
    )


def _key_bytes(value: Any) -> int:
    """An upper bound of the bytes that an index needs for the value."""
    if isinstance(value, dict | list):
        return NESTED_KEY_FACTOR * len(json_text(value))
    return len(digits_of(value).encode(errors="replace"))


def _unstorable(record: Record, scales: Scales) -> UnstorableError | None:
    """The first name, text or number that Postgres can't store, at any depth of the record.

    The fields in `scales` have `numeric` columns, which take numbers of any size.
    """
    left: list[tuple[str, str, Any]] = [("", "", record)]
    while left:
        path, field, value = left.pop()
        if isinstance(value, dict):
            for name in value:
                if problem := _problem(name):
                    where = shown(f"{path}.{name}" if path else name)
                    return UnstorableError(f"has {problem} in the name of the field {where}", name)
            inner = [(f"{path}.{name}" if path else name, name, v) for name, v in value.items()]
            left += reversed(inner)
        elif isinstance(value, list):
            inner = [(f"{path}[{number}]", field, v) for number, v in enumerate(value)]
            left += reversed(inner)
        elif (path not in scales or isinstance(value, str)) and (problem := _problem(value)):
            return UnstorableError(f"has {problem} in the field {shown(path)}", field)
    return None


def _problem(value: Any) -> str | None:
    """Why Postgres can't store a text or number; None if it can."""
    if isinstance(value, str):
        if "\0" in value:
            return "a NUL character"
        return "half a surrogate pair" if _SURROGATE.search(value) else None
    if not isinstance(value, float) or math.isfinite(value):
        return None
    if isinstance(value, ExactNumber) and value.digits.lstrip("-").isdigit():
        return f"an integer of {len(value.digits)} characters"
    return "a number beyond double precision"


def _rounded(record: Record, scales: Scales) -> UnstorableError | None:
    """The first number that its column would round."""
    for field, scale in scales.items():
        value = record.get(field)
        if scale is not None and not fits(value, scale):
            return MisfitError(
                f"has the number {shown(digits_of(value))} in the field {shown(field)}, whose "
                f"column takes {scale} decimals",
                field,
            )
    return None


def _changed(record: Record, forms: Mapping[str, Form]) -> UnstorableError | None:
    """The first value that its column would change."""
    for field, form in forms.items():
        value = record.get(field)
        if value is not None and not form.takes_all([text := text_in(value, form.kind)]):
            return MisfitError(
                f"has {shown(text)} in the field {shown(field)}, whose column ({form.kind}) takes "
                f"{form.takes}",
                field,
            )
    return None


def shown(text: str) -> str:
    """A text in quotes, redacted and cut, with unprintable characters escaped."""
    text = redact(text)
    cut = text if len(text) <= SHOWN_NAME_CHARACTERS else f"{text[: SHOWN_NAME_CHARACTERS - 1]}…"
    return repr(cut)


def fields_of(records: Sequence[Record]) -> list[str]:
    """The fields of all records, in order of first appearance."""
    return list(dict.fromkeys(chain.from_iterable(records)))


def inferred_types(records: Sequence[Record], fields: Iterable[str]) -> dict[str, str | None]:
    """Per field, the narrowest type that holds its values exactly; None if all are null."""
    return {field: inferred_type([record.get(field) for record in records]) for field in fields}


def beyond_double(records: Sequence[Record], natural: Mapping[str, str | None]) -> set[str]:
    """The bigint fields with a value that a double would round."""
    return {
        field
        for field, kind in natural.items()
        if kind == "bigint" and not all(_exact_as_double(record.get(field)) for record in records)
    }


def inferred_type(values: Sequence[Any]) -> str | None:
    """The narrowest Postgres type that holds all values exactly; None if all are null."""
    kinds = set(map(type, values)) - {type(None)}
    if ExactNumber in kinds:
        kinds = kinds - {ExactNumber} | {float}
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
    """The records as COPY text, a column per field of `types`; a missing field is null."""
    columns = [
        _texts([record.get(field) for record in records], kind) for field, kind in types.items()
    ]
    return "".join(f"{row}\n" for row in map("\t".join, zip(*columns, strict=True))).encode()


def _texts(values: Sequence[Any], kind: str) -> list[str]:
    if kind == "bigint" and set(map(type, values)) <= {int, type(None)}:
        return [NULL if v is None else str(v) for v in values]
    return _escaped([None if v is None else text_in(v, kind) for v in values])


def text_in(value: Any, kind: str) -> str:
    """The text of a value that is not null, for a column of that type."""
    if kind in JSON_KINDS:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, ExactNumber) and kind != "text":
        return value.digits
    return value if isinstance(value, str) else json.dumps(value)


def _escaped(texts: list[str | None]) -> list[str]:
    if _SPECIAL.search("".join(filter(None, texts))) is None:
        return [NULL if text is None else text for text in texts]
    return [NULL if text is None else text.translate(_ESCAPES) for text in texts]
