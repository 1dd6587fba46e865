"""The fast path: a page's records to COPY text at once, if all have the types of the first ones.

msgspec reads a page into typed rows, strictly: no other field, no value of another type. It writes
them as lines of JSON, which are CSV except for their brackets. Both steps run outside of Python.
Any other page is read record by record (`RecordBatch`), and its types are tried on the next one.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from flows.load.batch import (
    BIGINT_BOUNDS,
    EXACT_DOUBLES_TO,
    JSON_KINDS,
    KEY_COLUMN_BYTES,
    MAX_KEY_BYTES,
    Batch,
    RecordBatch,
    Texts,
    text_in,
)
from flows.load.numerics import fits
from flows.load.page_pieces import finder
from flows.load.pins import NO_PINS, PinnedFields, Pins
from flows.load.raw_records import RawTexts
from flows.page import Page, cuts_out
from flows.source import Record, Resource

CSV = r"csv, escape '\', null 'null'"

_Exact = Annotated[int, msgspec.Meta(ge=-EXACT_DOUBLES_TO, le=EXACT_DOUBLES_TO)]
_Bigint = Annotated[int, msgspec.Meta(ge=BIGINT_BOUNDS.start, le=BIGINT_BOUNDS.stop - 1)]
_TYPES: Mapping[str | None, Any] = {
    "bigint": _Exact,
    "double precision": _Exact | float,
    "text": str,
    "boolean": bool,
    None: None,
}
FIRST_RECORDS = 100
_ENCODER = msgspec.json.Encoder(decimal_format="number")
NUMBERS = frozenset({"bigint", "double precision"})
_UTF8_BYTES = 4

# Characters that msgspec does not accept in a field's name.
_ODD_NAME = re.compile('["\\\\\x00-\x1f\ud800-\udfff]')
_EMPTY_OBJECT = re.compile(rb"\{\s*\}")
_ESCAPE = re.compile(rb'\\(?:u00([0-9a-fA-F]{2})|([^"\\]))|\\.')
_ESCAPED = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


class TypedBatch:
    """The records of one page, already written as COPY's CSV."""

    def __init__(
        self,
        natural: Mapping[str, str | None],
        beyond_double: frozenset[str],
        rows: Sequence[tuple[Any, ...]],
        key_hashes: Sequence[int] | None,
        records: Callable[[], list[Record]],
        texts: Texts,
    ) -> None:
        """`rows` has the fields with any value.

        `records` and `texts` read the page once more, record by record, when needed.
        """
        self.natural = natural
        self.beyond_double = beyond_double
        self.count = len(rows)
        self.key_hashes = key_hashes
        self._csv = _as_csv(rows)
        self._records = records
        self._texts = texts

    def copy_source(self, types: Mapping[str, str]) -> tuple[str, bytes]:
        """The CSV; with a JSON column, the text of a `RecordBatch` instead."""
        if not JSON_KINDS.isdisjoint(types.values()):
            return RecordBatch(self.records()).copy_source(types)
        return CSV, self._csv

    def records(self) -> list[Record]:
        """The rows as Python objects, with the fields that the API sent."""
        return self._records()

    def texts(self) -> Sequence[str] | None:
        """The rows as the API wrote them."""
        return self._texts()


