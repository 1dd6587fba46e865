"""Loads of many partitions on the workers of a Dask cluster (ELT_TASK_RUNNER=dask).

The flow's process opens one group per resource and sends batches of partitions to the cluster. Each
batch is a task run of its own; a batch whose worker dies is repeated by another worker.
"""

import contextvars
import os
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, cast
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from blocks import warehouse
from blocks.warehouse import Warehouse
from flows.errors import ConfigurationError, EltError, UnavailableError
from flows.extract.fetch import read_pages
from flows.guards import without_secrets
from flows.load.group import FEW_PARTITIONS, close_group, may_group, open_group
from flows.load.ledger import Address, Entry
from flows.load.options import LoadOptions
from flows.load.side_by_side import load_batch, load_side_by_side
from flows.load_tasks import combine_errors, finish_loads, load_partitions, open_readers
from flows.progress import Progress
from flows.source import Partition, Resource, Source

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner

VARIABLE = "ELT_TASK_RUNNER"
ADDRESS_VARIABLE = "ELT_DASK_SCHEDULER"

# Partitions per batch. A task run costs a worker about half a second, so small batches are slow;
# of a large one, more is repeated if a worker dies.
BATCH_PARTITIONS = range(100, 1000)
# At first there are so many batches per thread of the cluster, so that all threads end together.
BATCHES_PER_THREAD = 4
# So many batches are with the cluster per thread: one is loaded, and one waits.
SENT_PER_THREAD = 2
# A cluster without workers for so long is treated as unavailable.
NO_WORKERS_SECONDS = 60


class Cluster:
    """A Dask cluster that loads partitions for one flow run; create it in the flow's thread."""

    def __init__(self, address: str) -> None:
        """`address` is the scheduler's, e.g. `tcp://scheduler:8786`."""
        self._address = address
        # Prefect sends the context with a batch. That of a load's task holds the password.
        self._context = contextvars.copy_context()

    @classmethod
    def wanted(cls) -> Self | None:
        """The cluster that the environment names; None if loads run in this process.

        Raises:
            ConfigurationError: a variable has an unknown value, or the address is missing.
        """
        wanted = os.environ.get(VARIABLE) or "threads"
        if wanted not in ("threads", "dask"):
            raise ConfigurationError(f"{VARIABLE} is {wanted!r}. Set it to `threads` or to `dask`.")
        if wanted == "threads":
            return None
        address = os.environ.get(ADDRESS_VARIABLE)
        if not address:
            raise ConfigurationError(
                f"{VARIABLE} is `dask`, so {ADDRESS_VARIABLE} must name the scheduler, e.g. "
                "tcp://scheduler:8786."
            )
        return cls(address)

    def load_partitions(
        self,
        database: Warehouse,
        source: Source,
        resource: Resource,
        partitions: Sequence[Partition],
        options: LoadOptions,
        progress: Progress | None = None,
    ) -> list[Entry]:
        """Load partitions as `load_tasks.load_partitions` does, on the cluster if they are many.

        Raises:
            EltError: a load failed, or the cluster is unavailable. What was committed is kept; a
                retry of the same run loads the rest.
        """
        if source.rate is not None:
            source = replace(source, rate=replace(source.rate, is_shared=True))
        if len(partitions) <= FEW_PARTITIONS:
            return load_partitions(database, source, resource, partitions, options, progress)
        with self._connected() as runner:
            batches = _Batches(runner, self._context, source, resource, options, progress)
            if may_group(resource, len(partitions), options):
                address = Address(source.name, resource.name, "")
                with open_group(database.connect, address, options) as (lock, load_id):
                    batches.load(partitions, load_id)
                    failure = batches.failure()
                    entry = close_group(lock, load_id, failure, resource, len(partitions))
                    batches.entries.append(entry)
            else:
                batches.load(partitions, None)
        return finish_loads(
            database, source, resource, partitions, options, batches.entries, batches.errors
        )

    @contextmanager
    def _connected(self) -> Iterator["DaskTaskRunner"]:
        """A connection to the scheduler.

        Raises:
            ConfigurationError: the packages for Dask are missing.
            UnavailableError: the scheduler does not respond, or goes away.
        """
        try:
            from prefect_dask.task_runners import DaskTaskRunner
        except ImportError as error:
            raise ConfigurationError(
                f"{VARIABLE} is `dask`, but its packages are not installed. Install "
                "requirements-dask.txt where the flow runs and on the workers of the cluster."
            ) from error
        try:
            with DaskTaskRunner(address=self._address) as runner:
                yield runner
        except OSError as error:
            raise UnavailableError(
                f"The Dask scheduler {self._address} does not respond: {error}. Start it, then run "
                "this again; committed rows are kept."
            ) from error


@without_secrets
def load_one_batch(
    source: Source,
    resource: Resource,
    options: LoadOptions,
    load_id: int | None,
) -> list[Entry]:
    """Load a batch on a worker of the cluster; `load_id` is the group's, None if there is none.

    The source comes without its resources, and the resource with the batch as its partitions. Reads
    the warehouse's block and the login there, so the scheduler sees no secrets.
    """
    connect = warehouse.load().connect
    partitions = cast(tuple[Partition, ...], resource.partitions)
    with open_readers(connect, source, resource, read_pages) as open_reader:
        given = (connect, source.name, resource, partitions, open_reader, options)
        if load_id is None:
            entries, errors = load_side_by_side(*given, source.concurrency)
        else:
            entries, errors = load_batch(*given, source.concurrency, load_id)
    if errors:
        raise combine_errors(errors, len(partitions))
    return entries


