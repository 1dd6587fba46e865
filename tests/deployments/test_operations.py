"""The deployed flows on a real worker: retries, notifications, and the effects of a kill."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from conftest import TREE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    LogFilter,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import FlowRun, Log, StateType
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.states import Failed, Running
from prefect.types._datetime import now

from blocks import warehouse
from blocks.__main__ import save
from deployments import deploy
from deployments.local.message_sink import Message, receiving
from deployments.local.postgres import libpq
from deployments.local.processes import child
from deployments.local.stack import Stack
from tests.deployments.command_line import run_module
from tests.http_servers import Answer, serving

CANARY = "canary-4f1d"
DEADLINE_SECONDS = 120
AWAY = Answer(status=503, headers={"Retry-After": "999999"})
REFUSED = Answer(status=401)

Ask = Callable[..., list[tuple]]
Record = dict[str, Any]


class Inbox:
    """The messages of `notify` about market so far, without those of the server."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.messages: list[Message] = []

    def tell(self, message: Message) -> None:
        if "deployment: market" not in message.text:
            return
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait_for(self, count: int) -> list[Message]:
        """Wait for that many messages, and return them."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.messages) >= count, DEADLINE_SECONDS)
        assert arrived, self.messages
        return self.messages


class Api:
    """The market API, which can first return other responses; and its worker."""

    settings: dict[str, str]
    worker: "subprocess.Popen[bytes]"

    def __init__(self, base: str) -> None:
        self._base = base
        self.said: list[Answer] = []
        self.changed: dict[str, Callable[[list[Record]], object]] = {}
        self.is_held = threading.Event()
        self.held: threading.Event | None = None

    @contextmanager
    def hold(self) -> Iterator[threading.Event]:
        """Let requests wait until the block ends; the event is set when one does."""
        self.is_held.clear()
        held = self.held = threading.Event()
        try:
            yield self.is_held
        finally:
            self.held = None
            held.set()

    def answer(self, path: str) -> Answer:
        if self.said:
            return self.said.pop(0)
        if held := self.held:
            self.is_held.set()
            held.wait(DEADLINE_SECONDS)
        document = requests.get(self._base + path.lstrip("/"), timeout=10).json()
        if change := self.changed.get(path.lstrip("/").partition("?")[0]):
            change(document["value"])
        return Answer(json.dumps(document).encode())


@pytest.fixture(scope="module")
def inbox() -> Iterator[tuple[Inbox, dict[str, str]]]:
    """The arriving messages, and the channels that they use."""
    arrived = Inbox()
    with receiving(arrived.tell) as channels:
        yield arrived, dict(channels)


@pytest.fixture(scope="module")
def api(stack: Stack, inbox: tuple[Inbox, dict[str, str]]) -> Iterator[Api]:
    """The API of a worker that runs what `make deploy` deployed."""
    said = Api(stack.environment["MARKET_BASE_URL"])
    run_module(stack, "deployments.deploy", environment=secret(inbox[1]))
    with serving() as serve:
        said.settings = {
            **stack.environment,
            "MARKET_BASE_URL": serve(said.answer).url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        with working(said) as said.worker:
            yield said


def working(api: Api) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """A worker, as long as the block lasts."""
    log = Path(os.environ["PREFECT_HOME"]) / "worker.log"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "elt"]
    return child(command, log, api.settings)


def secret(channels: dict[str, str]) -> dict[str, str]:
    """The channels' addresses, and other secrets, with a canary in them."""
    return {
        **channels,
        "NOTIFY_WEBHOOK_URL": f"{channels['NOTIFY_WEBHOOK_URL']}?token={CANARY}",
        "NOTIFY_SLACK_URL": f"json://127.0.0.1/{CANARY}",
        "GIT_TOKEN": CANARY,
    }


def start(server: SyncPrefectClient, **parameters: Any) -> FlowRun:
    """Start a run of elt/market, which by default loads only its shippers."""
    deployment = server.read_deployment_by_name("elt/market")
    defaults = {"resources": ["shippers"], "transform": False}
    return server.create_flow_run_from_deployment(
        deployment.id,
        parameters={**defaults, "retry": {"retries": 2, "delay_seconds": 0}, **parameters},
    )


