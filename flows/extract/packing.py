"""Unpacking what an API packed: up to a limit, so that no bomb goes off, and to its very end."""

import zlib

GZIP = b"\x1f\x8b"
GZIP_WINDOW, ZLIB_WINDOW, BARE_WINDOW = 31, 15, -15


class TooLargeError(Exception):
    """The body goes beyond the limit."""


class CutShortError(Exception):
    """The body ends before what is packed in it."""


class UnpackError(Exception):
    """The body is not packed as it says."""


def unpacked(body: bytes, content_encoding: str, limit_bytes: int) -> bytes:
    """The body without its codings (RFC 9110, 8.4), and what it holds where it is a gzip file.

    Raises:
        TooLargeError: when that is more than the limit.
        CutShortError: when a part of it is missing.
        UnpackError: when it is not packed so, or packed in a way that we did not ask for.
    """
    try:
        for coding in reversed(content_encoding.lower().split(",")):
            window = _window(coding.strip(), body)
            body = body if window is None else _inflated(body, window, limit_bytes)
        if body.startswith(GZIP):
            body = _inflated(body, GZIP_WINDOW, limit_bytes)
    except zlib.error as error:
        raise UnpackError(str(error)) from error
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
    raise UnpackError(f"it is packed as {coding!r}, which was not asked for")


def _inflated(body: bytes, window: int, limit_bytes: int) -> bytes:
    """What one or more members hold; zeros may fill up the last one (RFC 1952, 2.2)."""
    parts: list[bytes] = []
    size_bytes = 0
    while body:
        unpacker = zlib.decompressobj(window)
        parts.append(unpacker.decompress(body, limit_bytes - size_bytes + 1))
        size_bytes += len(parts[-1])
        if size_bytes > limit_bytes:
            raise TooLargeError
        if not unpacker.eof:
            raise CutShortError("what is packed in it goes on")
        body = unpacker.unused_data.lstrip(b"\0")
    return b"".join(parts)
