"""Loads as Prefect tasks, and how a run of them ends; shared by `elt` and `backfill`.

Knows how Prefect names, retries and shows a load; `flows.load` does the loading.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Annotated, Any, TypeVar

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.assets import Asset, materialize
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.runtime import deployment, flow_run
from prefect.settings import get_current_settings
from prefect.states import Completed
from prefect.tasks import Task
from pydantic import Field

from blocks import secrets
from blocks.environment import own
from blocks.warehouse import Warehouse
from flows import sources
from flows.anomaly_events import tell_anomalies
from flows.errors import EltError, UnavailableError
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.guards import without_secrets
from flows.load import anomalies, ledger
from flows.load.group import FEW_PARTITIONS
from flows.load.ledger import Address, Entry
from flows.load.options import LoadOptions
from flows.load.orphans import delete_orphans, may_delete
from flows.load.partition_reader import ReadPages
from flows.load.partitions import partitions_of
from flows.load.replay import replay as replay_rejects
from flows.load.reset import reset
from flows.load.retention import MOST_DELETED, MOST_TRANSACTIONS, delete_old
from flows.load.side_by_side import Connect, OpenReader, load_side_by_side
from flows.page import Page
from flows.progress import Progress
from flows.refresh_tokens import RefreshTokens
from flows.retries import Retry, is_retryable
from flows.shared_rate import turns_of
from flows.source import Partition, Resource, RowsOf, Source
from flows.traffic import NO_TRAFFIC
from flows.transform import transform as build

# The columns of a run's table, and of its totals.
COUNTED = tuple(name for name in ledger.COUNTERS if name not in ("partitions", "pages"))

SHOWN_ERRORS = 20

# Drop-downs in Prefect's forms. `sources.find` and `Source.resource` report a wrong name.
SourceName = Annotated[str, Field(json_schema_extra={"enum": [*sources.names()]})]
ResourceName = Annotated[str, Field(json_schema_extra={"enum": [*sources.resource_names()]})]

Result = TypeVar("Result")


def reset_resources(database: Warehouse, source: Source, resources: Sequence[Resource]) -> None:
    """Delete the rows of some resources, so that their loads start from the beginning."""
    with closing(database.connect()) as connection:
        for resource in resources:
            reset(connection, source.name, resource.name, bool(resource.personal))
            get_run_logger().warning(
                "raw_%s.%s: deleted all rows; this run reads everything from the start.",
                source.name,
                resource.name,
            )


def submit_loads(
    database: Warehouse,
    source: Source,
    resource: Resource,
    options: LoadOptions,
    retry: Retry,
    progress: Progress,
    load: "LoadPartitions",
) -> list[PrefectFuture[list[Entry]]]:
    """Submit a task per declared partition if they are few, otherwise one task for all of them."""
    by_task = _partitions_by_task(database, source, resource, options.limit is not None)
    progress.expect(resource, sum(map(len, by_task.values())))
    return [
        as_task(load, source, resource, retry, name).submit(
            database, source, resource, partitions, options, progress
        )
        for name, partitions in by_task.items()
    ]


def submit_replays(
    database: Warehouse, source: Source, resource: Resource, options: LoadOptions, retry: Retry
) -> list[PrefectFuture[list[Entry]]]:
    """Submit the same tasks to replay the rejects of earlier loads."""
    return [
        as_task(replay_partitions, source, resource, retry, name).submit(
            database, source, resource, partitions, options
        )
        for name, partitions in _partitions_by_task(database, source, resource).items()
    ]


def _partitions_by_task(
    database: Warehouse, source: Source, resource: Resource, is_limited: bool = False
) -> Mapping[str, Sequence[Partition]]:
    """Partitions by the name of the task that loads them; one task shares out a limit."""
    declared = resource.partitions
    most = 1 if is_limited else FEW_PARTITIONS
    if not isinstance(declared, RowsOf) and len(declared) <= most:
        return {
            str(Address(source.name, resource.name, partition.name)): (partition,)
            for partition in declared
        }
    with closing(database.connect()) as connection:
        found = partitions_of(connection, source.name, resource)
    return {f"{Address(source.name, resource.name, '')} ({len(found)} partitions)": found}


def as_task(
    function: Callable[..., Result], source: Source, resource: Resource, retry: Retry, name: str
) -> Task[..., Result]:
    """The function as a task that materializes the raw table, so that Prefect shows lineage."""
    return materialize(
        raw_asset(source.name, resource.name),
        name=function.__name__,
        task_run_name=name,
        cache_policy=NO_CACHE,
        retry_condition_fn=is_retryable,
        **retry.options(),
    )(without_secrets(function))


def raw_asset(source: str, resource: str) -> Asset:
    """The Prefect asset of a raw table."""
    return Asset(key=f"postgres://{own('warehouse')}/raw_{source}/{resource}")


def load_partitions(
    database: Warehouse,
    source: Source,
    resource: Resource,
    partitions: Sequence[Partition],
    options: LoadOptions,
    progress: Progress | None = None,
) -> list[Entry]:
    """Load partitions of a resource side by side in this process.

    If one fails, the others are still loaded, unless the API is down. If all succeed, rows of
    partitions that no longer exist are deleted (`flows.load.orphans`).
    """
    read = progress.read if progress else read_pages
    with open_readers(database.connect, source, resource, read) as open_reader:
        entries, errors = load_side_by_side(
            database.connect,
            source.name,
            resource,
            partitions,
            open_reader,
            options,
            source.concurrency,
        )
    return finish_loads(database, source, resource, partitions, options, entries, errors)


# `load_partitions`, or `flows.cluster_loads.Cluster.load_partitions`.
LoadPartitions = Callable[
    [Warehouse, Source, Resource, Sequence[Partition], LoadOptions, Progress | None], list[Entry]
]


@contextmanager
def open_readers(
    connect: Connect, source: Source, resource: Resource, read: Callable[..., Iterator[Page]]
) -> Iterator[OpenReader]:
    """A client for one task; each thread of the task opens a reader of its own."""
    tokens = RefreshTokens(connect)
    with (
        turns_of(source, connect) as wait_for_turn,
        Client(source, secrets.read, wait_for_turn, tokens) as client,
    ):
        yield partial(_reader, client, source, resource, read)


@contextmanager
def _reader(
    client: Client, source: Source, resource: Resource, read: Callable[..., Iterator[Page]]
) -> Iterator[ReadPages]:
    """A reader of the resource's partitions for one thread."""
    with client.sibling() as own:
        yield partial(read, own, source, resource)


