"""A load in its own process, which reports its peak memory.

`python measured_load.py <dsn> <shape> <MiB>`; the output is JSON.
"""

import io
import json
import sys
from contextlib import closing
from itertools import count
from typing import Any

import psycopg2

from flows.extract.selectors import ndjson, record_at, records_at
from tests.benchmark.measurement import peak_rss_mib
from tests.load.memory_api import MemoryApi, items, load_api

MIB = 1 << 20


# How a page's records are written, and what else the resource declares.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ('{"id":%d}', {}),
    "tiny, appended": ('{"id":%d}', {"key": ()}),
    "tiny, replaced": ('{"id":%d}', {"disposition": "replace"}),
    "tiny lines": ('{"id":%d}', {"records": ndjson()}),
    "nested": ('{"id":%d,"v":{"a":[{},{}]}}', {}),
    "half a pair each": (r'{"id":%d,"v":"\ud800"}', {"max_rejects": 10**9}),
    "no objects": ("%d", {"max_rejects": 10**9}),
    "1,500 columns": (
        '{"id":%d,' + ",".join(f'"c{number}":true' for number in range(1500)) + "}",
        {},
    ),
    "one record": ("[{},%d]", {"records": record_at(), "max_rejects": 1}),
}


def body_of(shape: str, size_bytes: int) -> bytes:
    """A body of about this size, made without much memory."""
    template, _ = SHAPES[shape]
    separator = b"\n" if shape == "tiny lines" else b","
    start, end = (b"", b"") if shape == "tiny lines" else (b"[", b"]")
    if shape == "one record":
        start, end = b'{"id":1,"v":[', b"]}"
    body = io.BytesIO()
    body.write(start)
    for number in count():
        body.write((template % number).encode())
        if body.tell() >= size_bytes:
            break
        body.write(separator)
    body.write(end)
    return body.getvalue()


def main() -> None:
    """Load one page and report the memory it took."""
    dsn, shape, size_mib = sys.argv[1:]
    declared = {"records": records_at(), "checkpoint_rows": 50_000, **SHAPES[shape][1]}
    body = body_of(shape, int(float(size_mib) * MIB))
    with closing(psycopg2.connect(dsn)) as connection:
        entry = load_api(connection, MemoryApi([body]), items(**declared))
    answer = {"extracted": entry.extracted, "rejected": entry.rejected, "peak_mib": peak_rss_mib()}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
