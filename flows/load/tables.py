"""A page as a table at once, by polars, where that is certain to be what `json.loads` would say.

polars reads a page many times faster than Python objects can be made, and without holding the
interpreter. But it makes one type of mixed values without a word. So msgspec reads the page as
well, strictly: every field is known, and every value is of its column's type, or the page takes the
slower way (`RecordFrame`). Nested values and escapes Postgres can't hold do as well.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
import polars as pl

from flows.declaration import Page, RawRecords, Record, Resource
from flows.load.frames import (
    BIGINT_BOUNDS,
    EXACT_DOUBLES_TO,
    KEY_COLUMN_BYTES,
    MAX_KEY_BYTES,
    POLARS_TYPES,
    RecordFrame,
    Texts,
)
from flows.load.originals import Originals

TYPES = {kind: name for name, kind in POLARS_TYPES.items()}

_Bigint = Annotated[int, msgspec.Meta(ge=BIGINT_BOUNDS.start, le=BIGINT_BOUNDS.stop - 1)]
_JSON_TYPES: Mapping[type[pl.DataType], Any] = {
    pl.Int64: _Bigint | None,
    pl.Float64: int | float | None,
    pl.String: str | None,
    pl.Boolean: bool | None,
}

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_UNSTORABLE_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
# What msgspec takes in no name of a field.
_ODD_NAME = re.compile(r'["\\\x00-\x1f]')
_NESTED = re.compile(rb":\s*[\[{]")
# COPY's end marker, which older servers see even inside a quoted value.
_END_MARKER = b"\\\\."


class TableFrame:
    """The records of one page as a polars table.

    Attributes:
        table: a field that a record lacks is null in it.
    """

    def __init__(
        self, table: pl.DataFrame, records: Callable[[], list[Record]], texts: Texts
    ) -> None:
        """`records` and `texts` read the page once more, record by record, where that is needed."""
        self.table = table
        self._records = records
        self._texts = texts
        self.count = table.height
        self.natural: Mapping[str, str | None] = {
            name: TYPES.get(kind.base_type()) for name, kind in table.schema.items()
        }
        self.beyond_double = frozenset(
            name for name, kind in self.natural.items() if kind == "bigint" and _beyond(table[name])
        )
        self._csv = _as_csv(self.fields([name for name, kind in self.natural.items() if kind]))

    def copy_source(self, types: Mapping[str, str]) -> tuple[str, bytes]:
        """CSV as it was made at once; with a jsonb column, what `RecordFrame` makes of the rows."""
        if "jsonb" in types.values():
            return RecordFrame(self.records()).copy_source(types)
        return "csv", self._csv

    def fields(self, names: Sequence[str]) -> pl.DataFrame:
        """These fields of all rows."""
        # Not by `select`, which takes names like * and ^a$ for patterns.
        return pl.DataFrame([self.table.get_column(name) for name in names])

    def records(self) -> list[Record]:
        """The rows as Python objects, with the fields that the API sent."""
        return self._records()

    def texts(self) -> Sequence[str] | None:
        """The rows as the API wrote them."""
        return self._texts()

    def values(self, field: str) -> set[Any]:
        """The distinct values of a field, nulls left out."""
        return set(self.table[field].drop_nulls().unique()) if field in self.table else set()


class Tables:
    """Reads the pages of one resource partition, and tries what one was made of on the next.

    polars spends most of its time on finding out the types. What a page is read as does not depend
    on the pages before it, so threads may share one object.
    """

    def __init__(self, resource: Resource, own_fields: Mapping[str, Any]) -> None:
        """`own_fields` are the partition's own, which come before those of its records."""
        self._resource = resource
        self._own_fields = own_fields
        self._shape: _Shape | None = None

    def read(self, page: Page) -> TableFrame | None:
        """The page's records as a table; None for the slower way."""
        raw = _records_in(page, self._resource)
        if raw is None:
            return None
        shape = self._shape
        table = shape.read_alike(raw) if shape else None
        if table is None:
            table = self._inferred(raw)
        if table is None or not self._own_fields.keys().isdisjoint(table.columns):
            return None
        if not self._resource.key and _has_empty_rows(table):
            return None
        own = [
            pl.Series(name, [value]).new_from_index(0, table.height)
            for name, value in self._own_fields.items()
        ]
        table = pl.DataFrame(own).hstack(table) if own else table
        if not _has_keys(table, self._resource.key) or not _has_plain_types(table.schema):
            return None
        return TableFrame(
            table, partial(self._records_of, page), Originals(page, self._resource.records)
        )

    def _records_of(self, page: Page) -> list[Record]:
        return [{**self._own_fields, **record} for record in self._resource.records(page)]

    def _inferred(self, raw: bytes) -> pl.DataFrame | None:
        """The table as polars takes it to be, where that is certain."""
        if _is_nested(raw):
            return None
        try:
            table = pl.read_json(io.BytesIO(raw), infer_schema_length=None)
        except pl.exceptions.PolarsError:
            return None
        if table.is_empty() or not _has_plain_types(table.schema):
            return None
        if any(map(_ODD_NAME.search, table.columns)):
            return None
        shape = _Shape(table.schema)
        if not shape.is_of(raw) or not _is_exact(raw, table):
            return None
        self._shape = shape
        return table


