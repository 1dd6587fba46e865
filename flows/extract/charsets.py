"""Converts text in any encoding to UTF-8, so all later code reads only UTF-8."""

import codecs
import json
import re
from collections.abc import Callable
from email.message import Message
from typing import Any

from flows.checks.api_requests import NOT_FOR_TEXT
from flows.errors import BadPayloadError
from flows.page import Page
from flows.source import Resource

# The UTF-32 marks come first: the one for little-endian starts with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


_XML_DECLARATION = re.compile(rb"<\?xml[^>]*?\sencoding\s*=\s*[\"']([A-Za-z0-9._-]+)")


def to_utf8(
    page: Page, resource: Resource, records: Callable[[Page], list[Any]] | None = None
) -> bytes:
    """The page's body in UTF-8, without its byte order mark.

    The first of these that applies names the body's encoding: a byte order mark; the resource's
    `encoding`; for JSON, UTF-8 if the bytes are valid in it (RFC 8259, 8.1); the Content-Type's
    charset; for XML, its declaration; UTF-8. A body in UTF-8 is not decoded here: its parser finds
    invalid bytes. A body that is not text is not decoded either: only a source's own function can
    read it. `records` reads the page: the resource's own, or those of a file in its archive.

    Raises:
        BadPayloadError: the body is not valid in that encoding, or Python does not know it.
    """
    types: tuple[str, ...] = getattr(records or resource.records, "types", ())
    if not _is_text(page, resource, types):
        return page.body
    for mark, encoding in BYTE_ORDER_MARKS:
        if page.body.startswith(mark):
            body = page.body[len(mark) :]
            return _transcode(page, body, encoding, "its byte order mark names")
    if resource.encoding:
        return _transcode(page, page.body, resource.encoding, "the resource declares")
    charset = _parse_charset(page)
    if charset is None and "xml" in types and (found := _XML_DECLARATION.match(page.body)):
        return _transcode(page, page.body, found[1].decode(), "its declaration names")
    if charset is None or (_is_json(page, types) and _is_valid_json_text(page.body)):
        return page.body
    return _transcode(page, page.body, charset, "its Content-Type names")


def _transcode(page: Page, body: bytes, encoding: str, named_by: str) -> bytes:
    try:
        name = codecs.lookup(encoding).name
        if name == "utf-8":
            return body
        if name in NOT_FOR_TEXT:
            raise LookupError(f"{encoding!r} is not an encoding of text")
        return body.decode(encoding, "surrogatepass").encode(errors="surrogatepass")
    except UnicodeDecodeError as error:
        wrong = body[error.start]
        raise BadPayloadError(
            f"{page.url} answered text that is not {encoding}, which {named_by}: byte "
            f"0x{wrong:02x} at position {error.start + len(page.body) - len(body)} is invalid "
            f"({error.reason}). Declare the resource's `encoding`, or ask the API's owner."
        ) from error
    except (LookupError, ValueError) as error:
        raise BadPayloadError(
            f"{page.url} answered text in an encoding that Python doesn't know: {encoding!r}, "
            f"which {named_by}. Declare the resource's `encoding`."
        ) from error


def _parse_charset(page: Page) -> str | None:
    header = Message()
    header["Content-Type"] = page.content_type
    return header.get_content_charset()


def _is_text(page: Page, resource: Resource, types: tuple[str, ...]) -> bool:
    """Whether the body is text; a source's own function may read images."""
    kind = page.content_type.lower()
    is_declared = bool(resource.encoding or types)
    return is_declared or kind.startswith("text/") or "json" in kind


def _is_json(page: Page, types: tuple[str, ...]) -> bool:
    return "json" in types if types else "json" in page.content_type.lower()


def _is_valid_json_text(body: bytes) -> bool:
    """Whether JSON is valid in the encoding its first bytes indicate (UTF-8, UTF-16, UTF-32)."""
    try:
        body.decode(json.detect_encoding(body), "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
