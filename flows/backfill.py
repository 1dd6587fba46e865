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
    """A window of one partition, as a partition with a ledger entry and a checkpoint of its own."""

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
    """Load a range of days by hand, split into windows, then build what changed.

    Windows that an earlier backfill has loaded are left out, so that after a failure the same run
    goes on where it ended. Where the regular loads stand does not change.

    Args:
        source: The source to load, e.g. open_meteo.
        since: First day to load (UTC).
        until: First day not to load any more (UTC).
        resources: Which of its resources; empty means all that can be read by date.
        window_days: Days in a window; windows are counted from `since`.
        at_once: How many windows are loaded at the same time.
        again: Load windows again that are loaded already.
        transform: Build the marts afterwards.
        retry: How a window is tried again where the API or Postgres was away.
    """
    api = sources.find(source)
    chosen = readable_by_date(api, resources)
    database = warehouse.load()
    windows = split(since, until, window_days)
    declared = [slice_ for each in chosen for slice_ in _slices(database, api, each, windows)]
    total = len(declared)
    slices = declared if again else _missing(database, api, declared)
    get_run_logger().info(
        "%d of %d windows are to be loaded, %d at a time.", len(slices), total, at_once
    )
    runner: ThreadPoolTaskRunner[list[Entry]] = ThreadPoolTaskRunner(max_workers=at_once)
    with runner:
        errors = _watched(
            [_submitted(runner, database, api, slice_, retry) for slice_ in slices], total
        )
    return finish_run(database, source, errors, len(slices), transform, retry)


def readable_by_date(source: Source, names: Sequence[str]) -> list[Resource]:
    """The resources that a window of days can be asked of.

    Raises:
        ConfigurationError: when a named one can't, or none can.
    """
    chosen = [source.resource(name) for name in names] or list(source.resources)
    readable = [each for each in chosen if each.cursor and each.writes != "replace"]
    if not readable or (names and len(readable) < len(chosen)):
        others = ", ".join(each.name for each in chosen if each not in readable)
        raise ConfigurationError(
            f"{source.name}: {others} can't be read by date: a `cursor` is missing, or `replace` "
            "reads everything anyway. Leave them out of `resources`, or run `elt`."
        )
    return readable


def split(since: date, until: date, days: int) -> list[Window]:
    """Windows of that many days from `since` on; the last one ends with `until`.

    Raises:
        ConfigurationError: when there is no day in the range.
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
    """The windows of all the resource's partitions."""
    with closing(database.connect()) as connection:
        partitions = partitions_of(connection, source.name, resource)
    return [
        Slice(resource, replace(partition, name=_named(partition, window)), window)
        for partition in partitions
        for window in windows
    ]


def _missing(database: Warehouse, source: Source, slices: Sequence[Slice]) -> list[Slice]:
    """Those that no earlier backfill has loaded."""
    names = {each.resource.name for each in slices}
    with database.transaction() as cursor:
        ledger.prepare(cursor, f"raw_{source.name}")
        for name in names:
            forget_lost_rows(cursor, Address(source.name, name, ""))
        loaded = {name: ledger.backfilled(cursor, source.name, name) for name in names}
    return [each for each in slices if each.partition.name not in loaded[each.resource.name]]


def _named(partition: Partition, window: Window) -> str:
    """`London 2024-01-01..2024-02-01`; without a partition only the days."""
    return f"{partition.name} {window.since:%Y-%m-%d}..{window.until:%Y-%m-%d}".strip()


def _submitted(
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


def _watched(futures: Sequence[PrefectFuture[list[Entry]]], total: int) -> list[Exception]:
    """Wait for all windows, and show now and then how far they are; returns what went wrong."""
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
