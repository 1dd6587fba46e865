"""A backfill in several runs on a real worker: its runs killed, and cancelled.

Tried with CHAOS=full. The automations of deployments/automations.yaml restart what was killed.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from deployments.local.message_sink import Message, receiving
from deployments.local.processes import child
from deployments.local.stack import Stack
from flows.tags import CHUNK
from tests.deployments.command_line import run_module
from tests.deployments.test_operations import is_over, processes_of, wait_until
from tests.http_servers import Answer, serving

Ask = Callable[..., list[tuple]]

# Eight windows in two chunks.
PARAMETERS = {
    "source": "climate",
    "since": "2020-01-01",
    "until": "2020-03-21",
    "window_days": 10,
    "at_once": 1,
    "runs_at_once": 2,
    "transform": False,
}
ONCE = [(8, 8, 80)]
LOADED = (
    "select count(*) filter (where state = 'succeeded'), count(distinct partition),"
    " (select count(*) from raw_climate.daily_weather) from elt.loads"
)

pytestmark = pytest.mark.long


class Api:
    """The weather, whose answers can be held back."""

    def __init__(self, base: str) -> None:
        self._base = base
        self.asked: set[str] = set()
        self.go_on = threading.Event()

    def answer(self, path: str) -> Answer:
        self.asked.add(path)
        self.go_on.wait(120)
        return Answer(requests.get(self._base + path.lstrip("/"), timeout=10).content)


@pytest.fixture(scope="module")
def messages() -> Iterator[tuple[list[Message], dict[str, str]]]:
    """What `notify` sends, and the channels that it uses."""
    arrived: list[Message] = []
    with receiving(arrived.append) as channels:
        yield arrived, dict(channels)


@pytest.fixture(scope="module")
def worker_api(stack: Stack, messages: tuple[list[Message], dict[str, str]]) -> Iterator[Api]:
    """The API of a worker that runs what `make deploy` deployed."""
    api = Api(stack.environment["CLIMATE_BASE_URL"])
    run_module(stack, "deployments.deploy", environment=messages[1])
    log = Path(os.environ["PREFECT_HOME"]) / "worker.log"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "elt"]
    with serving() as serve:
        settings = {
            **stack.environment,
            "CLIMATE_BASE_URL": serve(api.answer).url,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        with child(command, log, settings):
            yield api
            api.go_on.set()


@pytest.fixture
def api(worker_api: Api) -> Api:
    """The same, holding its answers back."""
    worker_api.go_on.clear()
    worker_api.asked.clear()
    return worker_api


@pytest.fixture
def server(stack: Stack) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@contextmanager
def at_work(server: SyncPrefectClient, api: Api) -> Iterator[tuple[FlowRun, list[FlowRun]]]:
    """A backfill both of whose runs wait for the API."""
    deployment = server.read_deployment_by_name("backfill/backfill")
    run = server.create_flow_run_from_deployment(deployment.id, parameters=PARAMETERS)
    wait_until(lambda: api.asked, lambda asked: len(asked) == 2)
    yield run, children(server, run)
    api.go_on.set()


def children(server: SyncPrefectClient, run: FlowRun) -> list[FlowRun]:
    """The runs that load the backfill's chunks, in the order of their days."""
    tags = FlowRunFilterTags(all_=[CHUNK, f"{CHUNK}-of-{run.id}"])
    found = server.read_flow_runs(flow_run_filter=FlowRunFilter(tags=tags))
    return sorted(found, key=lambda each: str(each.parameters["since"]))


def pages(server: SyncPrefectClient, run: FlowRun) -> int:
    """How many attempts of a backfill have started their runs: each begins a page after that."""
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    found = server.read_artifacts(artifact_filter=chosen)
    return sum(each.type == "markdown" for each in found)


def kill(run: FlowRun) -> None:
    [process] = processes_of(run)
    process.send_signal(signal.SIGKILL)


def completed(server: SyncPrefectClient, run: FlowRun) -> FlowRun:
    """Wait until the run has succeeded, perhaps after a restart."""
    found: FlowRun = wait_until(
        lambda: server.read_flow_run(run.id), lambda read: read.state.is_completed()
    )
    return found


def test_a_killed_backfill_is_restarted_and_adopts_its_runs(
    server: SyncPrefectClient, api: Api, ask: Ask
) -> None:
    with at_work(server, api) as (run, before):
        wait_until(lambda: pages(server, run), lambda count: count == 1)
        kill(run)
        wait_until(lambda: pages(server, run), lambda count: count == 2)
        assert [each.state_name for each in children(server, run)] == ["Running", "Running"]
    assert completed(server, run).run_count == 2
    assert [each.id for each in children(server, run)] == [each.id for each in before]
    assert ask(LOADED) == ONCE


def test_a_killed_run_of_a_backfill_is_restarted_and_goes_on(
    server: SyncPrefectClient,
    api: Api,
    ask: Ask,
    messages: tuple[list[Message], dict[str, str]],
) -> None:
    with at_work(server, api) as (run, (first, second)):
        kill(first)
        wait_until(lambda: server.read_flow_run(first.id).run_count, lambda count: count == 2)
    assert completed(server, run).run_count == 1
    assert [each.id for each in children(server, run)] == [first.id, second.id]
    assert ask(LOADED) == ONCE
    assert not [told for told in messages[0] if str(first.id) in told.text]


def test_a_cancelled_backfill_cancels_its_runs(
    server: SyncPrefectClient, api: Api, ask: Ask
) -> None:
    with at_work(server, api) as (run, before):
        working = [*processes_of(run), *(each for child in before for each in processes_of(child))]
        assert len(working) == 3
        server.set_flow_run_state(run.id, Cancelling())
        for each in (run, *before):
            ended: Any = wait_until(lambda each=each: server.read_flow_run(each.id), is_over)
            assert ended.state.is_cancelled(), ended.state
        wait_until(lambda: [each for each in working if each.is_running()], lambda left: not left)
    assert [each.id for each in children(server, run)] == [each.id for each in before]


def test_a_cancelled_backfill_cancels_what_it_adopted(
    server: SyncPrefectClient, api: Api, ask: Ask
) -> None:
    """Of these Prefect does not know that they belong to it."""
    with at_work(server, api) as (first, before):
        second = server.create_flow_run_from_deployment(first.deployment_id, parameters=PARAMETERS)
        wait_until(lambda: children(server, second), lambda adopted: len(adopted) == 2)
        server.set_flow_run_state(second.id, Cancelling())
        for each in (second, *before):
            ended: Any = wait_until(lambda each=each: server.read_flow_run(each.id), is_over)
            assert ended.state.is_cancelled(), ended.state
        said = wait_until(lambda: server.read_flow_run(first.id), is_over).state
    assert said.is_failed()
    assert "2020-01-01 to 2020-02-10: Cancelled" in said.message
