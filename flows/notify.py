"""Flow `notify`: send a message when a run fails, its deployment recovers, or loads are unusual.

Its deployment's triggers in prefect.yaml start it. A deployment that fails repeatedly is one
incident: one message when it starts, and one when a run succeeds again.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
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
from blocks.environment import own
from flows.anomaly_events import ANOMALIES
from flows.errors import ConfigurationError
from flows.retries import Retry
from flows.tags import REPORTED_BY_PARENT

RECOVERED = "prefect.flow-run.Completed"
ENDED = {
    RECOVERED: "works again",
    "prefect.flow-run.TimedOut": "timed out",
    ANOMALIES: "has unusual loads",
}
SHOWN_LOADS = 20


@flow(name="notify", flow_run_name="{event}")
def notify(
    flow_run_id: UUID,
    event: str,
    said: str | None = None,
    blocks: tuple[str, ...] = (),
    retry: Retry = Retry(),  # noqa: B008 (never changed, and shown in Prefect's form)
) -> State[Any]:
    """Send a message that a run failed or has unusual loads, or that its deployment works again.

    Args:
        flow_run_id: The run that the event is about.
        event: Name of Prefect's event, e.g. prefect.flow-run.Failed.
        said: Message of the run's final state, or what is unusual.
        blocks: Prefect blocks that send the message, e.g. apprise/email.
        retry: How to retry a message that could not be sent.
    """
    if not blocks:
        raise ConfigurationError("notify has no notification block: name `blocks` in prefect.yaml.")
    with get_client(sync_client=True) as prefect:
        run = prefect.read_flow_run(flow_run_id)
        if not _is_news(prefect, run, event):
            get_run_logger().info("No message sent: already reported, or no incident is open.")
            return Completed(message="nothing to report")
        subject, body = message(prefect, run, event, said)
    if errors := _send_all(blocks, subject, body, retry):
        if len(errors) == len(blocks) and event not in (RECOVERED, ANOMALIES):
            _forget(run)
        raise errors[0]
    return Completed(message=subject)


def _is_news(prefect: SyncPrefectClient, run: FlowRun, event: str) -> bool:
    """Whether the event opens or closes an incident, or is none of one's."""
    if event == ANOMALIES:
        return True
    changes_incident = _close_incident if event == RECOVERED else _open_incident
    return REPORTED_BY_PARENT not in run.tags and changes_incident(prefect, run)


def incident(run: FlowRun) -> str:
    """Name of the Prefect variable that exists while the deployment's incident is open."""
    return f"incident_{(run.deployment_id or run.flow_id).hex}"


def _open_incident(prefect: SyncPrefectClient, run: FlowRun) -> bool:
    """Open an incident; True if this failure is its first. Of two concurrent calls, one gets True.

    A successful run also ends an incident if its event was never handled. Events arrive out of
    order: a failure that was followed by a success must not open an incident, because no event
    would close it.
    """
    if run.end_time and _has_succeeded_since(prefect, run, run.end_time):
        return False
    name, now = incident(run), datetime.now(UTC)
    try:
        prefect.create_variable(VariableCreate(name=name, value=now.isoformat()))
    except ObjectAlreadyExists:
        known = prefect.read_variable_by_name(name)
        since = datetime.fromisoformat(str(known.value)) if known else now
        if not _has_succeeded_since(prefect, run, since):
            return False
        prefect.delete_variable_by_name(name)
        return _open_incident(prefect, run)
    return True


def _close_incident(prefect: SyncPrefectClient, run: FlowRun) -> bool:
    """Close the incident; False if none was open."""
    if prefect.read_variable_by_name(incident(run)) is None:
        return False
    prefect.delete_variable_by_name(incident(run))
    return True


def _forget(run: FlowRun) -> None:
    """Delete the incident because no message got out: the next failure is reported as the first."""
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
    )
    return any(REPORTED_BY_PARENT not in each.tags for each in runs)


def message(
    prefect: SyncPrefectClient, run: FlowRun, event: str, said: str | None
) -> tuple[str, str]:
    """The subject and the text: the run with its link, its final message, its loads."""
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
    """The run's loads, from its table artifact."""
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
    """Send through all blocks, even if one fails; returns the errors."""
    futures = [
        send.with_options(
            task_run_name=block,
            retry_condition_fn=_is_retryable,
            **retry.options(),
        ).submit(block, subject, body)
        for block in blocks
    ]
    outcomes: list[object] = [future.result(raise_on_failure=False) for future in futures]
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]


def _is_retryable(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    return not isinstance(state.result(raise_on_failure=False), ConfigurationError)


@task(cache_policy=NO_CACHE)
def send(block: str, subject: str, body: str) -> None:
    """Send a message through a Prefect block.

    Raises:
        ConfigurationError: when the block is missing, or is not a notification block.
        NotificationError: when the message was not accepted.
    """
    name = own(block)
    try:
        channel = Block.load(name)
    except ValueError as error:
        raise ConfigurationError(
            f"The Prefect block {name!r} is missing. Set the channel's NOTIFY_…_URL and run "
            "`make deploy`, or remove it from notify's `blocks` in prefect.yaml."
        ) from error
    if not isinstance(channel, NotificationBlock):
        raise ConfigurationError(f"Prefect block {name!r} is not a notification block.")
    with channel.raise_on_failure():
        channel.notify(body, subject)  # type: ignore[unused-coroutine]  # not async here
