"""A backfill that several runs of its deployment load: it starts them, and watches over them."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic, sleep
from typing import Any, cast
from uuid import UUID

from httpx import HTTPError
from prefect import get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.states import Cancelling
from prefect.types._datetime import now
from prefect.utilities.urls import url_for

from blocks.warehouse import Warehouse
from flows.backfill_chunks import Chunk, Request, cut
from flows.backfill_page import Page
from flows.backfill_windows import Slice, missing
from flows.errors import ConfigurationError, EltError, UnavailableError
from flows.source import Source
from flows.tags import CHUNK, REPORTED_BY_PARENT

POLL_SECONDS = 5.0
# A crashed run starts again after 20 seconds: deployments/automations.yaml.
CRASHED_SECONDS = 60.0
STALLED_SECONDS = 600.0
OUTAGE_SECONDS = 1800.0
_WAITING = {StateType.SCHEDULED, StateType.PAUSED}


def load_in_runs(
    database: Warehouse,
    source: Source,
    request: Request,
    declared: Sequence[Slice],
    runs_at_once: int,
) -> tuple[int, list[Exception]]:
    """Load what is missing in runs of this run's deployment, and wait for all of them.

    Unfinished runs of an earlier attempt are adopted: their windows are not loaded twice.
    Returns how many slices were to be loaded, and the errors of the runs.

    Raises:
        ConfigurationError: when this run has no deployment, or no other run can start beside it.
        UnavailableError: when Prefect does not respond for half an hour.
    """
    parent = _this_run()
    with get_client(sync_client=True) as prefect:
        slots = _free_slots(prefect, parent, runs_at_once)
        chunks = _plan(prefect, parent, database, source, request, declared, slots)
        page = Page(database, source.name, chunks, len(declared))
        children = Children(prefect, parent, request, chunks)
        get_run_logger().info(
            "Loading %d of %d windows in %d runs, %d at a time.",
            page.wanted,
            len(declared),
            len(chunks),
            slots,
        )
        try:
            while children.are_unfinished():
                children.go_on(slots)
                page.show()
        finally:
            page.show_now()
    return page.wanted, [error for chunk in chunks if (error := _error_of(chunk))]


def _plan(
    prefect: SyncPrefectClient,
    parent: FlowRun,
    database: Warehouse,
    source: Source,
    request: Request,
    declared: Sequence[Slice],
    slots: int,
) -> list[Chunk]:
    """The chunks in the order of their days: those of adopted runs, and of the runs to start.

    The ledger is read after the runs: a window that one of them loads in between is not missing.
    """
    adopted = _adopt(prefect, parent, request, declared)
    taken = adopted + _completed(prefect, parent, request, declared)
    slices = declared if request.again else missing(database, source, declared)
    for chunk in adopted:
        chunk.keys = frozenset(each.key for each in slices if chunk.contains(each.window))
    free = [each for each in slices if not any(chunk.contains(each.window) for chunk in taken)]
    chunks = adopted + cut(free, taken, slots, fewest=request.at_once)
    return sorted(chunks, key=lambda chunk: chunk.since)


def cancel_chunks(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Cancel the unfinished runs that a cancelled backfill started or adopted; a flow's hook."""
    with get_client(sync_client=True) as prefect:
        _cancel(prefect, _unfinished(prefect, flow_run, [_tag_of(flow_run)]))


def _this_run() -> FlowRun:
    """The present run.

    Raises:
        ConfigurationError: when it has no deployment.
    """
    context = FlowRunContext.get()
    run = cast(FlowRun | None, context and context.flow_run)
    if run is None or run.deployment_id is None:
        raise ConfigurationError(
            "With `runs_at_once` above 1, a backfill starts runs of its deployment, and this run "
            "has none. Start the deployment: `prefect deployment run backfill/backfill --param "
            "runs_at_once=…`. Or leave `runs_at_once` at 1."
        )
    return run


def _free_slots(prefect: SyncPrefectClient, parent: FlowRun, wanted: int) -> int:
    """How many runs can work beside this one, by the limits that the server knows.

    Raises:
        ConfigurationError: when none can.
    """
    limits = _limits(prefect, parent)
    for name, limit in limits.items():
        if limit < 2:
            raise ConfigurationError(_too_few_slots(f"{name} allows one run at a time"))
        if limit <= wanted:
            get_run_logger().warning(
                "%s allows %d runs at a time and this is one: %d load.", name, limit, limit - 1
            )
    return min([wanted, *(limit - 1 for limit in limits.values())])