def finish_loads(
    database: Warehouse,
    source: Source,
    resource: Resource,
    partitions: Sequence[Partition],
    options: LoadOptions,
    entries: list[Entry],
    errors: Sequence[Exception],
) -> list[Entry]:
    """Delete orphans if all loads succeeded, log the totals, and return the entries.

    Raises:
        EltError: when a load failed; see `combine_errors`.
    """
    problems = list(errors)
    if not problems and may_delete(resource, options):
        with closing(database.connect()) as connection:
            try:
                entries += delete_orphans(connection, source, resource, options)
            except EltError as error:
                problems.append(error)
    _log_totals(entries)
    if problems:
        raise combine_errors(problems, len(partitions))
    return entries


def replay_partitions(
    database: Warehouse,
    source: Source,
    resource: Resource,
    partitions: Sequence[Partition],
    options: LoadOptions,
) -> list[Entry]:
    """Replay the rejects of some partitions."""
    entries = [
        entry
        for partition in partitions
        for entry in replay_rejects(database.connect, source.name, resource, partition, options)
    ]
    _log_totals(entries)
    return entries


def _log_totals(entries: Sequence[Entry]) -> None:
    totals = {name: sum(getattr(entry, name) for entry in entries) for name in COUNTED}
    counts = ", ".join(f"{total} {name}" for name, total in totals.items())
    traffic = sum((entry.traffic for entry in entries), NO_TRAFFIC)
    seconds = sum(entry.seconds for entry in entries)
    get_run_logger().info("%d loads: %s in %.1f s; %s", len(entries), counts, seconds, traffic)


