"""A backfill in several runs of its deployment: each window once, few runs at a time, one page.

A thread stands in for the worker: it runs what is scheduled, in this process.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from datetime import date
from time import monotonic, sleep
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import Artifact, FlowRun, State
from prefect.flow_engine import run_flow
from prefect.states import Cancelled, Crashed, Running, Scheduled

from deployments.local.stack import Stack
from flows import backfill_page, backfill_runs
from flows.backfill import backfill
from flows.backfill_chunks import Chunk, cut
from flows.backfill_windows import Slice, split
from flows.errors import ConfigurationError, UnavailableError
from flows.source import Partition, Resource
from flows.tags import CHUNK
from tests.http_servers import Answer, Asked, Server

pytest_plugins = ["tests.flows.weather"]

Ask = Callable[..., list[tuple]]
Serve = Callable[[Callable[[Asked], Answer]], Server]

# Ten windows: three chunks.
DAYS = {"source": "climate", "since": "2020-01-01", "until": "2020-04-10", "window_days": 10}
REFUSED = Answer(status=401)
SUCCEEDED = "select count(*) from elt.loads where state = 'succeeded'"


class System:
    """A deployment of `backfill`, and what runs its runs."""

    def __init__(self, server: SyncPrefectClient) -> None:
        self.server = server
        self.id = self.deploy()
        self._deadline = monotonic() + 60

    def deploy(self, **options: Any) -> UUID:
        """Deploy `backfill`, perhaps to a work pool."""
        flow_id = self.server.create_flow(backfill)
        self.id = self.server.create_deployment(flow_id, "backfill of tests", **options)
        return self.id

    def start(self, **parameters: Any) -> FlowRun:
        """Create a run that nothing but `run` takes."""
        given = {**DAYS, "runs_at_once": 2, "at_once": 1, "transform": False, **parameters}
        return self.server.create_flow_run_from_deployment(self.id, parameters=given)

    def run(self, run: FlowRun) -> State[Any]:
        """Run a run in this thread to its end."""
        run_flow(backfill, flow_run=run, parameters=run.parameters, return_type="state")
        state = self.server.read_flow_run(run.id).state
        assert state is not None
        return state

    def sleep(self, seconds: float) -> None:
        """Sleep, unless the test takes too long: a run that watches others for ever is an error."""
        assert monotonic() < self._deadline
        sleep(seconds)

    def children(self) -> list[FlowRun]:
        """The runs that a backfill has started, in the order of their days."""
        runs = self.server.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[self.id])),
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[CHUNK])),
        )
        return sorted(runs, key=lambda run: str(run.parameters["since"]))

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run what is scheduled, side by side, until the block ends."""
        stopped = threading.Event()
        pool = ThreadPoolExecutor()
        taken: dict[UUID, Future[Any]] = {}

        def work() -> None:
            while not stopped.wait(0.05):
                for run in self.children():
                    if run.id not in taken and run.state and run.state.is_scheduled():
                        taken[run.id] = pool.submit(copy_context().run, self.run, run)

        thread = threading.Thread(target=copy_context().run, args=(work,))
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            pool.shutdown()


@pytest.fixture
def system(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """Nothing of it is left on the server afterwards."""
    assert backfill_runs.POLL_SECONDS >= 3, "Prefect Cloud counts requests"
    monkeypatch.setattr(backfill_runs, "POLL_SECONDS", 0.1)
    with get_client(sync_client=True) as server:
        found = System(server)
        monkeypatch.setattr(backfill_runs, "sleep", found.sleep)
        yield found
        for run in server.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[found.id]))
        ):
            server.delete_flow_run(run.id)
        server.delete_deployment(found.id)


def days(runs: list[FlowRun]) -> list[tuple[str, str]]:
    """What each run loads."""
    return [(run.parameters["since"], run.parameters["until"]) for run in runs]


CHUNKS = [("2020-01-01", "2020-02-10"), ("2020-02-10", "2020-03-21"), ("2020-03-21", "2020-04-10")]