def ended(server: SyncPrefectClient, run: FlowRun) -> FlowRun:
    """Wait for the run's end, and return it."""
    return wait_until(lambda: server.read_flow_run(run.id), is_over)


def is_over(run: FlowRun) -> bool:
    """True if the run has ended."""
    return run.state is not None and run.state.is_final()


def is_left_out(run: FlowRun) -> bool:
    """True if a scheduled run was cancelled because the previous one was still running."""
    return run.state is not None and run.state.is_cancelled()


def wait_until(read: Callable[[], Any], is_so: Callable[[Any], bool]) -> Any:
    """Poll until the result meets the condition."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so(found := read()):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def loads_of(server: SyncPrefectClient, run: FlowRun) -> str:
    """The text above the table of the run's loads."""
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    found = server.read_artifacts(artifact_filter=of_run)
    [table] = [artifact for artifact in found if artifact.type == "table"]
    return str(table.description)


def notify_runs(server: SyncPrefectClient, count: int) -> list[FlowRun]:
    """Wait for that many ended runs of `notify` since the module began, and return all."""

    def read() -> list[FlowRun]:
        return server.read_flow_runs(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=["notify"]))
        )

    return wait_until(read, lambda runs: len(runs) >= count and all(map(is_over, runs)))


def states(ask: Ask) -> list[str]:
    """How the loads ended, in order."""
    return [state for (state,) in ask("select state from elt.loads order by load_id")]