class _Shape:
    """The fields of a page with their types, as polars and as msgspec have them."""

    def __init__(self, schema: pl.Schema) -> None:
        self._schema = schema
        names = {f"field_{number}": name for number, name in enumerate(schema)}
        required = [(name, None) for name in names if schema[names[name]] == pl.Null]
        optional = [
            (name, _JSON_TYPES[schema[names[name]].base_type()], None)
            for name in names
            if schema[names[name]] != pl.Null
        ]
        record = msgspec.defstruct(
            "Record", [*required, *optional], rename=names, forbid_unknown_fields=True, gc=False
        )
        self._decoder = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]  # made above

    def is_of(self, raw: bytes) -> bool:
        """Whether the records have no other fields, and no values of other types, than these.

        A field that holds only nulls is in every record; others may be left out.
        """
        try:
            self._decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        return True

    def read_alike(self, raw: bytes) -> pl.DataFrame | None:
        """The records as polars would infer them to be; None where that could be another table.

        A column without a value could be missing, one of doubles without a fraction be integers.
        """
        if not self.is_of(raw):
            return None
        try:
            table = pl.read_json(io.BytesIO(raw), schema=self._schema)
        except pl.exceptions.PolarsError:
            return None
        is_alike = all(map(_shows_its_type, table)) and _is_exact(raw, table)
        return table if is_alike and not table.is_empty() else None


def _records_in(page: Page, resource: Resource) -> bytes | None:
    """The list of records as bytes; None where it can't be had, or stored as it is."""
    raw = resource.records.raw(page) if isinstance(resource.records, RawRecords) else None
    if raw is None or not raw.lstrip().startswith(b"["):
        return None
    if b"\\" in raw and (_END_MARKER in raw or _UNSTORABLE_ESCAPE.search(raw)):
        return None
    return raw


def _shows_its_type(column: pl.Series) -> bool:
    if column.dtype == pl.Null:
        return True
    if column.dtype == pl.Float64:
        return bool((column != column.floor()).any())
    return column.null_count() < column.len()


def _has_empty_rows(table: pl.DataFrame) -> bool:
    return bool(table.select(pl.all_horizontal(pl.all().is_null()).any()).item())


def _has_keys(table: pl.DataFrame, key: Sequence[str]) -> bool:
    """Whether every row has a key that fits into an index, for sure."""
    if any(field not in table or table[field].has_nulls() for field in key):
        return False
    texts = [table[field] for field in key if table.schema[field] == pl.String]
    longest: list[Any] = [column.str.len_bytes().max() for column in texts]
    return bool(sum(longest) < MAX_KEY_BYTES - KEY_COLUMN_BYTES * len(key))


def _as_csv(table: pl.DataFrame) -> bytes:
    """Strings are quoted, nulls are not: COPY tells an empty string from a null by that."""
    out = io.BytesIO()
    table.write_csv(out, include_header=False, quote_style="non_numeric", null_value="")
    return out.getvalue()


def _is_nested(raw: bytes) -> bool:
    """Whether a record has an object or an array in it; a deep one would take polars minutes."""
    if _NESTED.search(raw) is None:
        return False
    try:
        rows = msgspec.json.decode(raw, type=list[dict[str, msgspec.Raw]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return True
    return any(memoryview(value)[0] in b"[{" for row in rows for value in row.values())


def _has_plain_types(schema: pl.Schema) -> bool:
    """Whether there is a value at all, and all are of types that stand for one type of JSON's."""
    kinds = {kind.base_type() for kind in schema.values()}
    return kinds <= {*TYPES, pl.Null} and kinds != {pl.Null}


def _is_exact(raw: bytes, table: pl.DataFrame) -> bool:
    """Whether no name stands twice in a record, and doubles hold their integers exactly.

    Where fields are left out, a name that stands twice may go unnoticed.
    """
    bare = _ESCAPE.sub(b"", raw) if b"\\" in raw else raw
    columns = table.get_columns()
    texts = [column for column in columns if column.dtype == pl.String]
    strings = sum(column.len() - column.null_count() for column in texts)
    if bare.count(b'"') > 2 * (table.height * table.width + strings):
        return False
    return not any(column.dtype == pl.Float64 and _beyond(column) for column in columns)


def _beyond(column: pl.Series) -> bool:
    """Whether a number could be one that a double can't tell from its neighbours."""
    low: Any = column.min()
    high: Any = column.max()
    return low is not None and (low <= -EXACT_DOUBLES_TO or high >= EXACT_DOUBLES_TO)
