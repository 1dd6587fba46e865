"""Pages whose number the API states: its answers, and this project's load of them."""

import time
from contextlib import closing
from functools import partial

import psycopg2

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import page_number
from flows.extract.selectors import records_at
from flows.load.loader import load as load_partition
from flows.source import Partition, Resource, Source
from tests.benchmark.tools import CONCURRENCY, COUNTED_MS, COUNTED_PAGES, Task


def answer(number: int, rows: bytes) -> bytes:
    """A page, after some time."""
    time.sleep(COUNTED_MS / 1000)
    return b'{"pages":%d,"number":%d,"rows":%s}' % (COUNTED_PAGES, number, rows)


def least_seconds(tool: str) -> float:
    """What the answers take, as many at once as the tool requests."""
    return COUNTED_PAGES * COUNTED_MS / 1000 / concurrency(tool)


def concurrency(tool: str) -> int:
    return CONCURRENCY if tool == "this" else 1


def load(task: Task) -> None:
    """Load all pages, side by side or one after the other."""
    flights = Resource(
        "flights", task.path, records_at("rows"), paging=page_number(total_pages="pages"),
        key=("rowid",),
    )  # fmt: skip
    source = Source("counted", task.base_url, (flights,), concurrency=concurrency(task.tool))
    with Client(source) as client, closing(psycopg2.connect(task.database)) as connection:
        pages = partial(read_pages, client, source, flights, Partition())
        load_partition(connection, source.name, flights, Partition(), pages)
