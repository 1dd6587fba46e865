"""One page per parent: the API's answers, and this project's load of parents and their children."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

import psycopg2

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.load.loader import load as load_partition
from flows.load.options import DEFAULT_OPTIONS
from flows.load.partition_reader import ReadPages
from flows.load.partitions import partitions_of
from flows.load.side_by_side import load_side_by_side
from flows.source import Resource, RowsOf, Source
from tests.benchmark.tools import CONCURRENCY, Task

LINES_A_PARENT = 10
PARENTS_A_PAGE = 1000


@dataclass(frozen=True)
class Family:
    """Parents with a page of children each, at an API that takes its time for every answer."""

    parents: int
    latency_ms: int

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"children/{self.parents}/{self.latency_ms}"

    @property
    def requests(self) -> int:
        """Requests for everything."""
        return self.parents + -(-self.parents // PARENTS_A_PAGE)

    @property
    def least_seconds(self) -> float:
        """What the answers take, so many at once."""
        return self.requests * self.latency_ms / 1000 / CONCURRENCY


FAMILIES = {
    f"children_{family.parents}_{family.latency_ms}ms": family
    for family in (Family(500, 20), Family(5000, 20), Family(500, 0))
}


def answer(base_url: str, parents: int, latency_ms: int, rest: list[str]) -> bytes | None:
    """A page of parents, or the lines of one."""
    time.sleep(latency_ms / 1000)
    match rest:
        case ["parents", page]:
            first, last = (int(page) - 1) * PARENTS_A_PAGE, int(page) * PARENTS_A_PAGE
            rows = [{"id": n, "name": f"parent {n}"} for n in range(first, min(last, parents))]
            path = f"children/{parents}/{latency_ms}/parents/{int(page) + 1}"
            following = f"{base_url}{path}" if last < parents else None
            return json.dumps({"rows": rows, "next_url": following}).encode()
        case ["parents", parent, "lines"]:
            lines = [
                {"line": n, "amount": n * 1.5, "note": f"line {n} of {parent}", "paid": n % 2 == 0}
                for n in range(LINES_A_PARENT)
            ]
            return json.dumps({"rows": lines}).encode()
    return None


def load(task: Task) -> None:
    """Load the parents, then the lines of each; of known parents only those that changed."""
    rows = records_at("rows")
    parents = Resource("parents", "parents/1", rows, paging=next_url("next_url"), key=("id",))
    lines = Resource(
        "lines",
        "parents/{parent}/lines",
        rows,
        key=("parent", "line"),
        partitions=RowsOf("parents", {"parent": "id"}, changed_only=True),
        partition_columns=("parent",),
    )
    base_url = f"{task.base_url}{task.path}"
    source = Source("family", base_url, (parents, lines), concurrency=CONCURRENCY)
    connect = partial(psycopg2.connect, task.database)
    with Client(source) as client, closing(connect()) as connection:
        pages = partial(read_pages, client, source, parents, parents.partitions[0])  # type: ignore[index]
        load_partition(connection, source.name, parents, parents.partitions[0], pages)  # type: ignore[index]
        found = partitions_of(connection, source.name, lines)

        @contextmanager
        def reader() -> Iterator[ReadPages]:
            with client.sibling() as own:
                yield partial(read_pages, own, source, lines)

        _, errors = load_side_by_side(
            connect, source.name, lines, found, reader, DEFAULT_OPTIONS, source.concurrency
        )
        if errors:
            raise errors[0]
