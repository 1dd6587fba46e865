"""Records of a ZIP archive with files in CSV, JSON or XML, which becomes JSON once it is read."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import msgspec

from flows.errors import BadPayloadError, ConfigurationError, PayloadTooLargeError
from flows.extract.json_records import RecordsAt
from flows.extract.readable import make_readable
from flows.json_text import json_text
from flows.page import HIDDEN_CONTENT, Page
from flows.source import Resource

Records = Callable[[Page], list[Any]]

MAX_FILES = 10_000
CHUNK_BYTES = 1 << 16
# Others may need gigabytes of memory to be read (LZMA), or are not Python's.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# A ValueError is a name that is no text, or a place before the file's start.
_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    ValueError,
)
_IS_ENCRYPTED = 1
_ENTRY = b"PK\x01\x02"
_FOUND = RecordsAt("")


@dataclass(frozen=True)
class Zipped:
    """The records of all files of an archive whose names match a pattern."""

    records: Records
    files: str
    types: ClassVar[tuple[str, ...]] = ("zip",)

    def __post_init__(self) -> None:
        """Refuse an archive in an archive, a source's own function, and no pattern."""
        is_own = not getattr(self.records, "types", ())
        if is_own or isinstance(self.records, Zipped) or not self.files:
            raise ConfigurationError(
                "zipped needs one of the other selectors for its files, and a pattern of names: "
                "zipped(csv_rows(), files='*.csv'). To change records, declare map_record."
            )

    def to_json(self, page: Page, resource: Resource) -> bytes:
        """The records of all files in one JSON list.

        Raises:
            BadPayloadError: the body is no complete archive, no file matches, or one can't be read.
            PayloadTooLargeError: the files, or their records in JSON, exceed `max_body_bytes`.
        """
        texts = io.BytesIO()
        for text in self._texts(page, resource):
            texts.write(b"," if texts.tell() else b"[")
            texts.write(text)
            _check_size(page, texts.tell(), "records in JSON")
        return texts.getvalue() + b"]" if texts.tell() else b"[]"

    def __call__(self, page: Page) -> list[Any]:
        """The records of the JSON list."""
        return _FOUND(page)

    def raw(self, page: Page) -> bytes | None:
        """The unparsed list."""
        return _FOUND.raw(page)

    def _texts(self, page: Page, resource: Resource) -> Iterator[bytes]:
        for name, body in self._members(page):
            url = page.url if page.hides_content else f"{page.url} ({name})"
            file = Page(body, url, "no type", request=page.request, max_bytes=page.max_bytes)
            file = replace(file, find=self.records, keeps_digits=True)
            make_readable(file, resource, self.records)
            for record in file.found:
                is_raw = isinstance(record, msgspec.Raw)
                yield bytes(record) if is_raw else json_text(record).encode()

    def _members(self, page: Page) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the files, unpacked one by one."""
        total = 0
        try:
            with zipfile.ZipFile(io.BytesIO(_checked(page))) as archive:
                for entry in self._chosen(page, archive):
                    with archive.open(entry) as file:
                        body = _read(page, file, total)
                    total += len(body)
                    yield entry.filename, body
        except _DAMAGES as error:
            raise _no_archive(page, str(error) or "it is truncated") from None

    def _chosen(self, page: Page, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        chosen = [entry for entry in entries if fnmatchcase(entry.filename, self.files)]
        if not chosen:
            names = ", ".join(entry.filename for entry in entries[:10]) or "no file"
            raise _no_archive(page, f"no file matches {self.files!r}, but it has {names}")
        for entry in chosen:
            if entry.flag_bits & _IS_ENCRYPTED:
                raise _no_archive(page, f"{entry.filename} is encrypted")
            if entry.compress_type not in METHODS:
                raise _no_archive(page, f"{entry.filename} is not compressed with deflate")
        return chosen


def zipped(records: Records, files: str = "*") -> Zipped:
    """The records of the files in a ZIP archive, each read by `records`.

    `files` chooses them by their names, as a shell does: `*.csv`, `orders-*.json`. One has to
    match. They are read in the archive's order.
    """
    return Zipped(records, files)


def _checked(page: Page) -> bytes:
    if page.body.count(_ENTRY) > MAX_FILES:
        raise _no_archive(page, f"it has over {MAX_FILES:,} files")
    return page.body


def _read(page: Page, file: Any, total: int) -> bytes:
    """A file's content, read up to the limit: what the archive says of its size may be wrong."""
    content = io.BytesIO()
    while chunk := file.read(CHUNK_BYTES):
        content.write(chunk)
        _check_size(page, total + content.tell(), "files")
    return content.getvalue()


def _check_size(page: Page, size_bytes: int, what: str) -> None:
    if size_bytes > page.max_bytes:
        raise PayloadTooLargeError(
            f"{page.url}: the archive's {what} have more than {page.max_bytes:,} bytes, the "
            "source's max_body_bytes. Request smaller archives, or raise it."
        )


def _no_archive(page: Page, problem: str) -> BadPayloadError:
    if page.hides_content:
        problem = HIDDEN_CONTENT
    return BadPayloadError(
        f"{page.url} answered {len(page.body)} bytes of {page.content_type} that can't be read as "
        f"a ZIP archive: {problem}; they begin {page.start_of()!r}. Correct `records` in the "
        "source, or ask the API's owner."
    )