def finish_run(
    database: Warehouse,
    source: Source,
    errors: Sequence[Exception],
    loads: int,
    transform: bool,
    retry: Retry,
) -> State[Any]:
    """Show the table of loads, run dbt if a load succeeded, and return the run's final state.

    Deletes the ledger's entries that are older than the source's `keep_ledger_days`.

    Raises:
        EltError: when a load or the build failed.
    """
    problems = list(errors)
    summary = ""
    try:
        summary = show_loads(database, source.name, flow_run.id)
        tell_anomalies(database, source.name)
        delete_old_loads(database, source)
    except UnavailableError as error:
        problems.append(error)
    if transform and len(errors) < loads:
        state = build(only_stale=True, retry=retry, return_state=True)
        if not state.is_completed():
            problems.append(_as_error(state.result(raise_on_failure=False)))
    if problems:
        raise combine_errors(problems, loads)
    return Completed(message=summary)


def delete_old_loads(database: Warehouse, source: Source) -> None:
    """Delete the source's old entries from the ledger, in short transactions."""
    for _ in range(MOST_TRANSACTIONS):
        with database.transaction() as cursor:
            deleted = delete_old(cursor, source.name, source.keep_ledger_days)
        if deleted < MOST_DELETED:
            return


def show_loads(database: Warehouse, source: str, run_id: str | None) -> str:
    """Show the run's ledger entries as a table artifact; returns the totals in one line.

    Includes their anomalies, failed loads with their error, and the attempts before a retry.
    """
    with database.transaction() as cursor:
        ledger.prepare(cursor, f"raw_{source}")
        entries = ledger.entries_of_run(cursor, run_id)
        loads = [entry.load_id for entry in entries]
        changes = ledger.schema_changes(cursor, loads)
        unusual = anomalies.of_loads(cursor, loads)
    create_table_artifact(
        key=own(f"loads-{source.replace('_', '-')}"),
        table=[
            _row(entry, changes.get(entry.load_id, []), unusual.get(entry.load_id, []))
            for entry in entries
        ],
        description=f"What this run loaded from {source}.{_other_runs()}",
    )
    totals = {name: sum(getattr(entry, name) for entry in entries) for name in COUNTED}
    counts = ", ".join(f"{total:,} {name}" for name, total in totals.items() if total)
    found = sum(map(len, unusual.values()))
    also = f"; anomalies: {found:,}" if found else ""
    return f"{len(entries)} loads: {counts or 'no records'}{also}"


def _row(entry: Entry, changes: Sequence[str], unusual: Sequence[str]) -> dict[str, Any]:
    return {
        "load": entry.title,
        "state": entry.state,
        "seconds": round(entry.seconds, 1),
        **{name: getattr(entry, name) for name in COUNTED},
        **entry.traffic.shown(),
        "schema changes": "; ".join(changes),
        "anomalies": "; ".join(unusual),
        "error": entry.error or "",
    }


def _other_runs() -> str:
    """A link to the deployment's runs in Prefect's UI; empty without a deployment."""
    ui = get_current_settings().ui_url
    if not (deployment.id and ui):
        return ""
    return f" [Other runs of this deployment]({ui}/deployments/deployment/{deployment.id}?tab=Runs)"


def midnight(day: date | None) -> datetime | None:
    """Start of the day in UTC."""
    return None if day is None else datetime.combine(day, time(), UTC)


def errors_of(futures: Iterable[PrefectFuture[list[Entry]]]) -> list[Exception]:
    """Wait for all loads, and return their errors."""
    outcomes = [future.result(raise_on_failure=False) for future in futures]
    return [_as_error(outcome) for outcome in outcomes if not isinstance(outcome, list)]


def _as_error(outcome: object) -> Exception:
    return outcome if isinstance(outcome, Exception) else EltError(str(outcome))


def combine_errors(errors: Sequence[Exception], loads: int) -> Exception:
    """Combine several failures into one exception.

    It has the type of the errors if that is the same for all. It is an UnavailableError, and so is
    retried, if any of them is: permanent errors fail again, and loaded rows are not loaded twice.
    """
    if len(errors) == 1:
        return errors[0]
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else EltError
    if any(isinstance(error, UnavailableError) for error in errors):
        kind = UnavailableError
    shown = [f"  {error}" for error in errors[:SHOWN_ERRORS]]
    more = [f"  and {len(errors) - SHOWN_ERRORS} more"] if len(errors) > SHOWN_ERRORS else []
    lines = "\n".join(shown + more)
    return kind(f"{len(errors)} errors in {loads} loads and their build:\n{lines}")
