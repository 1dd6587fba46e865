"""A page as a table at once, by polars, where that is certain to be what `json.loads` would say.

polars reads a page many times faster than Python objects can be made, and without holding the
interpreter. But it makes one type of mixed values without a word. So the page's own bytes are
counted: as many strings and booleans as the columns hold, every record with every field, or the
page takes the slower way (`RecordFrame`). Nested values and escapes Postgres can't hold do as well.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import polars as pl

from flows.declaration import Page, RawRecords, Record, Resource
from flows.load.frames import EXACT_DOUBLES_TO, KEY_COLUMN_BYTES, MAX_KEY_BYTES, RecordFrame, Texts
from flows.load.originals import Originals

TYPES: Mapping[type[pl.DataType], str] = {
    pl.Int64: "bigint",
    pl.Float64: "double precision",
    pl.String: "text",
    pl.Boolean: "boolean",
}

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_UNSTORABLE_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_BOOLEAN = re.compile(rb":\s*(?:true|false)\b")
_NESTED = re.compile(rb":\s*[\[{]")
# COPY's end marker, which older servers see even inside a quoted value.
_END_MARKER = b"\\\\."


class TableFrame:
    """The records of one page as a polars table."""

    def __init__(self, table: pl.DataFrame, texts: Texts = lambda: None) -> None:
        self._table = table
        self._texts = texts
        self.count = table.height
        self.natural: Mapping[str, str | None] = {
            name: TYPES.get(kind.base_type()) for name, kind in table.schema.items()
        }
        self.beyond_double = frozenset(
            name for name, kind in self.natural.items() if kind == "bigint" and _beyond(table[name])
        )
        # Not by `select`, which takes names like * and ^a$ for patterns.
        valued = [table.get_column(name) for name, kind in self.natural.items() if kind]
        self._csv = _as_csv(pl.DataFrame(valued))

    def copy_source(self, types: Mapping[str, str]) -> tuple[str, bytes]:
        """CSV as it was made at once; with a jsonb column, what `RecordFrame` makes of the rows."""
        if "jsonb" in types.values():
            return RecordFrame(self.records()).copy_source(types)
        return "csv", self._csv

    def records(self) -> list[Record]:
        """The rows as Python objects."""
        return self._table.to_dicts()

    def texts(self) -> Sequence[str] | None:
        """The rows as the API wrote them."""
        return self._texts()

    def values(self, field: str) -> set[Any]:
        """The distinct values of a field, nulls left out."""
        return set(self._table[field].drop_nulls().unique()) if field in self._table else set()


def table_of(page: Page, resource: Resource, own_fields: Mapping[str, Any]) -> TableFrame | None:
    """The page's records with the partition's own fields before theirs; None for the slower way."""
    raw = resource.records.raw(page) if isinstance(resource.records, RawRecords) else None
    if raw is None or not raw.lstrip().startswith(b"["):
        return None
    if _needs_the_slower_way(raw) or _is_nested(raw):
        return None
    try:
        table = pl.read_json(io.BytesIO(raw), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return None
    if table.is_empty() or not own_fields.keys().isdisjoint(table.columns):
        return None
    if not _is_certain(raw, table):
        return None
    own = [
        pl.Series(name, [value]).new_from_index(0, table.height)
        for name, value in own_fields.items()
    ]
    table = pl.DataFrame(own).hstack(table) if own else table
    if not _has_keys(table, resource.key):
        return None
    return TableFrame(table, Originals(page, resource.records)) if _has_plain_types(table) else None


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


def _needs_the_slower_way(raw: bytes) -> bool:
    return b"\\" in raw and (_END_MARKER in raw or _UNSTORABLE_ESCAPE.search(raw) is not None)


def _is_nested(raw: bytes) -> bool:
    """Whether a record has an object or an array in it; a deep one would take polars minutes."""
    if _NESTED.search(raw) is None:
        return False
    try:
        rows = msgspec.json.decode(raw, type=list[dict[str, msgspec.Raw]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return True
    return any(memoryview(value)[0] in b"[{" for row in rows for value in row.values())


def _has_plain_types(table: pl.DataFrame) -> bool:
    """Whether there is a value at all, and all are of types that stand for one type of JSON's."""
    kinds = {kind.base_type() for kind in table.dtypes}
    return kinds <= {*TYPES, pl.Null} and kinds != {pl.Null}


def _is_certain(raw: bytes, table: pl.DataFrame) -> bool:
    """Whether the table holds every value of `raw` as what it is there.

    A record without one of the fields, or a string column with a number among its strings, has
    fewer quotes than the table's cells ask for; numbers with a boolean among them leave one over.
    Whole numbers among fractions are exact up to 2^53.
    """
    if not _has_plain_types(table):
        return False
    bare = _ESCAPE.sub(b"", raw) if b"\\" in raw else raw
    strings = _values_of(table, pl.String)
    return (
        bare.count(b'"') == 2 * (table.height * table.width + strings)
        and _values_of(table, pl.Boolean) == _booleans_in(bare)
        and not any(_beyond(column) for column in table.select(pl.col(pl.Float64)))
    )


def _booleans_in(bare: bytes) -> int:
    """How many booleans there are; text that looks like one makes it too many, never too few."""
    words = bare.count(b"true") + bare.count(b"false")
    return len(_BOOLEAN.findall(bare)) if words else 0


def _values_of(table: pl.DataFrame, kind: type[pl.DataType]) -> int:
    return sum(column.len() - column.null_count() for column in table.select(pl.col(kind)))


def _beyond(column: pl.Series) -> bool:
    """Whether a number could be one that a double can't tell from its neighbours."""
    low: Any = column.min()
    high: Any = column.max()
    return low is not None and (low <= -EXACT_DOUBLES_TO or high >= EXACT_DOUBLES_TO)
