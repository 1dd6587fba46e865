"""An API in memory and a load of it, for the promises of `flows.load`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from psycopg2.extensions import connection as Connection

from flows.errors import OtherRequestError, UnavailableError
from flows.extract.selectors import records_at
from flows.load.ledger import Entry
from flows.load.loader import load
from flows.load.options import LoadOptions
from flows.page import Page, Resume
from flows.source import Partition, Resource, Window

EVERYTHING = LoadOptions()
WHOLE = Partition()


def in_python(page: Page) -> list[Any]:
    """A source's own `records` function, whose records can't be cut out of a page: no fast path."""
    return list(page.document)


WAYS = {"fast": records_at(), "slow": in_python}


@dataclass
class MemoryApi:
    """Pages of records (or bodies as they are); `asked` lists the windows and resume points.

    `fails_at` is the number of the first page that fails, `first` the first request.
    """

    pages: list[Any]
    fails_at: int | None = None
    asked: list[tuple[Window, Resume | None]] = field(default_factory=list)
    first: str = "0"

    def __call__(self, window: Window, resume: Resume | None) -> Iterator[Page]:
        """Read as `flows.extract.fetch` does, from the resume point on."""
        self.asked.append((window, resume))
        if resume is not None and resume.first_request != self.first:
            raise OtherRequestError("its first request is another")
        for number in range(int(resume.url or 0) if resume else 0, len(self.pages)):
            if number == self.fails_at:
                raise UnavailableError("the API is away")
            body = self.pages[number]
            more = number + 1 < len(self.pages)
            yield Page(
                body if isinstance(body, bytes) else json.dumps(body).encode(),
                f"page {number}",
                resume=Resume(self.first, str(number + 1), window.since) if more else None,
            )


def items(**changes: Any) -> Resource:
    """The resource `items`, merged by `id`, a checkpoint after every page."""
    declared = {
        "name": "items",
        "path": "items",
        "records": records_at(),
        "key": ("id",),
        "checkpoint_rows": 1,
    }
    return Resource(**declared | changes)


def load_pages(
    connection: Connection,
    *pages: Any,
    options: LoadOptions = EVERYTHING,
    partition: Partition = WHOLE,
    **changes: Any,
) -> Entry:
    """Load pages into `raw_shop.items`, with the given changes of the resource."""
    return load_api(connection, MemoryApi(list(pages)), items(**changes), options, partition)


def load_api(
    connection: Connection,
    api: MemoryApi,
    resource: Resource,
    options: LoadOptions = EVERYTHING,
    partition: Partition = WHOLE,
) -> Entry:
    """Load what the API has into `raw_shop`; whatever it is, no record may be unaccounted for."""
    entry = load(connection, "shop", resource, partition, api, options)
    fates = entry.inserted + entry.updated + entry.unchanged + entry.rejected
    assert entry.extracted == fates
    return entry