def test_several_runs_load_what_one_would_and_never_more_than_that_many_at_a_time(
    system: System, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = counted(monkeypatch)
    rows = "select time, temperature_2m_max from raw_climate.daily_weather order by time"
    with system.worker():
        run = system.start()
        state = system.run(run)
    assert state.is_completed(), state.message
    assert state.message == "10 windows were loaded by other runs"
    several = ask(rows)
    children = system.children()
    assert days(children) == CHUNKS
    assert all(child.parent_task_run_id for child in children)
    assert not any(child.parameters["transform"] for child in children)
    begun = sorted(child.start_time for child in children)
    ended = sorted(child.end_time for child in children)
    assert begun[1] < ended[0], "two are at work at a time"
    assert begun[2] > ended[0], "the third waits for the first to end"
    assert ask(SUCCEEDED) == [(10,)]
    ask("drop schema raw_climate cascade")
    ask("drop schema elt cascade")
    assert system.run(system.start(runs_at_once=1)).is_completed()
    assert len(several) == 100
    assert several == ask(rows)
    assert_page(system, run, children)
    assert updates == ["first", "last"], "the runs take less than an hour"


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The updates of the page."""
    assert backfill_page.SHOWN_EVERY_SECONDS >= 15, "Prefect Cloud counts requests"
    monkeypatch.setattr(backfill_page, "SHOWN_EVERY_SECONDS", 3600.0)
    names = iter(("first", "last", "one too many"))
    updates: list[str] = []
    update = backfill_page.Page._update

    def count(self: backfill_page.Page, percent: float, text: str) -> None:
        updates.append(next(names))
        update(self, percent, text)

    monkeypatch.setattr(backfill_page.Page, "_update", count)
    return updates


def assert_page(system: System, run: FlowRun, children: list[FlowRun]) -> None:
    """The finished page has a row per chunk, with a link to its run."""
    found = artifacts(system, run)
    assert float(str(found["progress"].data)) == 100
    page = str(found["markdown"].data)
    assert "**10 of 10 windows of climate are loaded (100.0 %).**" in page
    assert "3 runs: 3 completed." in page
    rows = [line for line in page.splitlines() if line.startswith("| 2020")]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| 2020-01-01 to 2020-02-10", "4 of 4", "Completed"],
        ["| 2020-02-10 to 2020-03-21", "4 of 4", "Completed"],
        ["| 2020-03-21 to 2020-04-10", "2 of 2", "Completed"],
    ]
    assert all(
        f"/runs/flow-run/{child.id})" in row for child, row in zip(children, rows, strict=True)
    )


def artifacts(system: System, run: FlowRun) -> dict[str, Artifact]:
    """The run's artifacts by their type; there is one of each."""
    chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    found = [each for each in system.server.read_artifacts(artifact_filter=chosen) if each.type]
    assert len({each.type for each in found}) == len(found)
    return {str(each.type): each for each in found}


@pytest.mark.long
def test_a_run_that_fails_is_named_and_the_next_attempt_loads_what_is_missing(
    system: System, ask: Ask, weather: dict[str, Callable[[], Answer | None]]
) -> None:
    weather["2020-02-20"] = lambda: REFUSED
    with system.worker():
        run = system.start()
        state = system.run(run)
        first = system.children()
        weather.clear()
        again = system.run(system.start())
    assert state.is_failed()
    for words in ("2020-02-10 to 2020-03-21", "Failed", "401", f"/runs/flow-run/{first[1].id}"):
        assert words in str(state.message)
    assert "| 2020-02-10 to 2020-03-21 | 3 of 4 | Failed |" in str(
        artifacts(system, run)["markdown"].data
    )
    assert again.is_completed()
    assert ask("select count(*) from raw_climate.daily_weather") == [(100,)]
    assert ask(SUCCEEDED) == [(10,)]
    [added] = [child for child in system.children() if child.id not in {run.id for run in first}]
    assert days([added]) == [("2020-02-20", "2020-03-01")]


class KilledError(BaseException):
    """In place of a signal: the run stops where it is."""


@pytest.mark.long
def test_an_attempt_adopts_the_unfinished_runs_of_the_one_before(
    system: System, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is the same run, started again after a crash, or a new one."""

    def die(_: float) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(backfill_runs, "sleep", die)
        run = system.start()
        with pytest.raises(KilledError):
            system.run(run)
        system.server.set_flow_run_state(run.id, Scheduled(), force=True)
        with pytest.raises(KilledError):
            system.run(system.server.read_flow_run(run.id))
        with pytest.raises(KilledError):
            system.run(system.start())
    assert days(system.children()) == CHUNKS[:2], "three attempts, and none doubled anything"
    with system.worker():
        last = system.start()
        assert system.run(last).is_completed()
    assert days(system.children()) == CHUNKS
    assert ask("select count(*) from elt.loads") == [(10,)]
    assert ask("select count(*) from raw_climate.daily_weather") == [(100,)]


@pytest.mark.long
def test_with_again_a_restarted_run_repeats_no_chunk(
    system: System, ask: Ask, weather: dict[str, Callable[[], Answer | None]]
) -> None:
    """The ledger can't tell: all windows had been loaded before."""
    with system.worker():
        assert system.run(system.start(runs_at_once=1)).is_completed()
        weather["2020-02-20"] = lambda: REFUSED
        run = system.start(again=True)
        assert system.run(run).is_failed()
        weather.clear()
        before = {child.id for child in system.children()}
        system.server.set_flow_run_state(run.id, Scheduled(), force=True)
        assert system.run(system.server.read_flow_run(run.id)).is_completed()
    assert days([child for child in system.children() if child.id not in before]) == [CHUNKS[1]]


@pytest.mark.long
def test_a_crashed_run_that_is_started_again_in_time_has_not_failed(
    system: System, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [Crashed(message="killed"), None, None, Scheduled(name="AwaitingRetry")]

    def go_on(seconds: float) -> None:
        if states:
            [child] = system.children()
            if state := states.pop(0):
                system.server.set_flow_run_state(child.id, state, force=True)
        else:
            system.sleep(seconds)

    monkeypatch.setattr(backfill_runs, "sleep", go_on)
    with ThreadPoolExecutor() as pool:
        run = system.start(until="2020-02-10")
        parent = pool.submit(copy_context().run, system.run, run)
        while states:
            assert not parent.done(), parent.result()
        with system.worker():
            assert parent.result(60).is_completed()
    assert len(system.children()) == 1


def test_a_run_that_stays_crashed_is_an_error(
    system: System, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backfill_runs.CRASHED_SECONDS > 20, "deployments/automations.yaml"
    monkeypatch.setattr(backfill_runs, "CRASHED_SECONDS", 0)

    def crash(seconds: float) -> None:
        system.sleep(seconds)
        for child in system.children():
            system.server.set_flow_run_state(child.id, Crashed(message="killed"), force=True)

    monkeypatch.setattr(backfill_runs, "sleep", crash)
    state = system.run(system.start(until="2020-02-10"))
    assert state.is_failed()
    assert "2020-01-01 to 2020-02-10: Crashed: killed" in str(state.message)


def test_if_no_run_starts_they_are_cancelled_and_the_error_says_why(
    system: System, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a worker whose limit is 1, and this run takes it."""
    assert backfill_runs.STALLED_SECONDS >= 300
    monkeypatch.setattr(backfill_runs, "STALLED_SECONDS", 0.5)
    state = system.run(system.start())
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), ConfigurationError)
    for words in ("None of the runs has started", "--limit", "runs_at_once"):
        assert words in str(state.message)
    assert [child.state.type.value for child in system.children()] == ["CANCELLED"] * 2


@pytest.fixture
def pool(system: System) -> Iterator[str]:
    """A work pool with one slot, to which the deployment belongs."""
    name = "small"
    system.server.create_work_pool(WorkPoolCreate(name=name, concurrency_limit=1))
    system.deploy(work_pool_name=name)
    yield name
    system.server.delete_work_pool(name)


def test_a_work_pool_with_one_slot_is_refused(system: System, pool: str, ask: Ask) -> None:
    state = system.run(system.start())
    assert state.is_failed()
    assert "The work pool small allows one run at a time" in str(state.message)
    assert system.children() == []


@pytest.mark.long
def test_no_more_runs_are_started_than_the_work_pool_has_slots(
    system: System, pool: str, ask: Ask
) -> None:
    change = {"concurrency_limit": 2}
    system.server.request("PATCH", f"/work_pools/{pool}", json=change).raise_for_status()
    with system.worker():
        assert system.run(system.start()).is_completed()
    first, second, _ = system.children()
    assert second.start_time > first.end_time, "this run takes one of the two slots"


def test_without_a_deployment_the_error_says_how_to_start_one(ask: Ask) -> None:
    state = backfill(
        source="climate",
        since=date(2020, 1, 1),
        until=date(2020, 2, 1),
        runs_at_once=2,
        return_state=True,
    )
    assert isinstance(state.result(raise_on_failure=False), ConfigurationError)
    assert "prefect deployment run backfill/backfill" in str(state.message)


def test_a_cancelled_backfill_cancels_its_runs_and_no_others(system: System) -> None:
    """Those that it adopted as well. The worker calls the hook: see `tests/chaos`."""
    parent = system.start()

    def child(tags: list[str], state: State[Any] | None = None) -> FlowRun:
        return system.server.create_flow_run_from_deployment(system.id, tags=tags, state=state)

    mine = [CHUNK, f"backfill-chunk-of-{parent.id}"]
    waiting, working = child(mine), child(["backfill-chunk-of-another", *mine], Running())
    other, done = child([CHUNK], Running()), child(mine, Running())
    system.server.set_flow_run_state(done.id, Cancelled(message="before"), force=True)
    backfill_runs.cancel_chunks(backfill, parent, Cancelled())
    states = [system.server.read_flow_run(run.id).state for run in (waiting, working, other, done)]
    assert [state.type.value for state in states if state] == [
        "CANCELLED",
        "CANCELLING",
        "RUNNING",
        "CANCELLED",
    ]
    assert states[-1] and states[-1].message == "before"


def test_all_runs_are_polled_with_one_request(
    system: System, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect Cloud's free plan allows 625 requests a minute."""
    sent: list[str] = []
    polls: list[list[str]] = []
    send = httpx.Client.send

    def count(client: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        sent.append(request.url.path)
        return send(client, request, **options)

    def wait(_: float) -> None:
        polls.append(sent.copy())
        sent.clear()
        if len(polls) == 6:
            raise KilledError

    monkeypatch.setattr(httpx.Client, "send", count)
    monkeypatch.setattr(backfill_runs, "sleep", wait)
    monkeypatch.setattr(backfill_page.Page, "show", lambda _: None)
    with pytest.raises(KilledError):
        system.run(system.start(runs_at_once=25, until="2021-01-01"))
    assert len(system.children()) == 10
    assert polls[1:] == [["/api/flow_runs/filter"]] * 5


@pytest.mark.long
def test_an_outage_of_prefect_is_borne(
    system: System, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is lost starts no run twice."""
    lost = {"run_deployment": [True, False, True], "_poll": [True, True, False]}

    def cut(owner: object, name: str) -> None:
        ask = getattr(owner, name)

        def cut_off(*given: Any, **named: Any) -> Any:
            answer = ask(*given, **named)
            if lost[name] and lost[name].pop():
                raise httpx.ReadError("cut")
            return answer

        monkeypatch.setattr(owner, name, cut_off)

    cut(backfill_runs, "run_deployment")
    cut(backfill_runs.Children, "_poll")
    with system.worker():
        assert system.run(system.start()).is_completed()
    assert lost == {"run_deployment": [], "_poll": []}
    assert days(system.children()) == CHUNKS


def test_an_outage_without_end_is_an_error(
    system: System, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise httpx.ConnectError("no route")

    assert 600 <= backfill_runs.OUTAGE_SECONDS <= 3600
    monkeypatch.setattr(backfill_runs, "OUTAGE_SECONDS", 0.5)
    monkeypatch.setattr(backfill_runs.Children, "_poll", fail)
    state = system.run(system.start())
    assert isinstance(state.result(raise_on_failure=False), UnavailableError)
    for words in ("no route", "go on", "start it again"):
        assert words in str(state.message)
    assert all(child.state and child.state.is_scheduled() for child in system.children())


def chunks_of(
    runs_at_once: int, taken: list[Chunk], windows: int = 40, fewest: int = 1
) -> tuple[list[Slice], list[Chunk]]:
    """Days that are each a window, and their chunks."""
    resource = Resource(name="r", path="r", records=lambda page: page, key=("id",))
    every = split(date(2000, 1, 1), date.fromordinal(date(2000, 1, 1).toordinal() + windows), 1)
    slices = [Slice(resource, Partition(str(window.since)), window) for window in every]
    free = [each for each in slices if not any(chunk.contains(each.window) for chunk in taken)]
    return slices, cut(free, taken, runs_at_once, fewest)


@pytest.mark.parametrize(
    ("runs_at_once", "fewest", "sizes"),
    [
        (1, 1, [10, 10, 10, 10]),
        (2, 1, [5] * 8),
        (25, 1, [4] * 10),  # a run takes seconds to start
        (25, 16, [16, 16, 8]),  # so many windows at once
    ],
)
def test_each_window_is_in_one_chunk(runs_at_once: int, fewest: int, sizes: list[int]) -> None:
    slices, chunks = chunks_of(runs_at_once, [], fewest=fewest)
    assert [len(chunk.keys) for chunk in chunks] == sizes
    assert frozenset().union(*(chunk.keys for chunk in chunks)) == {each.key for each in slices}
    assert [one.until for one in chunks[:-1]] == [other.since for other in chunks[1:]]


def test_no_chunk_contains_a_day_that_another_run_loads() -> None:
    taken = [Chunk(date(2000, 1, 8), date(2000, 1, 12), frozenset())]
    slices, chunks = chunks_of(1, taken)
    assert [str(chunk) for chunk in chunks[:2]] == [
        "2000-01-01 to 2000-01-08",
        "2000-01-12 to 2000-01-21",
    ]
    assert sum(len(chunk.keys) for chunk in chunks) == len(slices) - 4
