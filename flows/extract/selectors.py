"""Selectors: find the records of a page, in JSON at a path, in lines of JSON, or in CSV."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from inspect import unwrap
from itertools import islice
from operator import eq
from typing import Any, ClassVar

import msgspec

from flows.errors import BadPayloadError, ConfigurationError
from flows.page import HIDDEN_CONTENT, Page, not_utf8
from flows.redaction import redact
from flows.source import Record, Resource
from flows.source_checks import repeated

# Content types that fit any content; some servers send them for everything.
ANY_TYPE = ("text/plain", "octet-stream", "gzip", "no type")

# Values of an `errors` member that mean there are none.
NO_ERRORS = frozenset({b"[]", b"null", b"{}", b'""', b"false", b"0"})

# Likely CSV delimiters, and how many lines are compared to find the right one.
DELIMITERS = (",", ";", "\t", "|")
COMPARED_LINES = 100
SHOWN_CHARACTERS = 200
# The first line that is not empty, after a byte order mark.
_FIRST_LINE = re.compile(rb"[\xef\xbb\xbf\r\n]*([^\r\n]*)")
_ONE_LINE = re.compile(rb"[^\r\n]*(?:\r\n?|\n)?")

# `max_body_bytes` is the limit, not the csv module's 128 KiB per value.
csv.field_size_limit(2**31 - 1)


def check_content_type(page: Page, records: Callable[[Page], list[Any]]) -> None:
    """Compare the response's content type with the one that the resource's `records` declares.

    A source's own function declares none, unless it has an attribute `types`.

    Raises:
        BadPayloadError: they differ.
    """
    types: tuple[str, ...] = getattr(records, "types", ())
    if types and not _is_of_type(page, (*types, *ANY_TYPE)):
        raise BadPayloadError(
            f"{page.url} answered {page.content_type} where the source declares {types[0]}; it "
            f"begins {page.start_of()!r}. Correct `records` or the address, or ask the "
            "API's owner."
        )


def _is_of_type(page: Page, words: Sequence[str]) -> bool:
    content_type = page.content_type.lower()
    return any(word in content_type for word in words)


def check_errors(page: Page) -> None:
    """Refuse a response that has `errors` beside its `data`, such as a partial one of GraphQL.

    Raises:
        BadPayloadError: unless a rule of the source accepts the response.
    """
    if page.is_accepted or not page.members or not {"data", "errors"} <= page.members.keys():
        return
    errors = bytes(page.members["errors"])
    if errors.strip() not in NO_ERRORS:
        raise BadPayloadError(
            f"{page.url} answered with errors beside its data: {page.start_of(errors)!r}. Correct "
            "the request, ask the API's owner, or declare Rule('accept', body=…) if the data is "
            "valid despite such errors."
        )


def check_names(page: Page, resource: Resource) -> None:
    """Refuse CSV that lacks a column of the key; it could otherwise pass for a table without rows.

    Raises:
        BadPayloadError: with the names in its first line.
    """
    records = unwrap(resource.records)
    if not isinstance(records, Csv) or resource.map_record is not None:
        return
    names = records.first_line(page)
    known = {*(records.declared or names), *resource.partition_columns}
    missing = [name for name in resource.key if name not in known]
    if missing and records.declared:
        raise ConfigurationError(
            f"{resource.name}: csv_rows(names={records.declared!r}) lacks the key's "
            f"{', '.join(missing)}. Name all columns of the file, in their order."
        )
    if records.declared or not names or not (missing or _is_one_line_of_text(page, names)):
        return
    text, delimiter = page.body.decode(errors="replace"), records.delimiter
    if missing and (hint := _delimiter_hint(text, delimiter, names)):
        raise _no_csv(page, f"its names don't include the key{hint}")
    line = redact(delimiter.join(names))[:SHOWN_CHARACTERS]
    lacks = f"lacks the key's {', '.join(missing)}" if missing else "is all it contains"
    raise _no_csv(page, f"its first line {line!r} {lacks}")


def _is_one_line_of_text(page: Page, names: list[str]) -> bool:
    """Whether it is more likely a sentence, e.g. `Rate limit exceeded`, than an empty table."""
    is_csv = _is_of_type(page, Csv.types)
    return len(names) == 1 and not is_csv and _ONE_LINE.fullmatch(page.body) is not None


@dataclass(frozen=True)
class RecordsAt:
    """A list of records under `path`; the load layer may parse it by itself, by `raw`."""

    path: str
    optional: bool = False
    types: ClassVar[tuple[str, ...]] = ("json", "javascript")

    def __call__(self, page: Page) -> list[Any]:
        if self.optional and self._has_none(page):
            return []
        found = _at(page, self.path)
        if not isinstance(found, list):
            raise _unexpected(page, self.path, "a list of records", found)
        return found

    def raw(self, page: Page) -> bytes | None:
        """The unparsed bytes of the list; None if the path is missing."""
        if self.optional and self._has_none(page):
            return b"[]"
        names = self._names
        found = page.unparsed(names) if names else page.body
        return None if found is None else bytes(found)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(filter(None, self.path.split(".")))

    def _has_none(self, page: Page) -> bool:
        """Whether the page is an object where the path, or a part of it, is null or missing."""
        names = self._names
        for depth in range(len(names)):
            if page.members_at(names[:depth]) is None:
                return False
            found = page.unparsed(names[: depth + 1])
            if found is None or bytes(found).strip() == b"null":
                return True
        return False


def records_at(path: str = "", *, optional: bool = False) -> RecordsAt:
    """The list of records under `path` (dots name nested fields); by default, the whole document.

    If the list is `optional`, null or a missing field means no records.
    """
    if optional and not path:
        raise ConfigurationError("records_at(optional=True) needs a path.")
    return RecordsAt(path, optional)


@dataclass(frozen=True)
class RecordAt:
    """One record under `path`."""

    path: str
    types: ClassVar[tuple[str, ...]] = RecordsAt.types

    def __call__(self, page: Page) -> list[Any]:
        """The record, in a list."""
        found = _at(page, self.path)
        if not isinstance(found, dict):
            raise _unexpected(page, self.path, "an object", found)
        return [found]

    def raw(self, page: Page) -> bytes | None:
        """The unparsed bytes of the record in a list; None if there is no object at the path."""
        found = (RecordsAt(self.path).raw(page) or b"").strip()
        return b"[%b]" % found if found.startswith(b"{") else None


def record_at(path: str = "") -> RecordAt:
    """The one record under `path`; by default, the whole document."""
    return RecordAt(path)


@dataclass(frozen=True)
class ColumnsAt:
    """Records from one array per field, e.g. `{"time": [...], "temperature": [...]}`."""

    path: str
    types: ClassVar[tuple[str, ...]] = RecordsAt.types

    def __call__(self, page: Page) -> list[Record]:
        """The records; arrays of different lengths would assign values to wrong records."""
        found = _at(page, self.path)
        if not isinstance(found, dict) or not all(isinstance(v, list) for v in found.values()):
            raise _unexpected(page, self.path, "an object of arrays", found)
        lengths = {name: len(values) for name, values in found.items()}
        if len(set(lengths.values())) > 1:
            raise BadPayloadError(
                f"{page.url} has arrays of different lengths under {self.path!r}: "
                f"{page.quoted(lengths)}. "
                "Ask the API's owner."
            )
        return [
            dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)
        ]


def columns_at(path: str) -> ColumnsAt:
    """Records from the arrays under `path`, one array per field."""
    return ColumnsAt(path)


@dataclass(frozen=True)
class Lines:
    """One JSON value per line (https://github.com/ndjson/ndjson-spec)."""

    types: ClassVar[tuple[str, ...]] = ("ndjson", "jsonl", "json")
    separator: ClassVar[bytes] = b"\n"

    def __call__(self, page: Page) -> list[Any]:
        return [_line(page, line) for line in _lines(page)]

    def raw(self, page: Page) -> bytes | None:
        """The lines as one JSON list; None if a line is not a single JSON value."""
        lines = _lines(page)
        joined = b"[" + b",".join(lines) + b"]"
        try:
            values = msgspec.json.decode(joined, type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        is_alike = len(values) == len(lines) and all(map(eq, map(bytes, values), lines))
        return joined if is_alike else None


def ndjson() -> Lines:
    """One JSON record per line."""
    return Lines()


@dataclass(frozen=True)
class Csv:
    """CSV (RFC 4180), with a header line if there are no `declared` names."""

    delimiter: str
    declared: tuple[str, ...] = ()
    types: ClassVar[tuple[str, ...]] = ("csv", "tab-separated", "excel")

    def __post_init__(self) -> None:
        """Refuse one text as names, and a repeated name."""
        if isinstance(self.declared, str) or repeated(self.declared):
            raise ConfigurationError(
                f"csv_rows(names={self.declared!r}): write a tuple of different names, one for "
                "each column."
            )

    def first_line(self, page: Page) -> list[str]:
        """The values in the first line; none if it can't be parsed or the body is empty."""
        start = _FIRST_LINE.match(page.body)
        try:
            [names] = _csv_lines(start[1].decode() if start else "", self.delimiter) or [[]]
        except (csv.Error, UnicodeDecodeError):
            return []
        return names

    def __call__(self, page: Page) -> list[Record]:
        """The records; all values are text, empty ones null; empty lines are skipped."""
        try:
            text = page.body.decode("utf-8-sig")
            lines = _csv_lines(text, self.delimiter) or [[]]
        except UnicodeDecodeError as error:
            raise not_utf8(page, error) from error
        except csv.Error as error:
            raise _no_csv(page, str(error)) from error
        first = lines[0]
        names, rows = (list(self.declared), lines) if self.declared else (first, lines[1:])
        rows = rows if first else []
        if problem := _problem(first, rows, self.declared):
            raise _no_csv(page, f"{problem}{_delimiter_hint(text, self.delimiter, first)}")
        if len(names) == 1 and (hint := _delimiter_hint(text, self.delimiter, first)):
            raise _no_csv(page, f"its first line is a single name{hint}")
        return [
            {name: value or None for name, value in zip(names, row, strict=True)} for row in rows
        ]


def _csv_lines(text: str, delimiter: str, most: int | None = None) -> list[list[str]]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return list(islice((row for row in lines if row), most))


def _problem(first: list[str], rows: list[list[str]], declared: Sequence[str]) -> str | None:
    """Why these rows are not records; None if they are. The names are declared, or `first`."""
    names = declared or first
    if first and first[0].startswith("<"):
        return f"its first line is {redact(','.join(first))[:80]!r}, like a web page"
    if declared and first == list(declared):
        return f"its first line has the declared names, {first}: declare csv_rows without names"
    if len(set(names)) < len(names):
        return f"a name is repeated in its first line, {names}"
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            return f"row {number} has {len(row)} values for {len(names)} names"
    return None


def _delimiter_hint(text: str, delimiter: str, names: list[str]) -> str:
    """A hint with the first line and the delimiter that splits it and others evenly."""
    for likely in DELIMITERS:
        if likely != delimiter and _splits_evenly(text, likely, len(names)):
            shown = redact(delimiter.join(names))[:SHOWN_CHARACTERS]
            return (
                f". With the delimiter {delimiter!r} its first line is {shown!r}; the delimiter is "
                f"probably {likely!r}: declare csv_rows({likely!r})"
            )
    return ""


def _splits_evenly(text: str, delimiter: str, least: int) -> bool:
    """Whether a delimiter splits the first lines into equal numbers of values, enough of them."""
    try:
        lengths = set(map(len, _csv_lines(text, delimiter, COMPARED_LINES)))
    except csv.Error:
        return False
    return len(lengths) == 1 and max(lengths) >= max(2, least)


def csv_rows(delimiter: str = ",", *, names: tuple[str, ...] = ()) -> Csv:
    """The rows of a CSV body; its first line has the names, unless they are declared here."""
    return Csv(delimiter, names)


# The selectors that return every record of a page; a source's own function may not.
RECORDS = (RecordsAt, RecordAt, ColumnsAt, Lines, Csv)


def _lines(page: Page) -> list[bytes]:
    return [line for line in map(bytes.strip, page.body.split(b"\n")) if line]


def _line(page: Page, line: bytes) -> Any:
    try:
        return replace(page, body=line).document
    except BadPayloadError as error:
        raise BadPayloadError(f"One of the lines is not JSON. {error}") from error


def _no_csv(page: Page, problem: str) -> BadPayloadError:
    if page.hides_content:
        problem = HIDDEN_CONTENT
    return BadPayloadError(
        f"{page.url} answered {page.content_type} that is not CSV as declared: {problem}. Correct "
        "`records` in the source, or ask the API's owner."
    )


def _at(page: Page, path: str) -> Any:
    found = page.document
    for name in filter(None, path.split(".")):
        if not isinstance(found, dict) or name not in found:
            raise _unexpected(page, path, f"the field {name!r}", found)
        found = found[name]
    return found


def _unexpected(page: Page, path: str, wanted: str, found: Any) -> BadPayloadError:
    shape = sorted(found)[:10] if isinstance(found, dict) else type(found).__name__
    return BadPayloadError(
        f"{page.url} should have {wanted} at {path or 'its root'!r}, but there is "
        f"{HIDDEN_CONTENT if page.hides_content else shape}. "
        "Correct `records` in the source, or ask the API's owner."
    )