@pytest.mark.long
def test_the_server_has_what_the_files_declare(
    api: Api, inbox: tuple[Inbox, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Including schedules with their time zones; a second `make deploy` changes nothing."""
    for name, value in secret(inbox[1]).items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    declared = yaml.safe_load((TREE / "prefect.yaml").read_text())["deployments"]
    assert any(entry.get("schedules") for entry in declared)
    with get_client(sync_client=True) as server, deploy.inside(TREE):
        deploy.plan(server, TREE, said.append)
        for entry in declared:
            flow = entry["entrypoint"].rpartition(":")[2]
            found = server.read_deployment_by_name(f"{flow}/{entry['name']}")
            assert [
                (each.slug, getattr(each.schedule, "cron", None), each.schedule.timezone or "UTC")
                for each in found.schedules
            ] == [
                (wanted["slug"], wanted.get("cron"), wanted.get("timezone") or "UTC")
                for wanted in entry.get("schedules", [])
            ]
    assert said == [deploy.NOTHING]


@pytest.mark.long
def test_retryable_failures_are_retried_and_an_incident_is_reported_once(
    stack: Stack, api: Api, inbox: tuple[Inbox, dict[str, str]], ask: Ask
) -> None:
    arrived, _ = inbox
    with get_client(sync_client=True) as server:
        api.said = [REFUSED]
        first = ended(server, start(server))
        assert first.state.is_failed()
        assert states(ask) == ["failed"], "a refused login is not tried again"
        messages = arrived.wait_for(2)
        assert {message.channel for message in messages} == {"mail", "webhook"}
        for message in messages:
            told = f"{message.subject}\n{message.text}"
            assert "market failed" in told
            assert f"/runs/flow-run/{first.id}" in told
            assert "401" in told
            assert "market.shippers failed: 0 extracted" in told
        assert f"/deployments/deployment/{first.deployment_id}?tab=Runs)" in loads_of(server, first)

        lasting = server.create_flow_run_from_deployment(first.deployment_id, state=Running())
        server.set_flow_run_state(lasting.id, Failed(name="TimedOut"), force=True)
        assert len(notify_runs(server, 2)) == 2, "a run that takes too long starts notify as well"
        api.said = [AWAY, AWAY]
        assert ended(server, start(server)).state.is_completed()
        assert states(ask)[1:] == ["failed", "failed", "succeeded"]
        messages = arrived.wait_for(4)
        runs = notify_runs(server, 3)
        assert len(runs) == 3
        assert all(run.state.is_completed() for run in runs), [run.state for run in runs]
        assert sum(run.state.message == "nothing to report" for run in runs) == 1
        assert len(arrived.messages) == 4
        assert all("market works again" in f"{m.subject}{m.text}" for m in messages[2:])


@pytest.mark.long
def test_a_killed_run_is_reported_and_restarted_and_loads_everything(
    stack: Stack, api: Api, inbox: tuple[Inbox, dict[str, str]], ask: Ask
) -> None:
    arrived, _ = inbox
    before = len(arrived.messages)
    with get_client(sync_client=True) as server:
        told_before = len(notify_runs(server, 0))
        with api.hold() as is_held:
            run = start(server, resources=["order_details"])
            assert is_held.wait(DEADLINE_SECONDS)
            [process] = processes_of(run)
            assert wait_until(lambda: heartbeats(server, run), bool)
            process.send_signal(signal.SIGKILL)
            messages = arrived.wait_for(before + 2)[before:]
        assert all("market crashed" in f"{m.subject}{m.text}" for m in messages)
        done = wait_until(lambda: server.read_flow_run(run.id), is_completed)
        assert done.run_count == 2
        assert ask("select count(*) from raw_market.order_details") == [(2182,)]
        assert states(ask) == ["abandoned", "succeeded"]
        messages = arrived.wait_for(before + 4)[before + 2 :]
        assert all("market works again" in f"{m.subject}{m.text}" for m in messages)
        notify_runs(server, told_before + 2)
        assert len(arrived.messages) == before + 4, "a crash that is reported twice is told once"


def heartbeats(server: SyncPrefectClient, run: FlowRun) -> list[datetime]:
    """The times of the run's heartbeats, in order."""
    wanted = {
        "occurred": {"since": str(run.created), "until": now("UTC").isoformat()},
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run.id}"]},
    }
    answer = server.request("POST", "/events/filter", json={"filter": wanted})
    return sorted(datetime.fromisoformat(event["occurred"]) for event in answer.json()["events"])


def is_completed(run: FlowRun) -> bool:
    """True if the run finally succeeded."""
    return run.state is not None and run.state.is_completed()


def processes_of(run: FlowRun) -> list[psutil.Process]:
    """The process that runs the flow."""
    return [
        process
        for process in psutil.process_iter()
        if "prefect.engine" in " ".join(_command(process))
        and _environment(process).get("PREFECT__FLOW_RUN_ID", "").replace("-", "") == run.id.hex
    ]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.NoSuchProcess:
        return {}


@pytest.mark.long
def test_two_schedules_start_runs_and_one_due_too_early_is_cancelled(
    stack: Stack, api: Api, ask: Ask
) -> None:
    with get_client(sync_client=True) as server:
        deployment = server.read_deployment_by_name("elt/market")

        def scheduled(state: StateType) -> list[FlowRun]:
            return server.read_flow_runs(
                deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
                flow_run_filter=FlowRunFilter(
                    state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state])),
                    expected_start_time=FlowRunFilterExpectedStartTime(after_=begun_at),
                ),
            )

        begun_at = now("UTC")
        with api.hold() as is_held:
            schedules = server.create_deployment_schedules(
                deployment.id,
                [
                    DeploymentScheduleCreate(
                        schedule=IntervalSchedule(interval=timedelta(seconds=5)),
                        slug=slug,
                        parameters={"resources": ["shippers"], "transform": False},
                    )
                    for slug in ("often", "as-often")
                ],
            )
            assert is_held.wait(DEADLINE_SECONDS)
            left_out = wait_until(lambda: scheduled(StateType.CANCELLED), bool)
            for schedule in schedules:
                server.delete_deployment_schedule(deployment.id, schedule.id)
        done = wait_until(lambda: scheduled(StateType.COMPLETED), bool)
    assert "concurrency limit" in str(left_out[0].state and left_out[0].state.message)
    assert all(run.auto_scheduled for run in [*done, *left_out])
    assert "succeeded" in states(ask)


