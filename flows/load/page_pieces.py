"""Cuts a page into pieces of at most half a mebibyte, so few records are Python objects at a time.

Python objects take ten to thirty times the bytes of small records. Pieces are cut by bytes,
without an object for each record.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import msgspec

from flows.load.raw_records import raw_texts
from flows.page import Page, cuts_out
from flows.source import Resource

Records = Callable[[Page], list[Any]]

PIECE_BYTES = 1 << 19
# A piece ends at the last of these places that is not inside a record.
_PLACES = (re.compile(rb"(?<=\})\s*,\s*\{"), re.compile(b","))
_SEARCHED_BYTES = 1 << 14
_TRIES = 16
_BRACKETS = len("[]")


class Whole:
    """All of a page is its list of records."""

    def __call__(self, page: Page) -> list[Any]:
        """The records as Python objects."""
        records: list[Any] = page.document
        return records

    def raw(self, page: Page) -> bytes:
        """The body."""
        return page.body


WHOLE = Whole()


def pieces(page: Page, records: Records, size_bytes: int) -> Iterator[tuple[Page, bool]]:
    """The pieces, each with a flag for the last one; only that has the page's resume point.

    A piece of more than `size_bytes` is a single record (see `only_record`), or a page whose
    records function does not show where the records are.
    """
    parts = _parts(page, records, size_bytes)
    if parts is None:
        yield page, True
        return
    resume, last = page.resume, next(parts)
    for part in parts:
        yield replace(page, body=last[0], find=last[1], resume=None), False
        last = part
    yield replace(page, body=last[0], find=last[1], resume=resume), True


def finder(page: Page, resource: Resource) -> Records:
    """The function that finds the records of a page or of a piece."""
    return page.find or resource.records


def only_record(piece: Page, size_bytes: int) -> bytes | None:
    """The only record of a piece that exceeds `size_bytes`; None for other pieces."""
    is_larger = piece.find is WHOLE and len(piece.body) - _BRACKETS > size_bytes
    return piece.body[1:-1] if is_larger else None


def _parts(page: Page, records: Records, size_bytes: int) -> Iterator[tuple[bytes, Records]] | None:
    """Bodies, each with the function that finds its records; None for a page that is not cut."""
    if page.is_empty or len(page.body) <= size_bytes:
        return None
    separator: bytes | None = getattr(records, "separator", None)
    if separator is not None:
        return _lines(page.body, records, separator, size_bytes)
    bodies = _bodies(page, records, size_bytes)
    return None if bodies is None else ((body, WHOLE) for body in bodies)


def _lines(
    body: bytes, records: Records, separator: bytes, size_bytes: int
) -> Iterator[tuple[bytes, Records]]:
    start = 0
    while start < len(body):
        stop = start + size_bytes
        end = len(body) if stop >= len(body) else body.rfind(separator, start, stop) + 1
        if end:
            yield body[start:end], records
        else:
            end = body.find(separator, stop) + 1 or len(body)
            yield b"[%b]" % body[start:end].strip(), WHOLE
        start = end


def _bodies(page: Page, records: Records, size_bytes: int) -> Iterator[bytes] | None:
    raw = records.raw(page) if cuts_out(records) else None
    if raw is not None and raw.lstrip()[:1] == b"[" and _is_json(raw):
        return _cut(raw, size_bytes)
    texts = raw_texts(page, records) if cuts_out(records) else None
    return None if texts is None else _grouped(map(str.encode, texts), size_bytes)


def _cut(raw: bytes, size_bytes: int) -> Iterator[bytes]:
    """Shorter lists of records cut from a long one; large records are cut out one by one."""
    start = raw.index(b"[") + 1
    while len(raw) - start > size_bytes:
        end = _last_end(raw, start, size_bytes)
        if end is None:
            rows = msgspec.json.decode(b"[" + raw[start:], type=list[msgspec.Raw])
            yield from _grouped(map(bytes, rows), size_bytes)
            return
        yield b"[%b]" % raw[start:end]
        start = raw.index(b",", end) + 1
    yield b"[" + raw[start:]


def _last_end(raw: bytes, start: int, size_bytes: int) -> int | None:
    """The end of the last record that fits into a piece; None if it is not easily found.

    If the text up to a place is a JSON list, the place is between two records, not inside one.
    """
    stop = start + size_bytes
    for pattern in _PLACES:
        places = pattern.finditer(raw, max(start, stop - _SEARCHED_BYTES), stop)
        for place in reversed(list(places)[-_TRIES:]):
            if _is_json(b"[%b]" % raw[start : place.start()]):
                return place.start()
    return None


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _grouped(rows: Iterable[bytes], size_bytes: int) -> Iterator[bytes]:
    """Lists of as many records as fit; a larger one is alone. Without records, an empty list."""
    group: list[bytes] = []
    group_bytes = 0
    for row in rows:
        if group and group_bytes + len(row) > size_bytes:
            yield b"[%b]" % b",".join(group)
            group, group_bytes = [], 0
        group.append(row)
        group_bytes += len(row) + 1
    yield b"[%b]" % b",".join(group)
