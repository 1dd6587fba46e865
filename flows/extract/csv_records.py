"""Records of a CSV body."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import unwrap
from itertools import islice
from typing import Any, ClassVar

from flows.checks.rows import repeated
from flows.errors import BadPayloadError, ConfigurationError
from flows.extract.content_type import is_of_type
from flows.page import HIDDEN_CONTENT, Page, not_utf8
from flows.redaction import redact
from flows.source import Record, Resource

# Likely CSV delimiters, and how many lines are compared to find the right one.
DELIMITERS = (",", ";", "\t", "|")
COMPARED_LINES = 100
SHOWN_CHARACTERS = 200
# The first line that is not empty, after a byte order mark.
_FIRST_LINE = re.compile(rb"[\xef\xbb\xbf\r\n]*([^\r\n]*)")
_ONE_LINE = re.compile(rb"[^\r\n]*(?:\r\n?|\n)?")

# `max_body_bytes` is the limit, not the csv module's 128 KiB per value.
csv.field_size_limit(2**31 - 1)


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


def check_names(page: Page, resource: Resource, records: Callable[[Page], list[Any]]) -> None:
    """Refuse CSV that lacks a column of the key; it could otherwise pass for a table without rows.

    `records` reads the page: the resource's own, or those of a file in its archive.

    Raises:
        BadPayloadError: with the names in its first line.
    """
    records = unwrap(records)
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
    is_csv = is_of_type(page, Csv.types)
    return len(names) == 1 and not is_csv and _ONE_LINE.fullmatch(page.body) is not None


def _no_csv(page: Page, problem: str) -> BadPayloadError:
    if page.hides_content:
        problem = HIDDEN_CONTENT
    return BadPayloadError(
        f"{page.url} answered {page.content_type} that is not CSV as declared: {problem}. Correct "
        "`records` in the source, or ask the API's owner."
    )
