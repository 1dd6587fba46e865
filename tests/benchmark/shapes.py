"""Bodies of odd shapes, a page each, and this project's load of one: what memory do they take?"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.selectors import records_at
from flows.load.loader import load as load_partition
from flows.page import Page, Resume
from flows.source import Partition, Resource, Source, Window
from tests.benchmark.measurement import peak_rss_mib
from tests.benchmark.tools import Task

BODY_BYTES = 60_000_000
COLUMNS = 1500


@dataclass(frozen=True)
class Shape:
    """A page's records: `rows` of them, made from a template with a place for the number."""

    title: str
    template: bytes
    rows: int

    def body(self) -> bytes:
        """The page, a list of records."""
        return b"[%b]" % b",".join(self.template % number for number in range(self.rows))


def filling(title: str, template: bytes) -> Shape:
    """As many records as fill a body."""
    return Shape(title, template, BODY_BYTES // len(b"%b," % (template % 1_000_000)))


_WIDE = b",".join(b'"c%d":true' % number for number in range(COLUMNS))

SHAPES = {
    "tiny": filling("tiny objects", b'{"id":%d}'),
    "nested": filling("tiny objects in objects", b'{"id":%d,"v":{"a":[{},{}]}}'),
    "wide": filling("1,500 columns", b'{"id":%d,' + _WIDE + b"}"),
    "large": filling("records of 10 MB", b'{"id":%d,"v":"' + b"x" * 10_000_000 + b'"}'),
}


def load(task: Task) -> dict[str, float]:
    """Load the page, and say what the connection's backend took at its peak, if that can be seen.

    Raises:
        ValueError: when not every record is stored.
    """
    shape = SHAPES[task.path.rsplit("/", 1)[-1]]
    resource = Resource("shapes", task.path, records_at(), key=("id",))
    source = Source("benchmark", task.base_url, (resource,))
    with Client(source) as client, closing(psycopg2.connect(task.database)) as connection:

        def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
            return read_pages(client, source, resource, Partition(), window, resume)

        entry = load_partition(connection, source.name, resource, Partition(), pages)
        if entry.inserted != shape.rows:
            raise ValueError(f"{entry.inserted} of {shape.rows} records were stored")
        status = Path(f"/proc/{connection.info.backend_pid}/status")
        return {"backend_rss_mib": peak_rss_mib(status)} if status.exists() else {}
