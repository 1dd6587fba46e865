"""Sizes of records, their memory as Python objects, and statements with rejects."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flows.load.batch import Reject, UnstorableError
from flows.redaction import CUT_OFF

KEPT_CHARACTERS = 10_000
STATEMENT_BYTES = 1 << 20

# Upper bounds of CPython's memory for a record, an object or a list, and for a value or a name.
_CONTAINER_BYTES = 250
_VALUE_BYTES = 70
# A rejected record besides its text; a row that is ready for COPY besides its values.
_REJECT_BYTES = 500
_ROW_BYTES = 40


def objects_bytes(body: bytes, count: int) -> int:
    """An estimate of the memory of `count` JSON records as Python objects, with their text."""
    containers = count + body.count(b"{") + body.count(b"[")
    values = body.count(b",") + body.count(b":")
    return len(body) + _CONTAINER_BYTES * containers + _VALUE_BYTES * values


def rows_bytes(body: bytes, count: int) -> int:
    """An estimate of the memory of `count` records as rows for COPY, with their text."""
    return 2 * len(body) + _ROW_BYTES * count


def rejects_bytes(rejects: Iterable[Reject]) -> int:
    """An estimate of the memory of rejects."""
    return sum(len(reject.record) + _REJECT_BYTES for reject in rejects)


def too_large(size_bytes: int, limit_bytes: int) -> UnstorableError:
    """The reason for rejecting a record of that size."""
    return UnstorableError(
        f"has {size_bytes:,} bytes, and the resource's max_record_bytes is {limit_bytes:,}. Raise "
        "it and load again: only the start of the record is kept here"
    )


def too_large_of(records: Sequence[Any], limit_bytes: int) -> dict[int, UnstorableError]:
    """By position, the reasons for rejecting records (Python objects) that are too large."""
    sizes = {number: _size_bytes(record) for number, record in enumerate(records)}
    return {
        number: too_large(size_bytes, limit_bytes)
        for number, size_bytes in sizes.items()
        if size_bytes > limit_bytes
    }


def _size_bytes(record: Any) -> int:
    """An estimate; 0 for a record that is nested too deeply, which is rejected for that."""
    try:
        return len(str(record))
    except RecursionError:
        return 0


def kept(record: str, limit_bytes: int) -> str:
    """The text of a rejected record to keep: of one that is too large, only the start.

    The start is kept as a JSON string, so a replay rejects it.
    """
    if len(record) <= limit_bytes:
        return record
    return json.dumps(record[:KEPT_CHARACTERS] + CUT_OFF[-1], ensure_ascii=False)


def reject_batches(rejects: Iterable[Reject]) -> Iterator[list[Reject]]:
    """Batches of rejects that fit into a statement; at least one reject each."""
    batch: list[Reject] = []
    batch_bytes = 0
    for reject in rejects:
        size_bytes = rejects_bytes([reject])
        if batch and batch_bytes + size_bytes > STATEMENT_BYTES:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(reject)
        batch_bytes += size_bytes
    if batch:
        yield batch
