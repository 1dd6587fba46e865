"""Every request of a load is counted, whatever becomes of it."""

import gzip
import json
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import EltError
from flows.extract import client as clients
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import offset
from flows.extract.selectors import records_at
from flows.load.ledger import Entry
from flows.load.options import LoadOptions
from flows.load.side_by_side import load_side_by_side
from flows.source import Partition, Rate, Resource, Source
from flows.traffic import Traffic
from tests.http_servers import Answer, Asked, Serve, Server

Query = Callable[..., list[tuple[Any, ...]]]
COUNTED = (
    "select sum(requests), sum(received_bytes), sum(retries), sum(waited_seconds) from elt.loads"
)


@dataclass
class Api:
    """Three pages of two records, some requests of which fail first."""

    failures: list[Answer]
    total: int = 6

    def __call__(self, asked: Asked) -> Answer:
        if self.failures:
            return self.failures.pop()
        first = int(asked.partition("offset=")[2].partition("&")[0] or 0)
        rows = [{"id": first + n} for n in range(2) if first + n < self.total]
        return Answer(json.dumps({"total": self.total, "rows": rows}).encode())


def load(
    database: URL, server: Server, partitions: int = 1, **changes: Any
) -> tuple[list[Entry], list[EltError]]:
    """Load a resource of so many partitions with a real client."""
    declared = {"rate": None, "max_wait_seconds": 300, "concurrency": 4, **changes}
    names = [Partition(f"p{n}", {"part": f"p{n}"}) for n in range(partitions)]
    resource = Resource(
        "items",
        "items",
        records_at("rows"),
        paging=offset(total="total"),
        key=("part", "id"),
        partitions=tuple(names),
        partition_columns=("part",),
    )
    source = Source("shop", server.url, (resource,), **declared)

    @contextmanager
    def open_reader() -> Any:
        with client.sibling() as own:
            yield partial(read_pages, own, source, resource)

    with Client(source) as client:
        return load_side_by_side(
            lambda: psycopg2.connect(libpq(database)),
            "shop",
            resource,
            names,
            open_reader,
            LoadOptions(),
            source.concurrency,
        )


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "sleep", lambda seconds: None)


@pytest.mark.parametrize("partitions", [1, 12], ids=["alone", "in a group"])
def test_the_ledger_counts_as_many_requests_as_the_server(
    database: URL, query: Query, serve: Serve, partitions: int
) -> None:
    """Some fail and are repeated; some are sent ahead of their turn."""
    server = serve(Api([Answer(status=503), Answer(status=429, headers={"Retry-After": "7"})]))
    entries, errors = load(database, server, partitions)
    assert not errors
    [(requests, received_bytes, retries, waited_seconds)] = query(COUNTED)
    assert requests == len(server.asked) == 3 * partitions + 2
    assert retries == 2
    assert 7 <= waited_seconds < 10
    assert received_bytes > 3 * partitions * len('{"total": 6, "rows": []}')
    assert sum(entry.requests for entry in entries) == requests


def test_a_load_that_failed_counts_the_requests_that_made_it_fail(
    database: URL, query: Query, serve: Serve
) -> None:
    """Two pages come, and then the API is down until the load gives up."""

    def answer(asked: Asked) -> Answer:
        return Answer(status=503) if "offset=4" in asked else api(asked)

    api = Api([])
    server = serve(answer)
    _, errors = load(database, server, max_wait_seconds=20)
    assert len(errors) == 1, errors
    [(requests, _, retries, _)] = query(COUNTED)
    assert requests == len(server.asked)
    assert retries == requests - 3
    assert retries > 2
    assert query("select state, extracted from elt.loads") == [("failed", 0)]


def test_bytes_are_those_that_were_sent(database: URL, query: Query, serve: Serve) -> None:
    body = gzip.compress(json.dumps({"total": 1, "rows": [{"id": 1, "text": "x" * 9999}]}).encode())
    server = serve(lambda _: Answer(body, headers={"Content-Encoding": "gzip"}))
    load(database, server)
    assert query("select requests, received_bytes from elt.loads") == [(1, len(body))]


def test_waiting_for_the_rate_counts(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("flows.extract.rate_limit.sleep", sleep)
    monkeypatch.setattr("flows.extract.rate_limit.monotonic", lambda: clock[0])
    monkeypatch.setattr(clients, "monotonic", lambda: clock[0])
    server = serve(lambda _: Answer(b"[]"))
    with closing(Client(Source("counted-rate", server.url, (), rate=Rate(1, 5)))) as client:
        for _ in range(3):
            client.get(server.url)
    assert client.meter.take() == Traffic(3, 6, 0, 10)


def test_redirects_are_requests(serve: Serve) -> None:
    server = serve(
        lambda asked: (
            Answer(b"[]") if asked == "/b" else Answer(status=302, headers={"Location": "/b"})
        )
    )
    with closing(Client(Source("redirected", server.url, ()))) as client:
        client.get(f"{server.url}a")
    assert client.meter.take().requests == len(server.asked) == 2
