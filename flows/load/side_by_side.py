"""Loads the partitions of a resource side by side, in a bounded number of threads.

Small partitions are read in the threads and committed together (`flows.load.group`). Every other
one gets a load of its own: large ones, those with rejects or errors, and what can't be merged.
"""

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from itertools import islice
from time import monotonic

from psycopg2.extensions import connection as Connection

from flows.errors import EltError, UnavailableError
from flows.guards import without_secrets
from flows.load import checkpoints, ledger
from flows.load.failures import postgres_errors_of
from flows.load.group import (
    NO_CHECKPOINT,
    Group,
    PlannedPartition,
    ReadPartition,
    RefusedError,
    close_group,
    is_due,
    may_group,
    open_group,
)
from flows.load.ledger import Address, Entry
from flows.load.loader import load
from flows.load.options import LoadOptions
from flows.load.partition_lock import PartitionLock, joined, transaction
from flows.load.partition_reader import PartlyRead, ReadPages, SmallReader
from flows.load.reset import forget_lost_rows
from flows.page import Page, Resume
from flows.source import Partition, Resource, Window

# A group is committed when it has so many partitions or bytes, or has waited so long.
GROUP_PARTITIONS = 200
GROUP_BYTES = 8 << 20
GROUP_SECONDS = 1.0
# How many partitions may be read and wait for their commit.
MOST_READ = 2 * GROUP_PARTITIONS
PLANNED_AT_ONCE = 500

Connect = Callable[[], Connection]
OpenReader = Callable[[], AbstractContextManager[ReadPages]]
Result = ReadPartition | Entry | BaseException | None


@without_secrets
def load_side_by_side(
    connect: Connect,
    source: str,
    resource: Resource,
    partitions: Sequence[Partition],
    open_reader: OpenReader,
    options: LoadOptions,
    requests_at_once: int,
) -> tuple[list[Entry], list[EltError]]:
    """Load partitions; returns their ledger entries and errors.

    If one fails, the others are still loaded, unless the API or Postgres is away. Each thread calls
    `open_reader` once; what it returns reads the pages of any partition, and sees to it that no
    more than `requests_at_once` are under way.

    Raises:
        EltError: no partition could be loaded: another run loads the resource, its raw table is
            not ours, or Postgres is away.
    """
    if not partitions:
        return [], []
    if options.limit is not None:
        return _load_up_to(connect, source, resource, partitions, open_reader, options)
    threads = _threads(requests_at_once, partitions)
    run = _Run(connect, source, resource, open_reader, options, threads)
    if not may_group(resource, len(partitions), options):
        run.load_each(partitions)
        return run.entries, run.errors
    address = Address(source, resource.name, "")
    with open_group(connect, address, options) as (lock, load_id):
        run.load_in_groups(lock, load_id, partitions)
        failed = f"{len(run.errors)} of them failed: see their own loads." if run.errors else None
        entry = close_group(lock, load_id, failed, resource, len(partitions), run.group)
        run.entries.append(entry)
    return run.entries, run.errors


def _load_up_to(
    connect: Connect,
    source: str,
    resource: Resource,
    partitions: Sequence[Partition],
    open_reader: OpenReader,
    options: LoadOptions,
) -> tuple[list[Entry], list[EltError]]:
    """Load partitions one after the other until the limit is reached by all of them together.

    A partition without records, or one that fails, counts as one record: else a small limit could
    send any number of requests.
    """
    entries: list[Entry] = []
    errors: list[EltError] = []
    left = options.limit or 0
    for partition in _Run(connect, source, resource, open_reader, options, 1).due(partitions):
        if left <= 0:
            break
        run = _Run(connect, source, resource, open_reader, replace(options, limit=left), threads=1)
        run.load_each([partition])
        entries += run.entries
        errors += run.errors
        left -= len(run.errors)
        left -= sum(max(1, entry.extracted + entry.filtered) for entry in run.entries)
        if any(isinstance(error, UnavailableError) for error in errors):
            break
    return entries, errors