def _limits(prefect: SyncPrefectClient, parent: FlowRun) -> dict[str, int]:
    """The limits of the runs at a time, by the name of what has them."""
    deployment = prefect.read_deployment(cast(UUID, parent.deployment_id))
    limits: dict[str, int | None] = {}
    if (own := deployment.global_concurrency_limit) and own.active:
        limits[f"The deployment {deployment.name}"] = own.limit
    if pool := deployment.work_pool_name:
        limits[f"The work pool {pool}"] = prefect.read_work_pool(pool).concurrency_limit
    if deployment.work_queue_id:
        queue = prefect.read_work_queue(deployment.work_queue_id)
        limits[f"The work queue {queue.name}"] = queue.concurrency_limit
    return {name: limit for name, limit in limits.items() if limit is not None}


def _too_few_slots(why: str) -> str:
    return (
        f"{why}, and this run needs one slot itself: give the work pool, its queue and its workers "
        "(`prefect worker start --limit`) one more slot than `runs_at_once`, or leave "
        "`runs_at_once` at 1."
    )


def _tag_of(parent: FlowRun) -> str:
    """The tag of the runs that work for this one."""
    return f"{CHUNK}-of-{parent.id}"


def _adopt(
    prefect: SyncPrefectClient, parent: FlowRun, request: Request, declared: Sequence[Slice]
) -> list[Chunk]:
    """The unfinished runs that load a part of the request; they get this run's tag."""
    chunks = _chunks_of(_unfinished(prefect, parent, [CHUNK]), request, declared)
    for chunk in chunks:
        if chunk.run and _tag_of(parent) not in chunk.run.tags:
            prefect.update_flow_run(chunk.run.id, tags=[*chunk.run.tags, _tag_of(parent)])
    return chunks


def _completed(
    prefect: SyncPrefectClient, parent: FlowRun, request: Request, declared: Sequence[Slice]
) -> list[Chunk]:
    """What earlier attempts of this run have loaded again; the ledger can't tell."""
    if not request.again:
        return []
    completed = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED]))
    tagged = FlowRunFilterTags(all_=[_tag_of(parent)])
    chosen = FlowRunFilter(tags=tagged, state=completed)
    return _chunks_of(prefect.read_flow_runs(flow_run_filter=chosen), request, declared)


def _chunks_of(runs: Sequence[FlowRun], request: Request, declared: Sequence[Slice]) -> list[Chunk]:
    windows = {each.window for each in declared}
    found = [(run, request.days_of(run, windows)) for run in runs]
    return [Chunk(*days, frozenset(), run) for run, days in found if days]


def _unfinished(prefect: SyncPrefectClient, parent: FlowRun, tags: Sequence[str]) -> list[FlowRun]:
    """The deployment's tagged runs that have not ended, or have crashed and may start again."""
    ended = FlowRunFilterStateType(not_any_=list(TERMINAL_STATES))
    crashed = FlowRunFilterStateType(any_=[StateType.CRASHED])
    since = FlowRunFilterEndTime(after_=now("UTC") - timedelta(seconds=CRASHED_SECONDS))
    tagged = FlowRunFilterTags(all_=list(tags))
    runs = [
        run
        for chosen in (
            FlowRunFilter(tags=tagged, state=FlowRunFilterState(type=ended)),
            FlowRunFilter(tags=tagged, state=FlowRunFilterState(type=crashed), end_time=since),
        )
        for run in prefect.read_flow_runs(
            flow_run_filter=chosen,
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[parent.deployment_id])),
        )
    ]
    return list({run.id: run for run in runs}.values())


def _cancel(prefect: SyncPrefectClient, runs: Sequence[FlowRun]) -> None:
    """Cancel runs; those that have ended meanwhile stay as they are."""
    for run in runs:
        with suppress(ObjectNotFound):
            prefect.set_flow_run_state(
                run.id, Cancelling(message="Its backfill has been cancelled or has given up.")
            )


