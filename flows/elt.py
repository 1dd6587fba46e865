"""Flow `elt`: load a source's resources, then build what depends on them."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from datetime import date, datetime, time, timezone
from functools import partial

from prefect import flow, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import rate_limit
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from blocks import secrets, warehouse
from blocks.warehouse import Warehouse
from flows import sources
from flows.declaration import Partition, Resource, RowsOf, Source, Window
from flows.errors import ConfigurationError, EltError, UnavailableError
from flows.extract.client import Client
from flows.extract.pages import read_pages
from flows.load.ledger import Address, Entry
from flows.load.load import load
from flows.load.partitions import partitions_of
from flows.load.replay import replay as replay_rejects
from flows.load.request import Request
from flows.transform import transform as transform_flow

LOADS_AT_ONCE = 4
COUNTED = ("extracted", "inserted", "updated", "unchanged", "rejected", "deleted")


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
    replay: bool = False,
    wait: bool = False,
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
        replay: Load what earlier loads set aside (elt.rejects) instead of asking the API.
        wait: Wait for another run that loads the same, instead of failing.
        transform: Build the marts afterwards.
    """
    api = sources.find(source)
    chosen = [api.resource(name) for name in resources] if resources else list(api.resources)
    window = Window(_midnight(since), _midnight(until))
    request = Request(window, full_refresh, waits=wait, run_id=flow_run.id)
    if replay and (full_refresh or request.by_hand):
        raise ConfigurationError("replay asks no API: leave full_refresh, since and until empty.")
    database = warehouse.load()
    errors: list[Exception] = []
    loads = 0
    for wave in waves(chosen):
        futures = [
            future
            for resource in wave
            for future in _submitted(database, api, resource, request, replay)
        ]
        loads += len(futures)
        errors += _errors(futures)
    if transform and len(errors) < loads:
        state = transform_flow(only_stale=True, return_state=True)
        if not state.is_completed():
            errors.append(_error(state.result(raise_on_failure=False)))
    if errors:
        raise _together(errors, loads)


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


def _submitted(
    database: Warehouse, source: Source, resource: Resource, request: Request, replay: bool
) -> list[PrefectFuture[list[Entry]]]:
    """A task per partition that is declared; one for all those that are rows of a parent."""
    load_them = replay_partitions if replay else load_partitions
    if isinstance(resource.partitions, RowsOf):
        with closing(database.connect()) as connection:
            found = partitions_of(connection, source.name, resource)
        name = f"{Address(source.name, resource.name, '')} ({len(found)} partitions)"
        shares = {name: found}
    else:
        shares = {
            str(Address(source.name, resource.name, partition.name)): (partition,)
            for partition in resource.partitions
        }
    return [
        load_them.with_options(task_run_name=name).submit(
            database, source, resource, partitions, request
        )
        for name, partitions in shares.items()
    ]


@task(cache_policy=NO_CACHE, retries=0)
def load_partitions(
    database: Warehouse,
    source: Source,
    resource: Resource,
    partitions: Sequence[Partition],
    request: Request,
) -> list[Entry]:
    """Load partitions of a resource one after the other, with a connection of their own.

    One that fails lets the others be loaded, unless the API is down.
    """
    turn = _turn(source)
    with (
        Client(source, secrets.read, turn) as client,
        closing(database.connect()) as connection,
    ):
        entries: list[Entry] = []
        errors: list[Exception] = []
        for partition in partitions:
            pages = partial(read_pages, client, source, resource, partition)
            try:
                entries.append(load(connection, source.name, resource, partition, pages, request))
            except EltError as error:
                errors.append(error)
                if isinstance(error, UnavailableError):
                    break
    _tell(entries)
    if errors:
        raise _together(errors, len(partitions))
    return entries


@task(cache_policy=NO_CACHE, retries=0)
def replay_partitions(
    database: Warehouse,
    source: Source,
    resource: Resource,
    partitions: Sequence[Partition],
    request: Request,
) -> list[Entry]:
    """Load again what the loads of some partitions set aside."""
    entries = [
        entry
        for partition in partitions
        for entry in replay_rejects(database.connect, source.name, resource, partition, request)
    ]
    _tell(entries)
    return entries


def _turn(source: Source) -> Callable[[], None]:
    """What waits for a turn among all workers, where Prefect has a limit of the source's name."""
    if source.rate is None:
        return lambda: None
    with get_client(sync_client=True) as prefect:
        try:
            prefect.read_global_concurrency_limit_by_name(source.name)
        except ObjectNotFound:
            return lambda: None
    return partial(rate_limit, source.name)


def _tell(entries: Sequence[Entry]) -> None:
    """The numbers of a task's loads, in one line."""
    totals = [sum(getattr(entry, name) for entry in entries) for name in COUNTED]
    said = ", ".join(f"{total} {name}" for total, name in zip(totals, COUNTED, strict=True))
    seconds = sum(entry.seconds for entry in entries)
    get_run_logger().info("%d loads: %s in %.1f s", len(entries), said, seconds)


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), timezone.utc)


def _errors(futures: Iterable[PrefectFuture[list[Entry]]]) -> list[Exception]:
    """Wait for all loads, and return what went wrong."""
    outcomes = [future.result(raise_on_failure=False) for future in futures]
    return [_error(outcome) for outcome in outcomes if not isinstance(outcome, list)]


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
