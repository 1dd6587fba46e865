"""Flow `elt`: load a source's resources, then build what depends on them."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from blocks import warehouse
from flows import sources
from flows.cluster_loads import Cluster
from flows.errors import ConfigurationError
from flows.load.options import LoadOptions
from flows.load_tasks import (
    ResourceName,
    SourceName,
    errors_of,
    finish_run,
    load_partitions,
    midnight,
    reset_resources,
    submit_loads,
    submit_replays,
)
from flows.progress import Progress
from flows.retries import Retry
from flows.source import Resource, RowsOf, Window

LOADS_AT_ONCE = 4


@flow(
    name="elt",
    flow_run_name="{source}",
    task_runner=ThreadPoolTaskRunner(max_workers=LOADS_AT_ONCE),  # type: ignore[arg-type]
)
def elt(
    source: SourceName,
    resources: tuple[ResourceName, ...] = (),
    since: date | None = None,
    until: date | None = None,
    limit: int | None = None,
    full_refresh: bool = False,
    accept_shrinkage: bool = False,
    reset: bool = False,
    replay: bool = False,
    wait: bool = False,
    transform: bool = True,
    retry: Retry = Retry(),  # noqa: B008 (never changed, and shown in Prefect's form)
) -> State[Any]:
    """Load a source's resources into its raw tables, then build and test what depends on them.

    Successful loads are kept and built even if others fail; the run still ends as failed. The build
    skips raw tables that did not change.

    Args:
        source: The source to load, e.g. shop.
        resources: The resources to load; empty means all.
        since: First day to load (UTC, or the cursor's `zone`); empty means continue where the last
            load ended.
        until: Day to stop before (likewise); this day is not loaded. Empty means up to now.
        limit: Stop reading each resource after the page with which so many records are read, and
            leave the cursor where it is, to try a source. Empty means all.
        full_refresh: Read everything again and delete rows that the API no longer sends.
        accept_shrinkage: Let this run remove more rows from a table than `max_shrinkage` allows.
        reset: First delete all rows of the resources, which you must name; then read everything
            from the start, checkpoint by checkpoint.
        replay: Load the records that earlier loads rejected (elt.rejects); sends no requests to
            the API.
        wait: Wait for another run that loads the same partition, instead of failing.
        transform: Build the marts afterwards.
        retry: How to retry a load if the API or Postgres was unavailable.
    """
    api = sources.find(source)
    chosen = [api.resource(name) for name in resources] if resources else list(api.resources)
    window = Window(midnight(since), midnight(until))
    options = LoadOptions(
        window,
        full_refresh,
        waits=wait,
        run_id=flow_run.id,
        accepts_shrinkage=accept_shrinkage,
        limit=limit,
    )
    if replay and (full_refresh or reset or limit or options.by_hand):
        raise ConfigurationError(
            "replay does not read the API: leave full_refresh, reset, limit, since and until empty."
        )
    if reset and not resources:
        raise ConfigurationError("reset deletes rows: name the resources to reset.")
    database = warehouse.load()
    if reset:
        reset_resources(database, api, chosen)
    cluster = None if limit else Cluster.wanted()
    load = cluster.load_partitions if cluster else load_partitions
    errors: list[Exception] = []
    loads = 0
    progress = Progress(chosen)
    for wave in waves(chosen):
        futures = [
            future
            for resource in wave
            for future in (
                submit_replays(database, api, resource, options, retry)
                if replay
                else submit_loads(database, api, resource, options, retry, progress, load)
            )
        ]
        loads += len(futures)
        progress.watch(futures)
        errors += errors_of(futures)
    return finish_run(database, api, errors, loads, transform, retry)


def waves(resources: Sequence[Resource]) -> list[list[Resource]]:
    """Group the resources in loading order: parents before their children.

    Raises:
        ConfigurationError: when resources are each other's parents.
    """
    done: list[list[Resource]] = []
    remaining = list(resources)
    while remaining:
        names = {resource.name for resource in remaining}
        ready = [resource for resource in remaining if _parent(resource) not in names]
        if not ready:
            raise ConfigurationError(f"{', '.join(names)} are each other's parents.")
        done.append(ready)
        remaining = [resource for resource in remaining if resource not in ready]
    return done


def _parent(resource: Resource) -> str | None:
    return resource.partitions.resource if isinstance(resource.partitions, RowsOf) else None
