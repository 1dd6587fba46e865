"""Flow `backfill`: load a long range of days in windows, several at a time."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, timedelta
from time import monotonic
from typing import Annotated, Any, cast
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from blocks import warehouse
from blocks.warehouse import Warehouse
from flows import sources
from flows.errors import ConfigurationError
from flows.load import ledger
from flows.load.ledger import Address, Entry
from flows.load.options import LoadOptions
from flows.load.partitions import partitions_of
from flows.load.reset import forget_lost_rows
from flows.load_tasks import (
    ResourceName,
    SourceName,
    as_task,
    errors_of,
    finish_run,
    load_partitions,
    midnight,
)
from flows.progress import SHOWN_EVERY_SECONDS
from flows.retries import Retry
from flows.source import Partition, Resource, Source, Window


@dataclass(frozen=True)
class Slice:
    """A window of one partition, loaded as a partition with its own ledger entry and checkpoint."""

    resource: Resource
    partition: Partition
    window: Window


@flow(name="backfill", flow_run_name="{source} {since} to {until}")
def backfill(
    source: SourceName,
    since: date,
    until: date,
    resources: tuple[ResourceName, ...] = (),
    window_days: Annotated[int, Field(ge=1, le=3660)] = 31,
    at_once: Annotated[int, Field(ge=1, le=16)] = 4,
    again: bool = False,
    transform: bool = True,
    retry: Retry = Retry(),  # noqa: B008 (never changed, and shown in Prefect's form)
) -> State[Any]:
    """Load a range of days in windows, then build what changed.

    Skips windows that an earlier backfill loaded: after a failure, start the same run again to
    resume it. Regular loads still continue where they ended.

    Args:
        source: The source to load, e.g. open_meteo.
        since: First day to load (UTC).
        until: Day to stop before (UTC); this day is not loaded.
        resources: The resources to load; empty means all that can be read by date.
        window_days: Days per window, counted from `since`.
        at_once: How many windows to load at the same time.
        again: Also load windows that an earlier backfill has loaded.
        transform: Build the marts afterwards.
        retry: How to retry a window if the API or Postgres was unavailable.
    """
    api = sources.find(source)
    chosen = readable_by_date(api, resources)
    database = warehouse.load()
    windows = split(since, until, window_days)
    declared = [slice_ for each in chosen for slice_ in _slices(database, api, each, windows)]
    total = len(declared)
    slices = declared if again else _missing(database, api, declared)
    get_run_logger().info("Loading %d of %d windows, %d at a time.", len(slices), total, at_once)
    runner: ThreadPoolTaskRunner[list[Entry]] = ThreadPoolTaskRunner(max_workers=at_once)
    with runner:
        errors = _watch([_submit(runner, database, api, slice_, retry) for slice_ in slices], total)
    return finish_run(database, api, errors, len(slices), transform, retry)


def readable_by_date(source: Source, names: Sequence[str]) -> list[Resource]:
    """The resources that can be read by date: those with a cursor and not written by `replace`.

    Raises:
        ConfigurationError: when a named resource can't be read by date, or none can.
    """
    chosen = [source.resource(name) for name in names] or list(source.resources)
    readable = [each for each in chosen if each.cursor and each.writes != "replace"]
    if not readable or (names and len(readable) < len(chosen)):
        others = ", ".join(each.name for each in chosen if each not in readable)
        raise ConfigurationError(
            f"{source.name}: {others} can't be read by date: a `cursor` is missing, or `replace` "
            "reads everything anyway. Remove them from `resources`, or run `elt`."
        )
    return readable


def split(since: date, until: date, days: int) -> list[Window]:
    """Split the range into windows of that many days; the last one ends at `until`.

    Raises:
        ConfigurationError: when the range contains no day.
    """
    if since >= until:
        raise ConfigurationError(
            f"since ({since}) must be before until ({until}), which is the first day that is not "
            "loaded."
        )
    count = -(-(until - since).days // days)
    starts = [since + timedelta(days * number) for number in range(count)]
    return [
        Window(midnight(start), midnight(min(start + timedelta(days), until))) for start in starts
    ]


def _slices(
    database: Warehouse, source: Source, resource: Resource, windows: Sequence[Window]
) -> list[Slice]:
    with closing(database.connect()) as connection:
        partitions = partitions_of(connection, source.name, resource)
    return [
        Slice(resource, replace(partition, name=_slice_name(partition, window)), window)
        for partition in partitions
        for window in windows
    ]


def _missing(database: Warehouse, source: Source, slices: Sequence[Slice]) -> list[Slice]:
    """The slices that no earlier backfill has loaded."""
    names = {each.resource.name for each in slices}
    with database.transaction() as cursor:
        ledger.prepare(cursor, f"raw_{source.name}")
        for name in names:
            forget_lost_rows(cursor, Address(source.name, name, ""))
        loaded = {name: ledger.backfilled(cursor, source.name, name) for name in names}
    return [each for each in slices if each.partition.name not in loaded[each.resource.name]]


def _slice_name(partition: Partition, window: Window) -> str:
    """E.g. `London 2024-01-01..2024-02-01`; only the days if the partition has no name."""
    return f"{partition.name} {window.since:%Y-%m-%d}..{window.until:%Y-%m-%d}".strip()


def _submit(
    runner: ThreadPoolTaskRunner[list[Entry]],
    database: Warehouse,
    source: Source,
    slice_: Slice,
    retry: Retry,
) -> PrefectFuture[list[Entry]]:
    name = str(Address(source.name, slice_.resource.name, slice_.partition.name))
    task = as_task(load_partitions, source, slice_.resource, retry, name)
    parameters = {
        "database": database,
        "source": source,
        "resource": slice_.resource,
        "partitions": (slice_.partition,),
        "options": LoadOptions(slice_.window, run_id=flow_run.id, is_backfill=True),
    }
    return runner.submit(task, parameters)


def _watch(futures: Sequence[PrefectFuture[list[Entry]]], total: int) -> list[Exception]:
    """Wait for all windows, update the progress artifact, and return the errors."""
    if not futures:
        return []
    progress = cast(UUID, create_progress_artifact(_percent(total - len(futures), total)))
    shown_at = monotonic()
    for done, _ in enumerate(as_completed(list(futures)), start=total - len(futures) + 1):
        if monotonic() - shown_at >= SHOWN_EVERY_SECONDS or done == total:
            update_progress_artifact(progress, _percent(done, total))
            shown_at = monotonic()
    return errors_of(futures)


def _percent(done: int, total: int) -> float:
    return 100.0 * done / total
