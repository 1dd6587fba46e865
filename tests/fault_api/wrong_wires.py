"""Faults on the way: answers that come late, slowly, in part, without end, or not at all."""

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from tests.fault_api.exchange import JSON_TYPE, Answer
from tests.fault_api.turn import Turn
from tests.fault_api.wire import head

BLOCK_BYTES = 1_000_000
BOMB_BYTES = 200_000_000
OPENING, CLOSING = b'{"items": [], "next": null', b"}"


def latency(turn: Turn, *, seconds: float = 1.0) -> None:
    """The answer begins later."""
    turn.wire.wait(seconds)
    turn.send(turn.answer())


def drip(turn: Turn, *, seconds: float = 0.02) -> None:
    """One byte of the body each `seconds`."""
    answer = turn.answer()
    turn.wire.write(head(answer))
    turn.wire.drip(answer.body, seconds)


def drip_headers(turn: Turn, *, seconds: float = 0.02) -> None:
    """One byte of status line and headers each `seconds`; then the body at once."""
    answer = turn.answer()
    turn.wire.drip(head(answer), seconds)
    turn.wire.write(answer.body)


def hang_up(turn: Turn) -> None:
    """The connection is closed (FIN) before any answer."""
    turn.wire.close()


def reset(turn: Turn, *, sent_bytes: int | None = None) -> None:
    """The connection is reset (RST) in the middle of the body, or after `sent_bytes` of it."""
    _send_beginning(turn, sent_bytes)
    turn.wire.reset()


def reset_at_once(turn: Turn) -> None:
    """The connection is reset (RST) before any answer."""
    turn.wire.reset()


def cut(turn: Turn, *, sent_bytes: int | None = None) -> None:
    """The connection is closed (FIN) in the middle of the body, or after `sent_bytes` of it."""
    _send_beginning(turn, sent_bytes)
    turn.wire.close()


def cut_chunked(turn: Turn, *, sent_bytes: int | None = None) -> None:
    """The same, of a body in chunks: no length tells what is missing, only the last chunk would."""
    answer = _chunked(turn.answer())
    beginning = _beginning(answer, sent_bytes)
    turn.wire.write(head(answer) + b"%x\r\n%b\r\n" % (len(beginning), beginning))
    turn.wire.close()


def huge(turn: Turn, *, size_bytes: int = BOMB_BYTES, is_declared: bool = True) -> None:
    """A body of `size_bytes`, in JSON; its length is announced, or it comes in chunks."""
    answer = Answer(b"", headers={"Content-Type": JSON_TYPE})
    if is_declared:
        turn.wire.write(head(answer, length=size_bytes))
        for block in _blocks(size_bytes):
            turn.wire.write(block)
    else:
        turn.wire.write(head(_chunked(answer)))
        turn.wire.write_chunks(_blocks(size_bytes))


def gzip_bomb(turn: Turn, *, size_bytes: int = BOMB_BYTES, is_file: bool = False) -> None:
    """A body that unpacks to `size_bytes` of JSON; packed for the way, or a gzip file."""
    packed = {"Content-Type": JSON_TYPE, "Content-Encoding": "gzip"}
    headers = {"Content-Type": "application/gzip"} if is_file else packed
    turn.wire.write(head(_chunked(Answer(b"", headers=headers))))
    turn.wire.write_chunks(_packed(_blocks(size_bytes)))


def _send_beginning(turn: Turn, sent_bytes: int | None) -> None:
    """Announce the whole body; where it is empty, one byte more than there is."""
    answer = turn.answer()
    length = max(1, len(answer.body))
    turn.wire.write(head(answer, length=length) + _beginning(answer, sent_bytes))


def _beginning(answer: Answer, sent_bytes: int | None) -> bytes:
    return answer.body[: len(answer.body) // 2 if sent_bytes is None else sent_bytes]


def _chunked(answer: Answer) -> Answer:
    return replace(answer, headers={**answer.headers, "Transfer-Encoding": "chunked"})


def _blocks(size_bytes: int) -> Iterator[bytes]:
    """A page of no items, filled up with spaces, one block after the other."""
    yield OPENING
    left = size_bytes - len(OPENING) - len(CLOSING)
    block = b" " * BLOCK_BYTES
    while left > 0:
        yield block[:left]
        left -= BLOCK_BYTES
    yield CLOSING


def _packed(blocks: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(9, wbits=31)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


FAULTS: Mapping[str, Callable[..., None]] = {
    fault.__name__: fault
    for fault in (
        latency,
        drip,
        drip_headers,
        hang_up,
        reset,
        reset_at_once,
        cut,
        cut_chunked,
        huge,
        gzip_bomb,
    )
}
