"""Decompresses response bodies completely, up to a size limit (against zip bombs)."""

import io
import re
import zlib
from collections.abc import Callable

GZIP = b"\x1f\x8b"
GZIP_WINDOW, ZLIB_WINDOW, BARE_WINDOW = 31, 15, -15
SLICE_BYTES = 4096
_ZEROS = re.compile(b"\0*")


class TooLargeError(Exception):
    """The body exceeds the limit."""


class TruncatedError(Exception):
    """The body ends before its compressed data does."""


class DecompressionError(Exception):
    """The body is not compressed as declared."""


def decompressed(
    body: bytes,
    content_encoding: str,
    limit_bytes: int,
    check_deadline: Callable[[], None] = lambda: None,
) -> bytes:
    """The body without its codings (RFC 9110, 8.4); a gzip file is decompressed as well.

    `check_deadline` is called before each slice of a few kilobytes, and may raise.

    Raises:
        TooLargeError: the result exceeds the limit.
        TruncatedError: a part of the body is missing.
        DecompressionError: the body is not compressed as declared, or in an unrequested coding.
    """
    try:
        for coding in reversed(content_encoding.lower().split(",")):
            window = _window(coding.strip(), body)
            if window is not None:
                body = _inflate(body, window, limit_bytes, check_deadline)
        if body.startswith(GZIP):
            body = _inflate(body, GZIP_WINDOW, limit_bytes, check_deadline)
    except zlib.error as error:
        raise DecompressionError(str(error)) from error
    return body


def _window(coding: str, body: bytes) -> int | None:
    """The window parameter of zlib for a coding; None for one that changes nothing.

    HTTP's deflate has a zlib header (RFC 1950, 2.2), which some servers omit.
    """
    if coding in {"", "identity"}:
        return None
    if coding in {"gzip", "x-gzip"}:
        return GZIP_WINDOW
    if coding == "deflate":
        has_header = body[:1] == b"\x78" and int.from_bytes(body[:2], "big") % 31 == 0
        return ZLIB_WINDOW if has_header else BARE_WINDOW
    raise DecompressionError(f"it is compressed as {coding!r}, which was not requested")


def _inflate(
    body: bytes, window: int, limit_bytes: int, check_deadline: Callable[[], None]
) -> bytes:
    """The content of one or more members; zeros may pad the last one (RFC 1952, 2.2).

    zlib gets small slices: at the end of a member it copies the rest of its input, which would take
    quadratic time for a body of many small members.
    """
    inflated = io.BytesIO()
    whole, position = memoryview(body), 0
    while position < len(body):
        decompressor = zlib.decompressobj(window)
        while not decompressor.eof:
            check_deadline()
            chunk = whole[position : position + SLICE_BYTES]
            if not chunk:
                raise TruncatedError("its compressed data is truncated")
            inflated.write(decompressor.decompress(chunk, limit_bytes - inflated.tell() + 1))
            if inflated.tell() > limit_bytes:
                raise TooLargeError
            position += len(chunk) - len(decompressor.unused_data)
        position = _end_of_zeros(body, position)
    return inflated.getvalue()


def _end_of_zeros(body: bytes, position: int) -> int:
    zeros = _ZEROS.match(body, position)
    return zeros.end() if zeros else position