class _Batches:
    """The batches of one resource, sent to the cluster a few at a time.

    Attributes:
        entries: of the loads that some partitions needed for themselves.
        errors: one per batch that failed.
    """

    def __init__(
        self,
        runner: "DaskTaskRunner",
        context: contextvars.Context,
        source: Source,
        resource: Resource,
        options: LoadOptions,
        progress: Progress | None,
    ) -> None:
        self.entries: list[Entry] = []
        self.errors: list[Exception] = []
        self._runner = runner
        self._context = context
        self._source = source
        self._resource = resource
        self._options = options
        self._progress = progress
        self._sent: dict[UUID, Sequence[Partition]] = {}
        self._ended: queue.SimpleQueue[PrefectFuture[list[Entry]]] = queue.SimpleQueue()
        self._is_stopped = False

    def load(self, partitions: Sequence[Partition], load_id: int | None) -> None:
        """Load the partitions; once the API or Postgres is away, no further batch is sent."""
        batches = _cut(partitions, self._threads())
        while True:
            room = max(1, SENT_PER_THREAD * self._threads()) - len(self._sent)
            for batch in islice(batches, 0 if self._is_stopped else max(0, room)):
                self._send(batch, load_id)
            if not self._sent:
                return
            self._take()

    def failure(self) -> str | None:
        """What the group's entry says if batches failed."""
        return f"{len(self.errors)} batches failed: see their runs." if self.errors else None

    def _threads(self) -> int:
        """How many batches the cluster can load at once now."""
        info: Mapping[str, Any] = self._runner.client.scheduler_info()
        return sum(worker["nthreads"] for worker in info["workers"].values())

    def _send(self, batch: Sequence[Partition], load_id: int | None) -> None:
        """Submit a batch as a task run of the flow."""
        address = Address(self._source.name, self._resource.name, "")
        title = f"{address} ({len(batch)} partitions: {batch[0].name} to {batch[-1].name})"
        as_batch = task(name=load_one_batch.__name__, task_run_name=title, cache_policy=NO_CACHE)
        # A declaration holds all partitions; sent whole, it would grow with them, in every batch.
        parameters = {
            "source": replace(self._source, resources=()),
            "resource": replace(self._resource, partitions=tuple(batch)),
            "options": self._options,
            "load_id": load_id,
        }
        context = self._context.copy()
        future = context.run(self._runner.submit, as_batch(load_one_batch), parameters)
        self._sent[future.task_run_id] = batch
        future.add_done_callback(self._ended.put)

    def _take(self) -> None:
        """Wait until a batch has ended, and keep its outcome.

        Raises:
            UnavailableError: the cluster has no workers.
        """
        try:
            ended = self._ended.get(timeout=NO_WORKERS_SECONDS)
        except queue.Empty:
            if not self._threads():
                raise UnavailableError(
                    f"The Dask cluster ({ADDRESS_VARIABLE}) has no workers. Start some, then run "
                    "this again; committed rows are kept."
                ) from None
            return
        batch = self._sent.pop(ended.task_run_id)
        try:
            self.entries += ended.result()
        except Exception as error:
            problem = _problem_of_cluster(error) or error
            self.errors.append(problem)
            self._is_stopped |= problem is not error or isinstance(error, UnavailableError)
        else:
            if self._progress is not None:
                self._progress.add_read(self._resource, batch)


def _problem_of_cluster(error: Exception) -> EltError | None:
    """The error as this project's, if it is the cluster's own; None if the batch raised it."""
    from distributed import CancelledError, KilledWorker

    # A scheduler that lacks the module raises an error with that cause, a worker the error itself.
    for missing in (error, error.__cause__):
        if isinstance(missing, ModuleNotFoundError):
            return ConfigurationError(
                f"The Dask cluster lacks a module: {missing}. Start its scheduler and its workers "
                "with this repository's folder in PYTHONPATH and its packages installed "
                "(docs/scale.md)."
            )
    if isinstance(error, KilledWorker):
        return UnavailableError(
            f"A batch was repeated until the cluster gave up, because its workers died: {error} "
            "See the workers' logs; they may need more memory."
        )
    if isinstance(error, CancelledError | OSError):
        return UnavailableError(
            f"The Dask scheduler went away ({type(error).__name__}). Run this again when it is "
            "back; committed rows are kept."
        )
    return None


def _cut(partitions: Sequence[Partition], threads: int) -> Iterator[Sequence[Partition]]:
    """Batches of a size that keeps so many threads busy."""
    even = -(-len(partitions) // (BATCHES_PER_THREAD * max(1, threads)))
    size = min(max(even, BATCH_PARTITIONS.start), BATCH_PARTITIONS.stop)
    return (partitions[start : start + size] for start in range(0, len(partitions), size))
