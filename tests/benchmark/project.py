"""This project's own load, through the functions that its flow calls, with default settings."""

from collections.abc import Iterator
from contextlib import closing

import psycopg2

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.load.loader import load as load_partition
from flows.page import Page, Resume
from flows.source import Resource, Source, Window
from tests.benchmark.flights import KEY
from tests.benchmark.tools import Task


def load(task: Task) -> None:
    """Merge the pages by the flights' key."""
    resource = Resource(
        name="flights",
        path=task.path,
        records=records_at("rows"),
        paging=next_url("next_url"),
        key=KEY,
    )
    source = Source(name="nycflights", base_url=task.base_url, resources=(resource,))
    (partition,) = resource.partitions
    with Client(source) as client, closing(psycopg2.connect(task.database)) as connection:

        def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
            return read_pages(client, source, resource, partition, window, resume)

        load_partition(connection, source.name, resource, partition, pages)
