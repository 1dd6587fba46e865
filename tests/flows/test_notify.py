"""Promises of `notify`: its messages, its channels, and messages that could not be sent."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Failed

from blocks import notifications, warehouse
from deployments.local.postgres import ensure_database, libpq
from deployments.local.stack import Stack
from flows.anomaly_events import ANOMALIES
from flows.elt import elt
from flows.errors import ConfigurationError
from flows.notify import RECOVERED, incident, notify
from flows.tags import REPORTED_BY_PARENT
from tests.http_servers import Answer, Asked, Server

FAILED = "prefect.flow-run.Failed"
WEBHOOK = "custom-webhook/webhook"

Serve = Callable[[Callable[[Asked], Answer]], Server]


@pytest.fixture
def server(stack: object) -> Iterator[SyncPrefectClient]:
    """Prefect's server, on which no incident is known before or after."""
    with get_client(sync_client=True) as client:
        yield client
        for variable in client.read_variables():
            client.delete_variable_by_name(variable.name)


@pytest.fixture(scope="module")
def loaded(stack: Stack) -> UUID:
    """A run that loaded three rows."""
    url = ensure_database(stack.warehouse, "told")
    warehouse.save({warehouse.URL_VARIABLE: libpq(url)})
    state: State[Any] = elt(
        source="market", resources=("shippers",), transform=False, return_state=True
    )
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    return run_id


@pytest.fixture
def run(server: SyncPrefectClient, loaded: UUID) -> FlowRun:
    """The same, as the server knows it."""
    return server.read_flow_run(loaded)


def told(run: FlowRun, event: str, *blocks: str, **parameters: Any) -> State[Any]:
    """Run `notify` about a run."""
    state: State[Any] = notify(
        flow_run_id=run.id,
        event=event,
        said="it broke",
        blocks=blocks,
        return_state=True,
        **parameters,
    )
    return state


def test_a_message_names_the_run_its_final_message_and_its_loads(
    run: FlowRun, serve: Serve
) -> None:
    hook = serve(lambda _: Answer())
    notifications.save({"NOTIFY_WEBHOOK_URL": hook.url})
    assert told(run, FAILED, WEBHOOK).is_completed()
    [asked] = hook.asked
    for words in ("market failed", "flow: elt", str(run.id), "it broke"):
        assert words.encode() in asked.body
    assert b"market.shippers succeeded: 3 extracted, 3 inserted, 0 updated" in asked.body


def test_one_incident_is_one_message_until_a_run_goes_well(run: FlowRun, serve: Serve) -> None:
    hook = serve(lambda _: Answer())
    notifications.save({"NOTIFY_WEBHOOK_URL": hook.url})
    late = "prefect.flow-run.TimedOut"
    events = [RECOVERED, FAILED, FAILED, RECOVERED, RECOVERED, late]
    messages = [told(run, event, WEBHOOK).message for event in events]
    assert messages == [
        "nothing to report",
        "market failed",
        "nothing to report",
        "market works again",
        "nothing to report",
        "market timed out",
    ]
    assert len(hook.asked) == 3


def test_unusual_loads_are_told_beside_an_incident(
    run: FlowRun, serve: Serve, server: SyncPrefectClient
) -> None:
    """Each event is a message, and an incident stays open, also if the message is not sent."""
    statuses = [200, 200, 200, 500]
    hook = serve(lambda _: Answer(status=statuses.pop(0)))
    notifications.save({"NOTIFY_WEBHOOK_URL": hook.url})
    events = [ANOMALIES, FAILED, ANOMALIES, FAILED]
    assert [told(run, event, WEBHOOK).message for event in events] == [
        "market has unusual loads",
        "market failed",
        "market has unusual loads",
        "nothing to report",
    ]
    assert b"it broke" in hook.asked[0].body
    assert told(run, ANOMALIES, WEBHOOK).is_failed()
    assert server.read_variable_by_name(incident(run)) is not None


