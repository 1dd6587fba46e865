"""How large things are: records, what they take as Python objects, statements with rejects."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flows.load.batch import Reject, UnstorableError
from flows.redaction import CUT_OFF

KEPT_CHARACTERS = 10_000
STATEMENT_BYTES = 1 << 20

# What CPython takes for a record, an object or a list, and for a value or a name, at most.
_CONTAINER_BYTES = 250
_VALUE_BYTES = 70
# A rejected record besides its text; a row that is ready for COPY besides its values.
_REJECT_BYTES = 500
_ROW_BYTES = 40


def objects_bytes(body: bytes, count: int) -> int:
    """About what `count` records of JSON take as Python objects, with their text."""
    containers = count + body.count(b"{") + body.count(b"[")
    values = body.count(b",") + body.count(b":")
    return len(body) + _CONTAINER_BYTES * containers + _VALUE_BYTES * values


def rows_bytes(body: bytes, count: int) -> int:
    """About what `count` records take as rows for COPY, with their text."""
    return 2 * len(body) + _ROW_BYTES * count


def rejects_bytes(rejects: Iterable[Reject]) -> int:
    """About what rejects take."""
    return sum(len(reject.record) + _REJECT_BYTES for reject in rejects)


def too_large(size_bytes: int, limit_bytes: int) -> UnstorableError:
    """Why a record of that size is set aside."""
    return UnstorableError(
        f"has {size_bytes:,} bytes, and the resource's max_record_bytes is {limit_bytes:,}. Raise "
        "it and load again: only the start of the record is kept here"
    )


def too_large_of(records: Sequence[Any], limit_bytes: int) -> dict[int, UnstorableError]:
    """By position, why records that are Python objects are too large."""
    sizes = {number: _size_bytes(record) for number, record in enumerate(records)}
    return {
        number: too_large(size_bytes, limit_bytes)
        for number, size_bytes in sizes.items()
        if size_bytes > limit_bytes
    }


def _size_bytes(record: Any) -> int:
    """About; one that is nested too deeply is set aside for that."""
    try:
        return len(str(record))
    except RecursionError:
        return 0


def kept(record: str, limit_bytes: int) -> str:
    """The text to keep of a rejected record: the start of one that is too large.

    That is a JSON string, so that a replay takes it for no record.
    """
    if len(record) <= limit_bytes:
        return record
    return json.dumps(record[:KEPT_CHARACTERS] + CUT_OFF[-1], ensure_ascii=False)


def reject_batches(rejects: Iterable[Reject]) -> Iterator[list[Reject]]:
    """As many rejects as a statement may hold, but one at least."""
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
