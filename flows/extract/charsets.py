"""Text in UTF-8, whatever encoding the API sends, so that all later code reads only UTF-8."""

import codecs
import json
from email.message import Message

from flows.errors import BadPayloadError
from flows.page import Page
from flows.source import NOT_FOR_TEXT, Resource

# The UTF-32 marks come first: the one for little-endian begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def to_utf8(page: Page, resource: Resource) -> bytes:
    """The page's body in UTF-8, without its byte order mark.

    The first of these that applies names the body's encoding: a byte order mark; the resource's
    `encoding`; for JSON, UTF-8 if the bytes are valid in it (RFC 8259, 8.1); the Content-Type's
    charset; UTF-8. A body in UTF-8 is not decoded here: what is wrong in it is found where it is
    read. Neither is one that is not text: only a function of the source's own can read that.

    Raises:
        BadPayloadError: when the body is not valid in that encoding, or Python has no such one.
    """
    if not _is_text(page, resource):
        return page.body
    for mark, encoding in BYTE_ORDER_MARKS:
        if page.body.startswith(mark):
            body = page.body[len(mark) :]
            return _transcoded(page, body, encoding, "its byte order mark names")
    if resource.encoding:
        return _transcoded(page, page.body, resource.encoding, "the resource declares")
    named = _named(page)
    if named is None or (_is_json(page, resource) and _is_valid_json_text(page.body)):
        return page.body
    return _transcoded(page, page.body, named, "its Content-Type names")


def _transcoded(page: Page, body: bytes, encoding: str, who_says_so: str) -> bytes:
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
            f"{page.url} answered text that is not {encoding}, which {who_says_so}: byte "
            f"0x{wrong:02x} at position {error.start + len(page.body) - len(body)} is invalid "
            f"({error.reason}). Declare the resource's `encoding`, or ask the API's owner."
        ) from error
    except (LookupError, ValueError) as error:
        raise BadPayloadError(
            f"{page.url} answered text in an encoding that Python doesn't know: {encoding!r}, "
            f"which {who_says_so}. Declare the resource's `encoding`."
        ) from error


def _named(page: Page) -> str | None:
    header = Message()
    header["Content-Type"] = page.content_type
    return header.get_content_charset()


def _is_text(page: Page, resource: Resource) -> bool:
    """Whether the body is text; a function of the source's own may read images as well."""
    kind = page.content_type.lower()
    is_declared = bool(resource.encoding or getattr(resource.records, "types", ()))
    return is_declared or kind.startswith("text/") or "json" in kind


def _is_json(page: Page, resource: Resource) -> bool:
    types: tuple[str, ...] = getattr(resource.records, "types", ())
    return "json" in types if types else "json" in page.content_type.lower()


def _is_valid_json_text(body: bytes) -> bool:
    """Whether JSON is in the encoding that its first bytes show (UTF-8, UTF-16 or UTF-32)."""
    try:
        body.decode(json.detect_encoding(body), "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True