class TypedParser:
    """Reads the pages of one resource partition, in their order.

    Attributes:
        key: the fields of the resource's key that its pages have.
    """

    def __init__(
        self,
        resource: Resource,
        own_fields: Mapping[str, Any],
        pins: Pins = NO_PINS,
    ) -> None:
        """`own_fields` are the partition's own fields, placed before those of its records."""
        self._resource = resource
        self._pins = pins
        self._own_fields = own_fields
        self.key = [name for name in resource.key if name not in own_fields]
        self._shape: _RecordType | None = None

    def learn_from(self, earlier: "TypedParser") -> None:
        """Use the types that an earlier partition's pages had, if nothing is known yet."""
        shape = earlier._shape
        if self._shape is None and shape and self._takes_own_fields(shape.pinned):
            self._shape = shape

    def learn(self, batch: Batch) -> None:
        """Use the types of a batch that was read record by record for the next pages.

        If they can't represent everything in it, the next pages are read record by record as well.
        """
        known = self._shape.kinds if self._shape else {}
        names = [name for name in batch.natural if name not in self._own_fields]
        kinds = {name: batch.natural[name] or known.get(name) for name in names}
        has_key = all(map(kinds.get, self.key))
        is_plain = all(kind in _TYPES for kind in kinds.values())
        self._shape = None
        if has_key and is_plain and not any(map(_ODD_NAME.search, kinds)):
            pinned = self._pins.of([*self._own_fields, *names])
            if self._takes_own_fields(pinned):
                key = self._resource.key
                self._shape = _RecordType(kinds, batch.beyond_double, key, pinned)

    def _takes_own_fields(self, pinned: PinnedFields) -> bool:
        """Whether the columns of the partition's own fields take their values unchanged."""
        given = {name: value for name, value in self._own_fields.items() if value is not None}
        scales, forms = pinned.scales, pinned.forms
        return all(
            scale is None or fits(given.get(name), scale) for name, scale in scales.items()
        ) and all(
            form.takes_all([text_in(given[name], "")])
            for name, form in forms.items()
            if name in given
        )

    def read(self, page: Page) -> tuple[TypedBatch, set[Any]] | None:
        """The page's records and the values of the cursor field; None for the slower path."""
        records = finder(page, self._resource)
        raw = records.raw(page) if cuts_out(records) else None
        if raw is None or _has_nul(raw):
            return None
        if self._shape is None:
            self._guess(raw)
        shape = self._shape
        rows = shape.rows_of(raw) if shape else None
        if shape and rows and not shape.fits_pins(rows):
            return None
        natural = shape.natural(raw, rows) if shape and rows else None
        if not shape or not rows or not natural or not any(natural.values()):
            return None
        field = self._resource.cursor_field
        values = set(shape.column(field, rows)) if field else set()
        return self._batch(page, shape, natural, rows), values - {None}

    def _guess(self, raw: bytes) -> None:
        """Learn from the first records of a page."""
        try:
            first = msgspec.json.decode(raw, type=list[msgspec.Raw])[:FIRST_RECORDS]
            records = [json.loads(bytes(record)) for record in first]
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return
        if records and all(isinstance(record, dict) for record in records):
            self.learn(RecordBatch(records))

    def _batch(
        self, page: Page, shape: "_RecordType", natural: Mapping[str, str | None], rows: list[Any]
    ) -> TypedBatch:
        own = RecordBatch([dict(self._own_fields)]).natural
        prefix = tuple(value for value in self._own_fields.values() if value is not None)
        valued = shape.tuples([name for name, kind in natural.items() if kind], rows)
        return TypedBatch(
            {**own, **natural},
            frozenset(name for name in natural if shape.goes_beyond_double(name, rows)),
            [prefix + row for row in valued] if prefix else valued,
            list(map(hash, shape.tuples(self.key, rows))) if self.key else None,
            partial(self._records_of, page),
            RawTexts(page, finder(page, self._resource)),
        )

    def _records_of(self, page: Page) -> list[Record]:
        records = finder(page, self._resource)
        return [{**self._own_fields, **record} for record in records(page)]


