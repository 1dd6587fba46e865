"""Unpacking takes time and memory in proportion to the body, whatever its members."""

import gzip
import zlib
from typing import Any

import pytest

from flows.errors import UnavailableError
from flows.extract import decompression
from flows.extract.client import Client
from flows.extract.decompression import SLICE_BYTES, decompressed
from flows.source import Source
from tests.http_servers import Answer, Serve

EMPTY_MEMBER = gzip.compress(b"")
LIMIT_BYTES = 1 << 20


class Counted:
    """zlib, counting the bytes that it copies because they are behind a member's end."""

    error = zlib.error

    def __init__(self) -> None:
        self.copied_bytes = 0

    def decompressobj(self, window: int) -> "CountedUnpacker":
        return CountedUnpacker(self, zlib.decompressobj(window))


class CountedUnpacker:
    def __init__(self, counted: Counted, unpacker: Any) -> None:
        self._counted, self._unpacker = counted, unpacker

    def decompress(self, *given: Any) -> bytes:
        plain: bytes = self._unpacker.decompress(*given)
        self._counted.copied_bytes += len(self._unpacker.unused_data)
        return plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._unpacker, name)


def test_a_body_of_many_members_takes_work_in_proportion_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = Counted()
    monkeypatch.setattr(decompression, "zlib", counted)
    members = 10_000
    assert decompressed(EMPTY_MEMBER * members, "gzip", LIMIT_BYTES) == b""
    assert 0 < counted.copied_bytes <= members * SLICE_BYTES


def test_members_may_end_anywhere_in_what_zlib_gets_at_a_time() -> None:
    parts = [b"%d " % number * 7 for number in range(3000)]
    body = b"".join(gzip.compress(part) + bytes(number % 5) for number, part in enumerate(parts))
    assert decompressed(body, "gzip", LIMIT_BYTES) == b"".join(parts)
    for cut in (len(body) - 9, len(body) // 2 + 1):
        with pytest.raises((decompression.TruncatedError, decompression.DecompressionError)):
            decompressed(body[:cut], "gzip", LIMIT_BYTES)


def test_unpacking_heeds_the_deadline_of_the_answer(serve: Serve) -> None:
    server = serve(lambda _: Answer(EMPTY_MEMBER * 1_000_000, headers={"Content-Encoding": "gzip"}))
    shop = Source("shop", server.url, (), answer_timeout_seconds=0.5, max_wait_seconds=0)
    with Client(shop) as client, pytest.raises(UnavailableError, match="in time"):
        client.get(server.url)
