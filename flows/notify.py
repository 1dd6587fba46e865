"""Flow `notify`: a run that failed, or recovered, becomes a message.

Its deployment's triggers in prefect.yaml start it. A deployment that fails again and again is one
incident: it is told once when it begins, and once when a run succeeds again.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from prefect import flow, get_client, get_run_logger, task
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Completed
from prefect.tasks import Task
from prefect.utilities.urls import url_for

import blocks.notifications  # noqa: F401 (Prefect finds the block types that are imported)
from flows.errors import ConfigurationError
from flows.retries import Retry

RECOVERED = "prefect.flow-run.Completed"
ENDED = {RECOVERED: "works again", "prefect.flow-run.TimedOut": "timed out"}
SHOWN_LOADS = 20


@flow(name="notify", flow_run_name="{event}")
def notify(
    flow_run_id: UUID,
    event: str,
    said: str | None = None,
    blocks: tuple[str, ...] = (),
    retry: Retry = Retry(),  # noqa: B008 (never changed, and shown in Prefect's form)
) -> State[Any]:
    """Tell that a deployment's run ended badly, or that one went well again.

    Args:
        flow_run_id: The run that the event is about.
        event: What happened, e.g. prefect.flow-run.Failed.
        said: The message of the state that the run came to.
        blocks: Through which Prefect blocks it is sent, e.g. apprise/email.
        retry: How a message is sent again that could not be sent.
    """
    if not blocks:
        raise ConfigurationError(
            "notify has no block to send through: name `blocks` in prefect.yaml."
        )
    with get_client(sync_client=True) as prefect:
        run = prefect.read_flow_run(flow_run_id)
        if not (_ends(prefect, run) if event == RECOVERED else _begins(prefect, run)):
            get_run_logger().info("Nothing is sent: this incident was told, or there was none.")
            return Completed(message="nothing to tell")
        subject, body = message(prefect, run, event, said)
    if errors := _send_all(blocks, subject, body, retry):
        if len(errors) == len(blocks) and event != RECOVERED:
            _forget(run)
        raise errors[0]
    return Completed(message=subject)


def incident(run: FlowRun) -> str:
    """The Prefect variable that is there as long as the run's deployment fails."""
    return f"incident_{(run.deployment_id or run.flow_id).hex}"


def _begins(prefect: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether this failure is the first of its incident; of two that ask at once, one is.

    An incident is over, too, when a run has succeeded of which nobody was told. Events are not
    handled in their order: a failure after which a run has succeeded is over before it is told,
    and would begin an incident that nothing ends.
    """
    if run.end_time and _has_succeeded_since(prefect, run, run.end_time):
        return False
    name, now = incident(run), datetime.now(timezone.utc)
    try:
        prefect.create_variable(VariableCreate(name=name, value=now.isoformat()))
    except ObjectAlreadyExists:
        known = prefect.read_variable_by_name(name)
        since = datetime.fromisoformat(str(known.value)) if known else now
        if not _has_succeeded_since(prefect, run, since):
            return False
        prefect.delete_variable_by_name(name)
        return _begins(prefect, run)
    return True


def _ends(prefect: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether an incident was told that is over now."""
    if prefect.read_variable_by_name(incident(run)) is None:
        return False
    prefect.delete_variable_by_name(incident(run))
    return True


def _forget(run: FlowRun) -> None:
    """Nobody was told: the next failure is told as the first one."""
    with get_client(sync_client=True) as prefect:
        prefect.delete_variable_by_name(incident(run))


def _has_succeeded_since(prefect: SyncPrefectClient, run: FlowRun, since: datetime) -> bool:
    if run.deployment_id is None:
        return False
    runs = prefect.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[run.deployment_id])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])),
            end_time=FlowRunFilterEndTime(after_=since),
        ),
        limit=1,
    )
    return bool(runs)


def message(
    prefect: SyncPrefectClient, run: FlowRun, event: str, said: str | None
) -> tuple[str, str]:
    """The subject and the text: which run, where to look, what was said, what was loaded."""
    what = run.name
    if run.deployment_id is not None:
        what = prefect.read_deployment(run.deployment_id).name
    ended = ENDED.get(event) or event.rpartition(".")[2].lower()
    lines = [
        f"flow: {prefect.read_flow(run.flow_id).name}",
        f"deployment: {what}",
        f"run: {run.name} {url_for(run) or run.id}",
        f"began: {run.start_time:%Y-%m-%d %H:%M:%S} UTC" if run.start_time else "never began",
        "",
        said or "",
    ]
    return f"{what} {ended}", "\n".join([*lines, *_loads(prefect, run)]).rstrip()


def _loads(prefect: SyncPrefectClient, run: FlowRun) -> list[str]:
    """The run's loads, as its table artifact has them."""
    found = prefect.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    )
    rows = [
        row
        for artifact in found
        if artifact.type == "table" and isinstance(artifact.data, str)
        for row in json.loads(artifact.data)
    ]
    lines = [
        f"  {row['load']} {row['state']}: {row['extracted']} extracted, {row['inserted']} inserted,"
        f" {row['updated']} updated, {row['rejected']} rejected in {row['seconds']} s"
        for row in rows[:SHOWN_LOADS]
    ]
    more = [f"  and {len(rows) - SHOWN_LOADS} more"] if len(rows) > SHOWN_LOADS else []
    return ["", "loads:", *lines, *more] if lines else []


def _send_all(blocks: Sequence[str], subject: str, body: str, retry: Retry) -> list[Exception]:
    """Send through all blocks, also where one fails; returns what went wrong."""
    futures = [
        send.with_options(
            task_run_name=block,
            retry_condition_fn=_may_work_later,
            **retry.options(),
        ).submit(block, subject, body)
        for block in blocks
    ]
    outcomes: list[object] = [future.result(raise_on_failure=False) for future in futures]
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]


def _may_work_later(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    return not isinstance(state.result(raise_on_failure=False), ConfigurationError)


@task(cache_policy=NO_CACHE)
def send(block: str, subject: str, body: str) -> None:
    """Send a message through a Prefect block, and fail where that is not possible.

    Raises:
        ConfigurationError: when there is no such block, or it is none that sends messages.
        NotificationError: when the other side did not take the message.
    """
    try:
        channel = Block.load(block)
    except ValueError as error:
        raise ConfigurationError(
            f"The Prefect block {block!r} is missing. Set the channel's NOTIFY_…_URL and run `make "
            "deploy`, or take it out of notify's `blocks` in prefect.yaml."
        ) from error
    if not isinstance(channel, NotificationBlock):
        raise ConfigurationError(f"The Prefect block {block!r} is none that sends messages.")
    with channel.raise_on_failure():
        channel.notify(body, subject)  # type: ignore[unused-coroutine]  # none outside of async