class _RecordType:
    """The fields of a page and their types."""

    def __init__(
        self,
        kinds: Mapping[str, str | None],
        beyond_double: frozenset[str],
        key: Sequence[str],
        pinned: PinnedFields,
    ) -> None:
        self.kinds = kinds
        self.pinned = pinned
        self._scales = {name: scale for name, scale in pinned.scales.items() if name in kinds}
        self._forms = {
            name: form
            for name, form in pinned.forms.items()
            if kinds.get(name) not in {None, form.kind}
        }
        self._beyond_double = beyond_double
        self._key = key
        self._slots = {name: f"field_{number}" for number, name in enumerate(kinds)}
        self._complete = self._record(is_sparse=False)
        self._decoders = [_decoder(self._complete), _decoder(self._record(is_sparse=True))]

    def _record(self, is_sparse: bool) -> type:
        fields: list[Any] = []
        for name, slot in self._slots.items():
            if name in self._key:
                fields.append((slot, self._key_type(name)))
            else:
                kind = self._type(name) | None if self.kinds[name] else None
                fields.append((slot, kind, None) if is_sparse else (slot, kind))
        fields.sort(key=len)  # required fields first
        names = {slot: name for name, slot in self._slots.items()}
        return msgspec.defstruct(
            "Record", fields, rename=names, forbid_unknown_fields=True, gc=False
        )

    def _type(self, name: str) -> Any:
        if name in self._scales and self.kinds[name] in NUMBERS:
            return Decimal
        return _Bigint if name in self._beyond_double else _TYPES[self.kinds[name]]

    def _key_type(self, name: str) -> Any:
        """A type without null; texts are limited so that the whole key fits into an index."""
        if self.kinds[name] != "text":
            return self._type(name)
        room_bytes = MAX_KEY_BYTES // len(self._key) - KEY_COLUMN_BYTES
        return Annotated[str, msgspec.Meta(max_length=room_bytes // _UTF8_BYTES)]

    def rows_of(self, raw: bytes) -> list[Any] | None:
        """The records as structs; None if one of them has another field or type."""
        complete, sparse = self._decoders
        try:
            try:
                return complete.decode(raw)
            except msgspec.ValidationError:
                return sparse.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    def fits_pins(self, rows: Sequence[Any]) -> bool:
        """Whether the columns of fixed types hold all values unchanged."""
        return all(
            scale is None or all(fits(value, scale) for value in self.column(name, rows))
            for name, scale in self._scales.items()
        ) and all(form.takes_all(self._texts(name, rows)) for name, form in self._forms.items())

    def _texts(self, name: str, rows: Sequence[Any]) -> Iterable[str | None]:
        """The values of a field as the texts that a column gets."""
        values = self.column(name, rows)
        if self.kinds[name] == "text":
            return values
        return (None if value is None else text_in(value, "") for value in values)

    def natural(self, raw: bytes, rows: Sequence[Any]) -> dict[str, str | None] | None:
        """The fields' types on this page; None if a field may be either null or missing."""
        kinds = {name: self._natural(name, rows) for name in self.kinds}
        if self._is_complete(rows):
            return kinds
        if not self._key and _EMPTY_OBJECT.search(raw):
            return None
        nulls = [name for name, kind in kinds.items() if kind is None]
        if b"\\" in raw or any(f'"{name}"'.encode() in raw for name in nulls):
            return kinds if not nulls else None
        return {name: kind for name, kind in kinds.items() if kind}

    def _is_complete(self, rows: Sequence[Any]) -> bool:
        """Whether all records have all fields; their structs then have the same field order."""
        return isinstance(rows[0], self._complete)

    def _natural(self, name: str, rows: Sequence[Any]) -> str | None:
        kind = self.kinds[name]
        if kind == "double precision" and name not in self._scales:
            found = set(map(type, self.column(name, rows)))
            return kind if float in found else "bigint" if int in found else None
        return kind if any(value is not None for value in self.column(name, rows)) else None

    def column(self, name: str, rows: Iterable[Any]) -> Iterable[Any]:
        """The values of a field; empty if there is no such field."""
        return map(attrgetter(self._slots[name]), rows) if name in self._slots else ()

    def tuples(self, names: Sequence[str], rows: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The values of some fields, row by row."""
        if names == list(self.kinds) and self._is_complete(rows):
            return list(map(msgspec.structs.astuple, rows))
        values = map(attrgetter(*(self._slots[name] for name in names)), rows)
        return [(value,) for value in values] if len(names) == 1 else list(values)

    def goes_beyond_double(self, name: str, rows: Iterable[Any]) -> bool:
        """Whether the field has an integer that a double would round."""
        return name in self._beyond_double and any(
            abs(value or 0) > EXACT_DOUBLES_TO for value in self.column(name, rows)
        )


def _decoder(record: type) -> msgspec.json.Decoder[list[Any]]:
    return msgspec.json.Decoder(list.__class_getitem__(record))


def _has_nul(raw: bytes) -> bool:
    """Whether there may be a NUL, the one character that Postgres can't store."""
    return b"\\" in raw and b"\\u0000" in raw


def _as_csv(rows: Sequence[tuple[Any, ...]]) -> bytes:
    """Lines of JSON without their brackets: strings are quoted, nulls are not."""
    lines = _ENCODER.encode_lines(rows)
    text = b"\n".join(lines[1:-2].split(b"]\n[")) + b"\n"
    return _ESCAPE.sub(_unescaped, text) if b"\\" in text else text


def _unescaped(escape: re.Match[bytes]) -> bytes:
    r"""The character of an escape; `\"` and `\\` stay, because CSV has them as well."""
    digits, letter = escape.groups()
    if digits:
        return bytes.fromhex(digits.decode())
    return _ESCAPED[letter] if letter else escape[0]
