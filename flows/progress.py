"""How far the loads of a run are: a progress artifact in Prefect, where they take long.

Loads are counted by the pages that are read for them, so the load engine knows nothing of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import PrefectFuture

from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.page import Page, Resume
from flows.source import Partition, Resource, Source, Window

SHOWN_EVERY_SECONDS = 15.0


@dataclass
class ResourceProgress:
    """What is read of one resource.

    Attributes:
        partitions: how many it has.
        read: the names of those that are read to their end.
    """

    partitions: int = 1
    pages: int = 0
    read: set[str] = field(default_factory=set)


class Progress:
    """What a run's loads have read, told by their threads and shown by the run's own.

    How many pages an API has, nobody knows; so each resource counts the same, and a resource as far
    as its partitions are read.
    """

    def __init__(self, resources: Sequence[Resource]) -> None:
        self._lock = Lock()
        self._readings = {resource.name: ResourceProgress() for resource in resources}
        self._artifact: UUID | None = None

    def expect(self, resource: Resource, partitions: int) -> None:
        """Say how many partitions a resource has: of a parent's rows it is known late."""
        self._readings[resource.name].partitions = partitions

    def read(
        self,
        client: Client,
        source: Source,
        resource: Resource,
        partition: Partition,
        window: Window,
        resume: Resume | None = None,
    ) -> Iterator[Page]:
        """The same as `read_pages`, counted."""
        reading = self._readings[resource.name]
        for page in read_pages(client, source, resource, partition, window, resume):
            with self._lock:
                reading.pages += 1
            yield page
        with self._lock:
            reading.read.add(partition.name)

    def watch(self, futures: Sequence[PrefectFuture[Any]]) -> None:
        """Wait for loads, and show now and then how far they are; nothing of those that are quick.

        To be called where the flow runs: Prefect knows by the thread whose artifact it is.
        """
        for future in futures:
            while not _is_over(future, SHOWN_EVERY_SECONDS):
                self._show()
        if self._artifact is not None:
            self._show()

    def _show(self) -> None:
        percent, said = self._so_far()
        if self._artifact is None and said:
            self._artifact = cast(UUID, create_progress_artifact(percent, description=said))
        elif self._artifact is not None:
            update_progress_artifact(self._artifact, percent, said)

    def _so_far(self) -> tuple[float, str]:
        with self._lock:
            readings = list(self._readings.items())
            parts = [len(each.read) / max(each.partitions, 1) for _, each in readings]
            lines = [f"* {name}: {each.pages:,} pages" for name, each in readings if each.pages]
        return 100 * sum(parts) / len(parts), "\n".join(lines)


def _is_over(future: PrefectFuture[Any], seconds: float) -> bool:
    """Whether it ends within that time."""
    deadline = monotonic() + seconds
    future.wait(seconds)
    return monotonic() < deadline
