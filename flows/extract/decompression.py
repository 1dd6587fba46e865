"""Unpacking what an API packed: up to a limit, so that no bomb goes off, and to its very end."""

import io
import re
import zlib
from collections.abc import Callable

GZIP = b"\x1f\x8b"
GZIP_WINDOW, ZLIB_WINDOW, BARE_WINDOW = 31, 15, -15
SLICE_BYTES = 4096
_ZEROS = re.compile(b"\0*")


class TooLargeError(Exception):
    """The body goes beyond the limit."""


class TruncatedError(Exception):
    """The body ends before what is packed in it."""


class DecompressionError(Exception):
    """The body is not packed as it says."""


def decompressed(
    body: bytes,
    content_encoding: str,
    limit_bytes: int,
    check_deadline: Callable[[], None] = lambda: None,
) -> bytes:
    """The body without its codings (RFC 9110, 8.4), and what it holds where it is a gzip file.

    `check_deadline` is called before each slice of a few kilobytes; what it raises ends the work.

    Raises:
        TooLargeError: when that is more than the limit.
        CutShortError: when a part of it is missing.
        UnpackError: when it is not packed so, or packed in a way that we did not ask for.
    """
    try:
        for coding in reversed(content_encoding.lower().split(",")):
            window = _window(coding.strip(), body)
            if window is not None:
                body = _inflated(body, window, limit_bytes, check_deadline)
        if body.startswith(GZIP):
            body = _inflated(body, GZIP_WINDOW, limit_bytes, check_deadline)
    except zlib.error as error:
        raise DecompressionError(str(error)) from error
    return body


def _window(coding: str, body: bytes) -> int | None:
    """How zlib calls a coding; None for one that changes nothing.

    What HTTP calls deflate has a zlib header (RFC 1950, 2.2), which some servers leave out.
    """
    if coding in {"", "identity"}:
        return None
    if coding in {"gzip", "x-gzip"}:
        return GZIP_WINDOW
    if coding == "deflate":
        has_header = body[:1] == b"\x78" and int.from_bytes(body[:2], "big") % 31 == 0
        return ZLIB_WINDOW if has_header else BARE_WINDOW
    raise DecompressionError(f"it is packed as {coding!r}, which was not asked for")


def _inflated(
    body: bytes, window: int, limit_bytes: int, check_deadline: Callable[[], None]
) -> bytes:
    """What one or more members hold; zeros may fill up the last one (RFC 1952, 2.2).

    zlib gets one small slice after the other: at the end of a member it copies what is left of its
    input, which would take quadratic time for a body of many small members.
    """
    inflated = io.BytesIO()
    whole, position = memoryview(body), 0
    while position < len(body):
        unpacker = zlib.decompressobj(window)
        while not unpacker.eof:
            check_deadline()
            given = whole[position : position + SLICE_BYTES]
            if not given:
                raise TruncatedError("what is packed in it goes on")
            inflated.write(unpacker.decompress(given, limit_bytes - inflated.tell() + 1))
            if inflated.tell() > limit_bytes:
                raise TooLargeError
            position += len(given) - len(unpacker.unused_data)
        position = _end_of_zeros(body, position)
    return inflated.getvalue()


def _end_of_zeros(body: bytes, position: int) -> int:
    zeros = _ZEROS.match(body, position)
    return zeros.end() if zeros else position