@without_secrets
def load_batch(
    connect: Connect,
    source: str,
    resource: Resource,
    partitions: Sequence[Partition],
    open_reader: OpenReader,
    options: LoadOptions,
    requests_at_once: int,
    load_id: int,
) -> tuple[list[Entry], list[EltError]]:
    """Load some of the partitions for which another process has opened the group `load_id`.

    Leaves out those that were committed for this group before, so a batch may be repeated. The rest
    is as in `load_side_by_side`.
    """
    threads = _threads(requests_at_once, partitions)
    run = _Run(connect, source, resource, open_reader, options, threads)
    address = Address(source, resource.name, "")
    with (
        closing(connect()) as connection,
        postgres_errors_of(address, connection),
        joined(connection, address, load_id) as lock,
    ):
        run.load_in_groups(lock, load_id, partitions)
    return run.entries, run.errors


def _threads(requests_at_once: int, partitions: Sequence[Partition]) -> int:
    """One more than requests, if there are several: it parses while the others wait for the API."""
    more = 1 if requests_at_once > 1 else 0
    return min(requests_at_once + more, len(partitions))


def _due(
    connect: Connect, address: Address, partitions: Sequence[Partition]
) -> Sequence[Partition]:
    """The partitions without those that are final or whose parent's row is unchanged."""
    if all(partition.version is None for partition in partitions):
        return partitions
    with (
        closing(connect()) as connection,
        postgres_errors_of(address, connection),
        transaction(connection) as cursor,
    ):
        ledger.prepare(cursor, f"raw_{address.source}")
        forget_lost_rows(cursor, address)
        names = [partition.name for partition in partitions]
        stored = checkpoints.read_many(cursor, address, names)
    return [
        partition
        for partition in partitions
        if is_due(partition, stored.get(partition.name, NO_CHECKPOINT))
    ]


