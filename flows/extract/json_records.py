"""Records of a JSON body: a list or an object at a path, columns, lines."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import eq
from typing import Any, ClassVar

import msgspec

from flows.errors import BadPayloadError
from flows.page import HIDDEN_CONTENT, Page
from flows.source import Record


@dataclass(frozen=True)
class RecordsAt:
    """A list of records under `path`; the load layer may parse it by itself, by `raw`."""

    path: str
    optional: bool = False
    types: ClassVar[tuple[str, ...]] = ("json", "javascript")

    def __call__(self, page: Page) -> list[Any]:
        if self.optional and self._has_none(page):
            return []
        found = at_path(page, self.path)
        if not isinstance(found, list):
            raise unexpected(page, self.path, "a list of records", found)
        return found

    def raw(self, page: Page) -> bytes | None:
        """The unparsed bytes of the list; None if the path is missing."""
        if self.optional and self._has_none(page):
            return b"[]"
        found: bytes | msgspec.Raw | None = page.body
        for name in filter(None, self.path.split(".")):
            members = page.members if found is page.body else members_of(found)
            found = members.get(name) if members else None
        return None if found is None else bytes(found)

    def _has_none(self, page: Page) -> bool:
        """Whether the page is an object where the path, or a part of it, is null or missing."""
        members = page.members
        for name in self.path.split("."):
            if members is None:
                return False
            found = members.get(name)
            if found is None or bytes(found).strip() == b"null":
                return True
            members = members_of(found)
        return False


@dataclass(frozen=True)
class RecordAt:
    """One record under `path`."""

    path: str
    types: ClassVar[tuple[str, ...]] = RecordsAt.types

    def __call__(self, page: Page) -> list[Any]:
        """The record, in a list."""
        found = at_path(page, self.path)
        if not isinstance(found, dict):
            raise unexpected(page, self.path, "an object", found)
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
        found = at_path(page, self.path)
        if not isinstance(found, dict) or not all(isinstance(v, list) for v in found.values()):
            raise unexpected(page, self.path, "an object of arrays", found)
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


def _lines(page: Page) -> list[bytes]:
    return [line for line in map(bytes.strip, page.body.split(b"\n")) if line]


def _line(page: Page, line: bytes) -> Any:
    try:
        return replace(page, body=line).document
    except BadPayloadError as error:
        raise BadPayloadError(f"One of the lines is not JSON. {error}") from error


def members_of(found: bytes | msgspec.Raw | None) -> Mapping[str, msgspec.Raw] | None:
    """The members of a JSON object, unparsed; None if it is none."""
    try:
        return msgspec.json.decode(found or b"", type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def at_path(page: Page, path: str) -> Any:
    """The value at a path of the document. Raises as `unexpected` says."""
    found = page.document
    for name in filter(None, path.split(".")):
        if not isinstance(found, dict) or name not in found:
            raise unexpected(page, path, f"the field {name!r}", found)
        found = found[name]
    return found


def unexpected(page: Page, path: str, wanted: str, found: Any) -> BadPayloadError:
    """The error for a body that has something else at a path of `records`."""
    shape = sorted(found)[:10] if isinstance(found, dict) else type(found).__name__
    return BadPayloadError(
        f"{page.url} should have {wanted} at {path or 'its root'!r}, but there is "
        f"{HIDDEN_CONTENT if page.hides_content else shape}. "
        "Correct `records` in the source, or ask the API's owner."
    )