def _is_over(chunk: Chunk) -> bool:
    """Whether its run has ended or is deleted; a crashed one may start again for a while."""
    state = chunk.state
    if state and state.is_crashed():
        return (now("UTC") - state.timestamp).total_seconds() > CRASHED_SECONDS
    return state is None or state.is_final()


def _is_at_work(chunk: Chunk) -> bool:
    return chunk.state is not None and chunk.state.type not in _WAITING


def _error_of(chunk: Chunk) -> EltError | None:
    """Why the chunk's run did not succeed, with a link to it; None if it did."""
    state = chunk.state
    if state and state.is_completed():
        return None
    if chunk.run is None or state is None:
        return EltError(f"{chunk}: its run was deleted")
    return EltError(
        f"{chunk}: {state.name}: {state.message} ({url_for(chunk.run) or chunk.run.id})"
    )


class Children:
    """The runs that load the chunks: never more than a number of them are unfinished."""

    def __init__(
        self,
        prefect: SyncPrefectClient,
        parent: FlowRun,
        request: Request,
        chunks: Sequence[Chunk],
    ) -> None:
        self._prefect = prefect
        self._parent = parent
        self._request = request
        self._waiting = [chunk for chunk in chunks if chunk.run is None]
        self._unfinished = [chunk for chunk in chunks if chunk.run]
        self._moved_at = self._reached_at = monotonic()

    def are_unfinished(self) -> bool:
        """Whether a run has not ended, or not been started."""
        return bool(self._waiting or self._unfinished)

    def go_on(self, runs_at_once: int) -> None:
        """Start runs up to that number, wait a few seconds, and read how far they are.

        Raises:
            ConfigurationError: when no run works and none has started for ten minutes.
            UnavailableError: when Prefect's API does not respond for half an hour.
        """
        try:
            while self._waiting and len(self._unfinished) < runs_at_once:
                self._start(self._waiting[0])
            sleep(POLL_SECONDS)
            self._poll()
            self._reached_at = monotonic()
        except HTTPError as error:
            self._bear(error)
        self._refuse_stall()

    def _start(self, chunk: Chunk) -> None:
        """Start the chunk's run; again with the same key if the server's answer was lost."""
        parent = self._parent
        started = run_deployment(
            cast(UUID, parent.deployment_id),
            parameters=self._request.parameters(chunk.since, chunk.until),
            tags=[CHUNK, REPORTED_BY_PARENT, _tag_of(parent)],
            idempotency_key=f"{parent.id} {parent.run_count} {chunk}",
            job_variables=parent.job_variables,
            timeout=0,
        )
        chunk.run = cast(FlowRun, started)
        self._waiting.remove(chunk)
        self._unfinished.append(chunk)

    def _poll(self) -> None:
        """Read the states of all unfinished runs with one request."""
        ids = [chunk.run.id for chunk in self._unfinished if chunk.run]
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=ids))
        found = {run.id: run for run in self._prefect.read_flow_runs(flow_run_filter=chosen)}
        for chunk in self._unfinished:
            chunk.run = found.get(chunk.run.id) if chunk.run else None
        over = [chunk for chunk in self._unfinished if _is_over(chunk)]
        self._unfinished = [chunk for chunk in self._unfinished if chunk not in over]
        if over or any(map(_is_at_work, self._unfinished)):
            self._moved_at = monotonic()

    def _refuse_stall(self) -> None:
        """Give up if no run works and none starts.

        Raises:
            ConfigurationError: after ten minutes; the runs are cancelled.
        """
        if self._unfinished and monotonic() - self._moved_at > STALLED_SECONDS:
            _cancel(self._prefect, [chunk.run for chunk in self._unfinished if chunk.run])
            raise ConfigurationError(
                _too_few_slots(f"None of the runs has started for {STALLED_SECONDS / 60:.0f} min")
            )

    def _bear(self, error: HTTPError) -> None:
        """Go on though Prefect's API did not respond: the runs go on as well."""
        if monotonic() - self._reached_at > OUTAGE_SECONDS:
            raise UnavailableError(
                f"Prefect's API can't be reached: {error}. The runs of this backfill go on; start "
                "it again to watch over them."
            ) from error
        get_run_logger().warning("Prefect's API did not respond, asking again: %s", error)
        sleep(POLL_SECONDS)
        self._moved_at = monotonic()
