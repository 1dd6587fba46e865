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
from flows.errors import ConfigurationError
from flows.load.options import LoadOptions
from flows.load_tasks import (
    ResourceName,
    SourceName,
    errors_of,
    finish_run,
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
    full_refresh: bool = False,
    accept_shrinkage: bool = False,
    reset: bool = False,
    replay: bool = False,
    wait: bool = False,
    transform: bool = True,
    retry: Retry = Retry(),  # noqa: B008 (never changed, and shown in Prefect's form)
) -> State[Any]:
    """Load a source's resources into its raw tables, then build and test what depends on them.

    Loads that succeed are kept and built even where others fail; the run is failed all the same.
    Raw tables that did not change are not built again.

    Args:
        source: The source to load, e.g. northwind.
        resources: Which of its resources; empty means all.
        since: First day to load by hand (UTC); empty means from where the last load ended.
        until: First day not to load any more (UTC); empty means up to now.
        full_refresh: Read everything anew and delete rows the API no longer sends.
        accept_shrinkage: Let this run remove more rows from a table than `max_shrinkage` allows.
        reset: First delete all rows of the resources, which have to be named; then everything is
            read from the start, checkpoint by checkpoint.
        replay: Load what earlier loads set aside (elt.rejects) instead of asking the API.
        wait: Wait for another run that loads the same, instead of failing.
        transform: Build the marts afterwards.
        retry: How a load is tried again where the API or Postgres was away.
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
    )
    if replay and (full_refresh or reset or options.by_hand):
        raise ConfigurationError(
            "replay asks no API: leave full_refresh, reset, since and until empty."
        )
    if reset and not resources:
        raise ConfigurationError("reset deletes rows: name the resources it is for.")
    database = warehouse.load()
    if reset:
        reset_resources(database, api, chosen)
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
                else submit_loads(database, api, resource, options, retry, progress)
            )
        ]
        loads += len(futures)
        progress.watch(futures)
        errors += errors_of(futures)
    return finish_run(database, source, errors, loads, transform, retry)


def waves(resources: Sequence[Resource]) -> list[list[Resource]]:
    """The resources in the order in which they can be loaded: parents before their children.

    Raises:
        ConfigurationError: when two are each other's parents.
    """
    done: list[list[Resource]] = []
    left = list(resources)
    while left:
        names = {resource.name for resource in left}
        ready = [resource for resource in left if _parent(resource) not in names]
        if not ready:
            raise ConfigurationError(f"{', '.join(names)} are each other's parents.")
        done.append(ready)
        left = [resource for resource in left if resource not in ready]
    return done


def _parent(resource: Resource) -> str | None:
    return resource.partitions.resource if isinstance(resource.partitions, RowsOf) else None