@pytest.mark.long
def test_rejects_and_failed_dbt_tests_are_reported_and_no_secret_leaks(
    stack: Stack, api: Api, inbox: tuple[Inbox, dict[str, str]], ask: Ask, warehouse_url: Any
) -> None:
    """Of secrets: the warehouse's password, the channels' addresses and the Git token."""
    arrived, channels = inbox
    login = libpq(warehouse_url.set(password=CANARY))
    begun_at = now("UTC")
    with get_client(sync_client=True) as server:
        save({"WAREHOUSE_URL": login, **secret(channels)})
        assert warehouse.load().url.password == CANARY
        api.changed = {
            "Suppliers": lambda records: records[0].pop("SupplierID"),  # of two pages
            "Categories": lambda records: records.remove(records[0]),
        }
        before = len(arrived.messages)
        run = start(server, resources=["suppliers", "categories", "products"], transform=True)
        assert ended(server, run).state.is_failed()
        for message in arrived.wait_for(before + 2)[before:]:
            assert "market.suppliers: 2 records could not be stored" in message.text
            assert "market.suppliers failed: 29 extracted" in message.text
            assert "2 rejected in" in message.text
            assert "test relationships_stg_market__products_category_id" in message.text
        api.changed = {}
        notify_runs(server, 1)
        since = FlowRunFilterExpectedStartTime(after_=begun_at)
        runs = server.read_flow_runs(flow_run_filter=FlowRunFilter(expected_start_time=since))
        logs = list(logs_since(server, begun_at))
        said = [
            *server.read_deployments(),
            *runs,
            *server.read_task_runs(flow_run_filter=FlowRunFilter(expected_start_time=since)),
            *server.read_artifacts(flow_run_filter=FlowRunFilter(expected_start_time=since)),
            *server.read_variables(),
            *server.read_automations(),
            *logs,
            *server.read_block_documents(include_secrets=False),
        ]
        over = {each.id for each in runs if is_over(each) and not is_left_out(each)}
        assert len(over) >= 3, "elt, its build, notify; others are due later"
        assert {log.flow_run_id for log in logs} >= over
        assert all(CANARY not in each.model_dump_json() for each in said)
    dbt_files = Path(stack.environment["DBT_TARGET_PATH"])
    files = [
        *(path for path in dbt_files.rglob("*") if path.suffix in (".json", ".log")),
        Path(os.environ["PREFECT_HOME"]) / "worker.log",
    ]
    assert len(files) >= 3
    assert [file for file in files if CANARY in file.read_text(errors="replace")] == []


def logs_since(server: SyncPrefectClient, begun_at: datetime) -> Iterator[Log]:
    """All log lines of the server since then; it returns them in pages."""
    offset = 0
    chosen = LogFilter(timestamp=LogFilterTimestamp(after_=begun_at))
    while page := server.read_logs(chosen, limit=200, offset=offset):
        yield from page
        offset += len(page)


@contextmanager
def silence_of(server: SyncPrefectClient, seconds: float) -> Iterator[None]:
    """Mark runs as crashed after that many seconds without heartbeat."""
    [before] = [
        automation
        for automation in server.read_automations()
        if automation.name == "elt run without heartbeat"
    ]
    server.update_automation(before.id, within(before, seconds))
    try:
        yield
    finally:
        server.update_automation(before.id, within(before, before.trigger.within.total_seconds()))


def within(automation: Automation, seconds: float) -> AutomationCore:
    """The automation with another time in its trigger."""
    body = automation.model_dump(exclude={"owner_resource"})
    body["trigger"]["within"] = timedelta(seconds=seconds)
    return AutomationCore.model_validate(body)


@pytest.mark.long
def test_a_run_whose_machine_dies_is_crashed_and_resumed_by_the_next_worker(
    stack: Stack, api: Api, ask: Ask
) -> None:
    """Heartbeats have the interval of prefect.yaml. Must be the last test: it kills the worker."""
    with get_client(sync_client=True) as server, silence_of(server, 70):
        with api.hold() as is_held:
            run = start(server)
            assert is_held.wait(DEADLINE_SECONDS)
            first, second = wait_until(lambda: heartbeats(server, run), lambda all_: len(all_) == 2)
            assert 58 < (second - first).total_seconds() < 68
            [process] = processes_of(run)
            for dies in (psutil.Process(api.worker.pid), process):
                dies.send_signal(signal.SIGKILL)
        wait_until(
            lambda: server.read_flow_run(run.id), lambda read: read.state_name == "AwaitingRetry"
        )
        past = {state.name: state.message for state in server.read_flow_run_states(run.id)}
        assert past["Crashed"] == "No heartbeat for ten minutes."
        with working(api):
            done = wait_until(lambda: server.read_flow_run(run.id), is_completed)
        assert done.run_count == 2
        assert states(ask) == ["abandoned", "succeeded"]
