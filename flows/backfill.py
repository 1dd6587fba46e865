"""Flow `backfill`: load a long range of days in windows, several at a time."""

from collections.abc import Sequence
from datetime import date
from time import monotonic
from typing import Annotated, Any, cast
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from blocks import warehouse
from blocks.warehouse import Warehouse
from flows import sources
from flows.backfill_chunks import Request
from flows.backfill_runs import cancel_chunks, load_in_runs
from flows.backfill_windows import Slice, missing, readable_by_date, slices_of, split
from flows.load.ledger import Address, Entry
from flows.load.options import LoadOptions
from flows.load_tasks import (
    ResourceName,
    SourceName,
    as_task,
    errors_of,
    finish_run,
    load_partitions,
)
from flows.progress import SHOWN_EVERY_SECONDS
from flows.retries import Retry
from flows.source import Source


@flow(
    name="backfill",
    flow_run_name="{source} {since} to {until}",
    on_cancellation=[cancel_chunks],
)
def backfill(
    source: SourceName,
    since: date,
    until: date,
    resources: tuple[ResourceName, ...] = (),
    window_days: Annotated[int, Field(ge=1, le=3660)] = 31,
    at_once: Annotated[int, Field(ge=1, le=16)] = 4,
    runs_at_once: Annotated[int, Field(ge=1, le=25)] = 1,
    again: bool = False,
    transform: bool = True,
    retry: Retry = Retry(),  # noqa: B008 (never changed, and shown in Prefect's form)
) -> State[Any]:
    """Load a range of days in windows, then build what changed.

    Skips windows that an earlier backfill loaded: after a failure, start the same run again to
    resume it. Regular loads still continue where they ended.

    Args:
        source: The source to load, e.g. shop.
        since: First day to load (UTC, or the cursor's `zone`).
        until: Day to stop before (likewise); this day is not loaded.
        resources: The resources to load; empty means all that can be read by date.
        window_days: Days per window, counted from `since`.
        at_once: How many windows a run loads at the same time.
        runs_at_once: How many runs of this deployment load the windows; with 1, this run does.
        again: Also load windows that an earlier backfill has loaded.
        transform: Build the marts afterwards.
        retry: How to retry a window if the API or Postgres was unavailable.
    """
    api = sources.find(source)
    chosen = readable_by_date(api, resources)
    database = warehouse.load()
    windows = split(since, until, window_days)
    declared = slices_of(database, api, chosen, windows)
    if runs_at_once > 1:
        request = Request(source, resources, window_days, at_once, again, retry)
        loads, errors = load_in_runs(database, api, request, declared, runs_at_once)
    else:
        slices = declared if again else missing(database, api, declared)
        loads, errors = len(slices), _load(database, api, slices, len(declared), at_once, retry)
    state = finish_run(database, api, errors, loads, transform, retry)
    if runs_at_once > 1:
        return Completed(message=f"{loads:,} windows were loaded by other runs")
    return state


def _load(
    database: Warehouse,
    source: Source,
    slices: Sequence[Slice],
    total: int,
    at_once: int,
    retry: Retry,
) -> list[Exception]:
    """Load windows in this run; returns the errors."""
    get_run_logger().info("Loading %d of %d windows, %d at a time.", len(slices), total, at_once)
    runner: ThreadPoolTaskRunner[list[Entry]] = ThreadPoolTaskRunner(max_workers=at_once)
    with runner:
        futures = [_submit(runner, database, source, slice_, retry) for slice_ in slices]
        return _watch(futures, total)


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
