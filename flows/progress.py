"""Progress of a run's loads: a progress artifact in Prefect if they take long.

Counts the pages that are read, so the load engine does not know about it.
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
    """What has been read of one resource.

    Attributes:
        partitions: the number of its partitions.
        read: names of the partitions that are read completely.
    """

    partitions: int = 1
    pages: int = 0
    read: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        """`12 pages`, or `1,250 pages, 500 of 2,000 partitions`; no pages if they are unknown."""
        parts = [f"{self.pages:,} pages"] if self.pages else []
        if self.partitions != 1:
            parts.append(f"{len(self.read):,} of {self.partitions:,} partitions")
        return ", ".join(parts)


class Progress:
    """What a run's loads have read; updated by their threads, shown by the flow's thread.

    The number of pages of an API is unknown, so each resource has the same weight, and its progress
    is the share of its partitions that are read.
    """

    def __init__(self, resources: Sequence[Resource]) -> None:
        self._lock = Lock()
        self._readings = {resource.name: ResourceProgress() for resource in resources}
        self._artifact: UUID | None = None

    def expect(self, resource: Resource, partitions: int) -> None:
        """Set the number of a resource's partitions; for rows of a parent it is known late."""
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
        """`read_pages`, with its pages counted."""
        reading = self._readings[resource.name]
        for page in read_pages(client, source, resource, partition, window, resume):
            with self._lock:
                reading.pages += 1
            yield page
        with self._lock:
            reading.read.add(partition.name)

    def add_read(self, resource: Resource, partitions: Sequence[Partition]) -> None:
        """Count partitions that another process has read."""
        with self._lock:
            self._readings[resource.name].read.update(each.name for each in partitions)

    def watch(self, futures: Sequence[PrefectFuture[Any]]) -> None:
        """Wait for loads, and update the progress artifact; quick loads get none.

        Call it in the flow's thread: Prefect uses the thread to find the artifact's run.
        """
        for future in futures:
            while not _is_over(future, SHOWN_EVERY_SECONDS):
                self._show()
        if self._artifact is not None:
            self._show()

    def _show(self) -> None:
        percent, description = self._so_far()
        if self._artifact is None and description:
            self._artifact = cast(UUID, create_progress_artifact(percent, description=description))
        elif self._artifact is not None:
            update_progress_artifact(self._artifact, percent, description)

    def _so_far(self) -> tuple[float, str]:
        with self._lock:
            readings = list(self._readings.items())
            parts = [len(each.read) / max(each.partitions, 1) for _, each in readings]
            lines = [f"* {name}: {each}" for name, each in readings if each.pages or each.read]
        return 100 * sum(parts) / len(parts), "\n".join(lines)


def _is_over(future: PrefectFuture[Any], seconds: float) -> bool:
    """Wait; whether it ended within that time."""
    deadline = monotonic() + seconds
    future.wait(seconds)
    return monotonic() < deadline