class _Run:
    """Threads that read partitions, and the caller's thread, which commits what they read.

    Attributes:
        group: stores the small partitions; None to load each on its own.
    """

    def __init__(
        self,
        connect: Connect,
        source: str,
        resource: Resource,
        open_reader: OpenReader,
        options: LoadOptions,
        threads: int,
    ) -> None:
        self.resource = resource
        self.options = options
        self.group: Group | None = None
        self.entries: list[Entry] = []
        self.errors: list[EltError] = []
        self._connect = connect
        self._source = source
        self._open_reader = open_reader
        self._threads = threads
        self._todo: queue.SimpleQueue[PlannedPartition | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._room = threading.Semaphore(MOST_READ)
        self._is_planned = False
        self._is_stopped = False
        self._read: list[ReadPartition] = []
        self._read_bytes = 0
        self._read_rows = 0
        self._read_at = 0.0

    def load_each(self, partitions: Sequence[Partition]) -> None:
        """Load each partition that is due by a load of its own."""
        self._load_all([PlannedPartition(each)] for each in self.due(partitions))

    def due(self, partitions: Sequence[Partition]) -> Sequence[Partition]:
        """The partitions to load: of a full refresh, or of a range by hand, all of them."""
        if self.options.full_refresh or self.options.by_hand:
            return partitions
        address = Address(self._source, self.resource.name, "")
        return _due(self._connect, address, partitions)

    def load_in_groups(
        self, lock: PartitionLock, load_id: int, partitions: Sequence[Partition]
    ) -> None:
        """Load the partitions that are due; the lock is that of the group."""
        address = Address(self._source, self.resource.name, "")
        self.group = group = Group(lock, address, self.resource, self.options, load_id)
        group.open()
        remaining = iter(partitions)
        chunks = iter(lambda: list(islice(remaining, PLANNED_AT_ONCE)), [])
        self._load_all(group.plan(chunk) for chunk in chunks)
        group.warn_of_moved()

    def _load_all(self, chunks: Iterator[Sequence[PlannedPartition]]) -> None:
        """Load the partitions of each chunk; the next one is planned when few are left."""
        threads = self._threads
        for _ in range(threads):
            run = contextvars.copy_context().run
            threading.Thread(target=run, args=(self._work,), daemon=True).start()
        remaining, running = 0, threads
        try:
            while running:
                while not self._is_planned and (remaining < GROUP_PARTITIONS or self._is_stopped):
                    remaining += self._plan(chunks, threads)
                try:
                    result = self._results.get(timeout=self._seconds_left())
                except queue.Empty:
                    self._store()
                    continue
                remaining -= 1
                running -= result is None
                self._take(result)
            self._store()
        finally:
            self._is_stopped = True
            self._room.release(threads)
            for _ in range(threads):
                self._todo.put(None)

    def _plan(self, chunks: Iterator[Sequence[PlannedPartition]], threads: int) -> int:
        """Hand the next chunk to the threads, or let them end; returns how many partitions."""
        chunk = None if self._is_stopped else next(chunks, None)
        self._is_planned = chunk is None
        for planned in [None] * threads if chunk is None else chunk:
            self._todo.put(planned)
        return len(chunk or ())

    def _seconds_left(self) -> float | None:
        """How long the partitions that were read may wait for others."""
        return max(0.0, self._read_at + GROUP_SECONDS - monotonic()) if self._read else None

    def _take(self, result: Result) -> None:
        if isinstance(result, ReadPartition):
            self._read_at = self._read_at if self._read else monotonic()
            self._read.append(result)
            self._read_bytes += result.memory_bytes
            self._read_rows += result.rows
            if self._is_group_full():
                self._store()
        elif isinstance(result, Entry):
            self.entries.append(result)
        elif isinstance(result, EltError):
            self.errors.append(result)
        elif result is not None:
            raise result

    def _is_group_full(self) -> bool:
        return (
            len(self._read) >= GROUP_PARTITIONS
            or self._read_bytes >= GROUP_BYTES
            or self._read_rows >= self.resource.checkpoint_rows
        )

    def _store(self) -> None:
        """Commit the partitions that were read."""
        read, self._read, self._read_bytes, self._read_rows = self._read, [], 0, 0
        if read:
            self._room.release(len(read))
            if alone := self._store_together(read):
                self._load_late(alone)

    def _store_together(self, read: Sequence[ReadPartition]) -> list[PartlyRead]:
        """Commit partitions as a group; returns those that need a load of their own.

        If they are refused, both halves are tried, until the ones to blame are alone.
        """
        try:
            others = self.group.store(read) if self.group else read
            return [PartlyRead(each.planned, each.pages, iter(())) for each in others]
        except RefusedError:
            if len(read) == 1:
                return [PartlyRead(read[0].planned, read[0].pages, iter(()))]
            middle = len(read) // 2
            return [
                each
                for half in (read[:middle], read[middle:])
                for each in self._store_together(half)
            ]

    def _load_late(self, alone: Sequence[PartlyRead]) -> None:
        with self._open_reader() as read_pages, closing(_OwnConnection(self._connect)) as own:
            for each in alone:
                self._take(self._load_alone(own, each, read_pages))

    def _work(self) -> None:
        """Read partitions until there are no more; runs in each thread."""
        try:
            with self._open_reader() as read_pages, closing(_OwnConnection(self._connect)) as own:
                reader = SmallReader(self.group, self.resource, read_pages)
                while (planned := self._todo.get()) is not None:
                    self._room.acquire()
                    if self._is_stopped:
                        break
                    found = reader.read(planned)
                    if isinstance(found, ReadPartition):
                        self._results.put(found)
                    else:
                        self._room.release()
                        self._results.put(self._load_alone(own, found, read_pages))
        except BaseException as error:
            self._results.put(error)
        finally:
            self._results.put(None)

    def _load_alone(
        self, own: "_OwnConnection", found: PartlyRead, read_pages: ReadPages
    ) -> Result:
        """Load a partition by a load of its own; returns its entry or its error.

        If the API or Postgres is away, no further partition is read.
        """
        partition = found.planned.partition
        address = Address(self._source, self.resource.name, partition.name)
        try:
            connection = own.open()

            def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
                """Called with the partition's lock held."""
                with transaction(connection) as cursor:
                    present = checkpoints.read(cursor, address)
                return found.take(window, resume, present) or read_pages(partition, window, resume)

            return load(connection, self._source, self.resource, partition, pages, self.options)
        except EltError as error:
            self._is_stopped |= isinstance(error, UnavailableError)
            return error


class _OwnConnection:
    """A connection to Postgres that is opened when it is needed, and again if it broke."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: Connection | None = None

    def open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