def test_a_failure_that_is_over_begins_no_incident(
    run: FlowRun, serve: Serve, server: SyncPrefectClient
) -> None:
    """Its event came late, or twice: a run that was started again has succeeded since."""
    hook = serve(lambda _: Answer())
    notifications.save({"NOTIFY_WEBHOOK_URL": hook.url})
    deployment = server.create_deployment(run.flow_id, "over")
    again = server.create_flow_run_from_deployment(deployment)
    server.set_flow_run_state(again.id, Failed(), force=True)
    assert told(again, FAILED, WEBHOOK).message == "over failed"
    server.set_flow_run_state(again.id, Completed(), force=True)
    assert told(again, RECOVERED, WEBHOOK).message == "over works again"
    assert told(again, FAILED, WEBHOOK).message == "nothing to report"
    assert server.read_variable_by_name(incident(again)) is None
    assert len(hook.asked) == 2


def test_a_run_that_another_one_reports_neither_begins_nor_ends_an_incident(
    run: FlowRun, serve: Serve, server: SyncPrefectClient
) -> None:
    hook = serve(lambda _: Answer())
    notifications.save({"NOTIFY_WEBHOOK_URL": hook.url})
    deployment = server.create_deployment(run.flow_id, "parts")

    def ended(state: State[Any], *tags: str) -> FlowRun:
        created = server.create_flow_run_from_deployment(deployment, tags=tags)
        server.set_flow_run_state(created.id, state, force=True)
        return server.read_flow_run(created.id)

    assert told(ended(Failed(), REPORTED_BY_PARENT), FAILED, WEBHOOK).message == "nothing to report"
    whole = ended(Failed())
    part = ended(Completed(), REPORTED_BY_PARENT)
    assert told(whole, FAILED, WEBHOOK).message == "parts failed"
    assert told(part, RECOVERED, WEBHOOK).message == "nothing to report"
    assert told(ended(Completed()), RECOVERED, WEBHOOK).message == "parts works again"


def test_an_incident_that_could_not_be_reported_is_reported_next_time(
    run: FlowRun, serve: Serve, server: SyncPrefectClient
) -> None:
    answers = [Answer(status=500), Answer(status=500), Answer()]
    hook = serve(lambda _: answers.pop(0))
    notifications.save({"NOTIFY_WEBHOOK_URL": hook.url})
    once_more = {"retries": 1, "delay_seconds": 0}
    assert told(run, FAILED, WEBHOOK, retry=once_more).is_failed()
    assert len(hook.asked) == 2
    assert server.read_variable_by_name(incident(run)) is None
    assert told(run, FAILED, WEBHOOK, retry=once_more).is_completed()
    assert len(hook.asked) == 3


def test_one_channel_that_fails_does_not_silence_the_others(run: FlowRun, serve: Serve) -> None:
    hook = serve(lambda _: Answer())
    notifications.save({"NOTIFY_WEBHOOK_URL": hook.url})
    state = told(run, FAILED, "apprise/nobody", WEBHOOK, retry={"retries": 3})
    assert len(hook.asked) == 1
    error = state.result(raise_on_failure=False)
    assert isinstance(error, ConfigurationError), "and it is not tried again for 90 seconds"
    assert "'apprise/nobody' is missing" in str(error)


def test_a_block_that_sends_nothing_is_refused(run: FlowRun) -> None:
    Secret(value="x").save("no-channel", overwrite=True)
    error = told(run, FAILED, "secret/no-channel").result(raise_on_failure=False)
    assert isinstance(error, ConfigurationError)
    assert "'secret/no-channel' is not a notification block" in str(error)


def test_without_a_block_nothing_is_silently_lost(run: FlowRun) -> None:
    error = told(run, FAILED).result(raise_on_failure=False)
    assert isinstance(error, ConfigurationError)
    assert "name `blocks` in prefect.yaml" in str(error)


def test_an_address_that_can_not_be_sent_to_is_refused_and_not_shown(stack: object) -> None:
    with pytest.raises(ConfigurationError, match="NOTIFY_EMAIL_URL") as refused:
        notifications.save({"NOTIFY_EMAIL_URL": "smpt://user:hunter2@example.com"})
    assert "hunter2" not in str(refused.value)
