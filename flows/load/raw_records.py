"""Records as the API wrote them, cut out of a page, for rejects."""

import json
import re
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import msgspec

from flows.errors import BadPayloadError
from flows.json_text import json_text, mask_halves, unmask_halves
from flows.load.batch import UnstorableError, shown
from flows.page import EXACT_NUMBERS, Page, RawSelector, cuts_out

Records = Callable[[Page], list[Any]]

_SURROGATE = re.compile("[\ud800-\udfff]")


class RawTexts:
    """The texts of a page's records, cut out when they are needed."""

    def __init__(self, page: Page, records: Records, left_out: Collection[int] = ()) -> None:
        self._page = replace(page)
        self._records = records
        self._left_out = left_out

    def __call__(self) -> list[str] | None:
        """The texts in order, without those at the positions `left_out`; None if unknown.

        Runs in a new thread, which allows the same recursion depth as the one that read the page.
        """
        with ThreadPoolExecutor(1) as thread:
            texts = thread.submit(raw_texts, self._page, self._records).result()
        if texts is None or not self._left_out:
            return texts
        return [text for position, text in enumerate(texts) if position not in self._left_out]


def read(page: Page, records: Records) -> tuple[list[Any], dict[int, UnstorableError]]:
    """A page's records (None for unreadable ones), and by position why one can't be read.

    Python refuses a page for one integer of over 4,300 digits or one value that is nested about
    a thousand times; then the records are read one by one.
    """
    try:
        return records(page), {}
    except BadPayloadError:
        texts = raw_texts(page, records) if cuts_out(records) else None
        if texts is None:
            raise
    found = [_read_one(text) for text in texts]
    reasons = {number: e for number, e in enumerate(found) if isinstance(e, UnstorableError)}
    return [None if number in reasons else e for number, e in enumerate(found)], reasons


def _read_one(text: str) -> Any:
    """The record; numbers that are too long for Python are beyond double as well."""
    try:
        return json.loads(text, **EXACT_NUMBERS)
    except RecursionError:
        field = _deepest(text)
        where = f" in the field {shown(field)}" if field else ""
        return UnstorableError(f"is nested too deeply for Python to read{where}", field)
    except ValueError as error:
        return UnstorableError(f"can't be read: {error}")


def _deepest(text: str) -> str:
    """The first field whose value Python can't read; empty if unknown."""
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return ""
    return next((field for field, value in members.items() if _is_too_deep(value)), "")


def _is_too_deep(value: msgspec.Raw) -> bool:
    try:
        json.loads(bytes(value), **EXACT_NUMBERS)
    except RecursionError:
        return True
    return False


def raw_texts(page: Page, records: Records) -> list[str] | None:
    """Each record as the API sent it, or as a source's own function returns it; None if both fail.

    msgspec cuts the texts. It accepts UTF-8 only, without halves of surrogate pairs, so their
    escapes are masked by escapes that do not occur in the page.
    """
    try:
        if not cuts_out(records):
            return [json_text(record) for record in records(replace(page))]
        text = page.body.decode(json.detect_encoding(page.body), "surrogatepass")
        masked = mask_halves(text)
        if masked is None:
            return _cut(page, records, text)
        return [unmask_halves(cut) for cut in _cut(page, records, masked)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _cut(page: Page, records: RawSelector, text: str) -> list[str]:
    body = text.encode(errors="surrogatepass")
    rows = msgspec.json.decode(records.raw(replace(page, body=body)) or b"", type=list[msgspec.Raw])
    texts = (bytes(row).decode(errors="surrogatepass") for row in rows)
    return [_SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text) for text in texts]
