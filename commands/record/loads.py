"""Loads of a few pages of a source, while they are recorded and when they are replayed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from psycopg2.extensions import connection as Connection

from commands.record.recording import ORIGIN, Recording
from commands.record.scrubbing import dummy_secret
from flows.errors import ConfigurationError, EltError
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.load.options import LoadOptions
from flows.load.partition_reader import ReadPages
from flows.load.partitions import partitions_of
from flows.load.side_by_side import load_side_by_side
from flows.page import Page, Resume
from flows.source import Partition, Resource, Source, Window

Connect = Callable[[], Connection]
# Whether a partition's reading ends with this page, the how manieth one, though more follow.
IsEnough = Callable[[Partition, Page, int], bool]


@dataclass(frozen=True)
class FewPages:
    """Loads that end early.

    Attributes:
        now: what cursors and windows take for the present.
    """

    connect: Connect
    client: Client
    source: Source
    now: datetime
    is_enough: IsEnough

    def partitions(self, resource: Resource) -> Sequence[Partition]:
        """All partitions of a resource, whose parent is loaded."""
        with closing(self.connect()) as connection:
            return partitions_of(connection, self.source.name, resource)

    def load(self, resource: Resource, partitions: Sequence[Partition]) -> None:
        """Load these partitions, one after the other.

        Raises:
            EltError: the first error of a load.
        """
        _, errors = load_side_by_side(
            self.connect,
            self.source.name,
            resource,
            partitions,
            partial(self._reader, resource),
            LoadOptions(now=self.now),
            requests_at_once=1,
        )
        if errors:
            raise errors[0]

    @contextmanager
    def _reader(self, resource: Resource) -> Iterator[ReadPages]:
        with self.client.sibling() as own:
            yield partial(self._pages, own, resource)

    def _pages(
        self,
        client: Client,
        resource: Resource,
        partition: Partition,
        window: Window,
        resume: Resume | None = None,
    ) -> Iterator[Page]:
        """The first pages, as if no more followed; of a token cursor, to be read on later."""
        pages = read_pages(client, self.source, resource, partition, window, resume)
        number = 0
        for page in pages:
            number += not page.is_mark
            is_last = not page.is_mark and self.is_enough(partition, page, number)
            if is_last and page.resume is not None:
                page.resume = page.resume if resource.token_cursor else None
                yield page
                return
            yield page


def replayed(connect: Connect, source: Source, resource: Resource, recording: Recording) -> None:
    """Load a resource from its recording, which the source (`replay.moved`) has as its API.

    Raises:
        ConfigurationError: a recorded partition is no longer declared.
        EltError: the recording does not fit the declaration, or holds no such request.
    """
    with Client(source, dummy_secret) as client:
        loads = few_pages(connect, client, source, recording)
        try:
            loads.load(resource, chosen(loads.partitions(resource), source, resource, recording))
        except EltError as error:
            raise type(error)(
                f"{source.name}.{resource.name} can't be loaded from its recording: {error} If the "
                f"declaration or the API has changed: make record SOURCE={source.name}"
            ) from error


def few_pages(connect: Connect, client: Client, source: Source, recording: Recording) -> FewPages:
    """Loads that end where the recording does."""
    origin = source.base_url.removesuffix(recording.base_path)

    def is_enough(partition: Partition, page: Page, _: int) -> bool:
        request = page.request
        if request is None or partition.name not in recording.last:
            return False
        at_home = replace(request, url=request.url.replace(origin, ORIGIN))
        return str(at_home) == recording.last[partition.name]

    return FewPages(connect, client, source, recording.recorded_at, is_enough)


def chosen(
    partitions: Sequence[Partition], source: Source, resource: Resource, recording: Recording
) -> list[Partition]:
    """The partitions that are recorded.

    Raises:
        ConfigurationError: one of them is gone.
    """
    by_name = {partition.name: partition for partition in partitions}
    if gone := [name for name in recording.partitions if name not in by_name]:
        raise ConfigurationError(
            f"{source.name}.{resource.name} has no partition {gone[0]!r} any more, which is "
            "recorded."
        )
    return [by_name[name] for name in recording.partitions]
