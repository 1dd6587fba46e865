"""Flow `elt`: load a source's resources, then build what depends on them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, time, timezone

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from blocks import warehouse
from blocks.warehouse import Warehouse
from flows import sources
from flows.declaration import Page, Partition, Resource, Resume, Source, Window
from flows.errors import EltError
from flows.extract.client import Client
from flows.extract.pages import read_pages
from flows.load.ledger import Address, Entry
from flows.load.load import load
from flows.load.request import Request
from flows.transform import transform as transform_flow

LOADS_AT_ONCE = 4


@flow(
    name="elt",
    flow_run_name="{source}",
    task_runner=ThreadPoolTaskRunner(max_workers=LOADS_AT_ONCE),  # type: ignore[arg-type]
)
def elt(
    source: str,
    resources: list[str] | None = None,
    since: date | None = None,
    until: date | None = None,
    full_refresh: bool = False,
    transform: bool = True,
) -> None:
    """Load a source's resources into its raw tables, then build and test what depends on them.

    Loads that succeed are kept and built even where others fail; the run is failed all the same.
    Raw tables that did not change are not built again.

    Args:
        source: The source to load, e.g. northwind.
        resources: Which of its resources; empty means all.
        since: First day to load by hand (UTC); empty means from where the last load ended.
        until: First day not to load any more (UTC); empty means up to now.
        full_refresh: Read everything anew and delete rows the API no longer sends.
        transform: Build the marts afterwards.
    """
    api = sources.find(source)
    chosen = [api.resource(name) for name in resources] if resources else list(api.resources)
    request = Request(Window(_midnight(since), _midnight(until)), full_refresh, flow_run.id)
    database = warehouse.load()
    futures = [
        load_partition.with_options(
            task_run_name=str(Address(source, resource.name, partition.name))
        ).submit(database, api, resource, partition, request)
        for resource in chosen
        for partition in resource.partitions
    ]
    errors = _errors(futures)
    if transform and len(errors) < len(futures):
        state = transform_flow(only_stale=True, return_state=True)
        if not state.is_completed():
            errors.append(_error(state.result(raise_on_failure=False)))
    if errors:
        raise _together(errors, len(futures))


@task(cache_policy=NO_CACHE, retries=0)
def load_partition(
    database: Warehouse, source: Source, resource: Resource, partition: Partition, request: Request
) -> Entry:
    """Load one resource partition, with a connection of its own."""
    with Client(source) as client, closing(database.connect()) as connection:

        def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
            return read_pages(client, source, resource, partition, window, resume)

        entry = load(connection, source.name, resource, partition, pages, request)
    get_run_logger().info(
        "%s extracted, %s inserted, %s updated, %s unchanged, %s rejected, %s deleted in %.1f s",
        *(entry.extracted, entry.inserted, entry.updated),
        *(entry.unchanged, entry.rejected, entry.deleted, entry.seconds),
    )
    return entry


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), timezone.utc)


def _errors(futures: Iterable[PrefectFuture[Entry]]) -> list[Exception]:
    """Wait for all loads, and return what went wrong."""
    outcomes = [future.result(raise_on_failure=False) for future in futures]
    return [_error(outcome) for outcome in outcomes if not isinstance(outcome, Entry)]


def _error(outcome: object) -> Exception:
    return outcome if isinstance(outcome, Exception) else EltError(str(outcome))


def _together(errors: Sequence[Exception], loads: int) -> Exception:
    """One error that says it all; of the errors' own kind where they are all of one."""
    if len(errors) == 1:
        return errors[0]
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else EltError
    lines = "\n".join(f"  {error}" for error in errors)
    return kind(f"{len(errors)} things went wrong in {loads} loads and their build:\n{lines}")
