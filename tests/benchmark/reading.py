"""Pages read and thrown away: by this project's extract layer, and by requests alone."""

import requests

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.source import Partition, Resource, Source, Window
from tests.benchmark.tools import READING_PAGES, Task


def load(task: Task) -> None:
    """Read them all, as the task's tool does."""
    sizes = _by_this_project(task) if task.tool == "this" else _by_requests(task)
    if sizes.count(0) or len(sizes) != READING_PAGES:
        raise ValueError(f"{len(sizes)} pages were read instead of {READING_PAGES}")


def _by_this_project(task: Task) -> list[int]:
    resource = Resource("flights", task.path, records_at("rows"), paging=next_url("next_url"))
    source = Source("nycflights", task.base_url, (resource,))
    with Client(source) as client:
        pages = read_pages(client, source, resource, Partition(), Window())
        return [len(page.body) for page in pages]


def _by_requests(task: Task) -> list[int]:
    """The addresses are known beforehand: nothing is looked at, nothing is checked."""
    start = task.url.removesuffix("1")
    with requests.Session() as session:
        return [
            len(session.get(f"{start}{number}", timeout=60).content)
            for number in range(1, READING_PAGES + 1)
        ]
