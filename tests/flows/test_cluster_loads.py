"""Promises about loads of many partitions on the workers of a Dask cluster."""

import contextvars
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

import cloudpickle
import dask
import distributed
import pytest
from distributed import LocalCluster
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from sqlalchemy.engine import URL

from blocks import warehouse
from deployments.local.postgres import libpq
from deployments.local.processes import free_port
from deployments.local.stack import Stack
from flows import sources
from flows.cluster_loads import ADDRESS_VARIABLE, VARIABLE
from flows.elt import elt
from flows.errors import ConfigurationError, UnavailableError
from flows.extract.auth import Bearer, OAuth2
from flows.extract.selectors import records_at
from flows.retries import Retry
from flows.source import Accounts, Partition, Rate, Resource, RowsOf, Source, product
from tests.http_servers import Answer, Asked, Serve, Server

Ask = Callable[..., list[tuple[Any, ...]]]

ROOT = Path(__file__).parents[2]
COUNT = 300
PARTITIONS = tuple(Partition(f"{day:03}", {"day": day}) for day in range(COUNT))
DAYS = Resource(
    "days",
    "days/{day}",
    records_at(),
    key=("day", "id"),
    partitions=PARTITIONS,
    partition_columns=("day",),
)
STORED = "select day::int, id, n from raw_shop.days order by 1, 2"
EXPECTED = [(day, number, day * number) for day in range(COUNT) for number in (1, 2)]
LOADS = "select state, partitions, extracted, inserted, unchanged from elt.loads order by load_id"


class Days:
    """The API: two records per day.

    Attributes:
        before: called with the day before its answer; may return another answer.
        answered: the days that were answered with their records.
        times: when requests came, on the clock `time.monotonic`.
    """

    def __init__(self, serve: Serve) -> None:
        self.before: Callable[[int], Answer | None] = lambda day: None
        self.answered: Counter[int] = Counter()
        self.times: list[float] = []
        self._lock = threading.Lock()
        self.server: Server = serve(self._answer)

    def _answer(self, asked: Asked) -> Answer:
        day = int(asked.rsplit("/", 1)[1])
        with self._lock:
            self.times.append(monotonic())
            if other := self.before(day):
                return other
            self.answered[day] += 1
        rows = ", ".join(f'{{"id": {n}, "n": {n * day}}}' for n in (1, 2))
        return Answer(f"[{rows}]".encode())


@pytest.fixture
def days(serve: Serve) -> Days:
    return Days(serve)


@pytest.fixture(scope="module")
def cluster(stack: Stack) -> Iterator[LocalCluster]:
    """Two worker processes, which find Prefect's server through their environment."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as started:
        yield started


class RestartedScheduler:
    """A scheduler and a worker as programs of their own; the port stays the same."""

    def __init__(self) -> None:
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self._programs: list[subprocess.Popen[bytes]] = []

    def start(self, path: str = str(ROOT)) -> None:
        """`path` is where the worker finds modules."""
        port = self.address.rsplit(":", 1)[1]
        self._dask(path, "scheduler", "--host", "127.0.0.1", "--port", port)
        self._dask(path, "worker", self.address, "--nthreads", "1", "--no-nanny")

    def _dask(self, path: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard"]
        environment = {**os.environ, "PYTHONPATH": path}
        program = subprocess.Popen(command, env=environment, cwd=path, stderr=subprocess.DEVNULL)
        self._programs.append(program)

    def kill(self) -> None:
        for program in self._programs:
            program.kill()
            program.wait()
        self._programs.clear()


@pytest.fixture
def scheduler(stack: Stack) -> Iterator[RestartedScheduler]:
    started = RestartedScheduler()
    yield started
    started.kill()


@pytest.fixture
def run(
    days: Days, cluster: LocalCluster, warehouse_url: URL, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., State[Any]]:
    """Run the flow on the cluster; `changes` are those of the source."""
    monkeypatch.setenv(VARIABLE, "dask")
    monkeypatch.setenv(ADDRESS_VARIABLE, cluster.scheduler_address)

    def start(resource: Resource = DAYS, retry: Retry = Retry(), **changes: Any) -> State[Any]:  # noqa: B008
        source = Source("shop", days.server.url, **{"resources": (resource,), **changes})
        monkeypatch.setattr(sources, "find", lambda name: source)
        state: State[Any] = elt(source="shop", transform=False, retry=retry, return_state=True)
        return state

    return start


@pytest.mark.long
def test_the_cluster_loads_what_one_process_would(
    run: Callable[..., State[Any]], days: Days, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are task runs of the flow, and all partitions have one entry in the ledger."""
    state = run()
    assert state.is_completed()
    assert ask(STORED) == EXPECTED
    assert days.answered == Counter(range(COUNT))
    assert ask(LOADS) == [("succeeded", COUNT, 2 * COUNT, 2 * COUNT, 0)]
    assert ask("select requests, retries from elt.loads") == [(COUNT, 0)]
    assert len(_batches_of(state)) == 3
    monkeypatch.setenv(VARIABLE, "threads")
    assert run().is_completed()
    assert ask(LOADS)[1:] == [("succeeded", COUNT, 2 * COUNT, 0, 2 * COUNT)]


@pytest.mark.long
def test_a_replace_loads_each_partition_on_the_cluster(
    run: Callable[..., State[Any]], ask: Ask
) -> None:
    resource = replace(DAYS, disposition="replace", partitions=PARTITIONS[:60])
    assert run(resource).is_completed()
    assert ask(STORED) == EXPECTED[:120]
    assert ask("select distinct state, partitions, inserted from elt.loads") == [
        ("succeeded", 1, 2)
    ]


@pytest.mark.long
def test_children_of_rows_are_loaded_on_the_cluster(
    run: Callable[..., State[Any]], days: Days, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has the partitions that were made of the parent's rows."""
    listed = ", ".join(f'{{"id": {day}}}' for day in range(20))
    days.before = lambda day: Answer(f"[{listed}]".encode()) if day == 999 else None
    parents = Resource("parents", "days/999", records_at(), key=("id",))
    children = replace(DAYS, partitions=RowsOf("parents", {"day": "id"}, changed_only=True))
    for _ in range(2):
        assert run(children, resources=(parents, children)).is_completed()
    assert ask(STORED) == EXPECTED[:40]
    assert days.answered == Counter(range(20))


@pytest.mark.long
def test_few_partitions_are_loaded_without_the_cluster(
    run: Callable[..., State[Any]], ask: Ask
) -> None:
    state = run(replace(DAYS, partitions=PARTITIONS[:3]))
    assert state.is_completed()
    assert ask(STORED) == EXPECTED[:6]
    assert not _batches_of(state)


@pytest.mark.long
def test_workers_killed_in_the_middle_of_batches_lose_and_double_nothing(
    run: Callable[..., State[Any]], days: Days, cluster: LocalCluster, ask: Ask
) -> None:
    def kill_all(day: int) -> None:
        if day == 30 and not days.answered[day]:
            for nanny in cluster.workers.values():
                os.kill(nanny.pid, signal.SIGKILL)

    days.before = kill_all
    assert run().is_completed()
    assert ask(STORED) == EXPECTED
    [(state, partitions, extracted, inserted, unchanged)] = ask(LOADS)
    assert (state, partitions, inserted) == ("succeeded", COUNT, 2 * COUNT)
    assert extracted == inserted + unchanged
    assert set(days.answered) == set(range(COUNT))


@pytest.mark.long
def test_a_scheduler_that_is_restarted_loses_and_doubles_nothing(
    run: Callable[..., State[Any]],
    days: Days,
    scheduler: RestartedScheduler,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task fails as unavailable; its retry finds the new scheduler and loads the rest."""
    monkeypatch.setenv(ADDRESS_VARIABLE, scheduler.address)
    scheduler.start()

    def restart(day: int) -> None:
        if day == 180 and not days.answered[day]:
            scheduler.kill()
            scheduler.start()

    days.before = restart
    assert run(retry=Retry(retries=3, delay_seconds=1, jitter=0)).is_completed()
    assert ask(STORED) == EXPECTED
    loads = ask(LOADS)
    assert [state for state, *_ in loads] == ["failed", "succeeded"]
    assert sum(partitions for _, partitions, *_ in loads) == COUNT


@pytest.mark.long
def test_workers_without_this_repository_are_named(
    run: Callable[..., State[Any]],
    scheduler: RestartedScheduler,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, scheduler.address)
    scheduler.start(str(tmp_path))
    error = run().result(raise_on_failure=False)
    assert isinstance(error, ConfigurationError)
    assert "No module named 'flows'" in str(error)
    assert "PYTHONPATH" in str(error)


@pytest.mark.long
def test_a_retry_sends_only_what_the_attempt_before_did_not_commit(
    run: Callable[..., State[Any]], days: Days, ask: Ask
) -> None:
    """An API that is away ends the attempt: no further batches are sent."""
    refused: list[int] = []

    def refuse(day: int) -> Answer | None:
        if day < 200 or len(refused) >= 3:
            return None
        refused.append(day)
        return Answer(status=503)

    days.before = refuse
    state = run(retry=Retry(retries=5, delay_seconds=0, jitter=0), max_wait_seconds=0)
    assert state.is_completed()
    assert ask(STORED) == EXPECTED
    first, *_, last = ask(LOADS)
    assert first[0] == "failed"
    assert last[0] == "succeeded"
    assert sum(partitions for _, partitions, *_ in ask(LOADS)) >= COUNT
    assert {day for day, times in days.answered.items() if times > 1} <= set(range(200, COUNT))


@pytest.mark.long
def test_a_second_run_at_the_same_time_is_refused_and_changes_nothing(
    run: Callable[..., State[Any]], days: Days, ask: Ask
) -> None:
    """What the first one loads is not disturbed."""
    other: list[State[Any]] = []
    context = contextvars.copy_context()  # it holds the address of Prefect's server

    def run_second(day: int) -> None:
        if day == 30 and not other:
            other.append(context.run(run))

    days.before = run_second
    assert run().is_completed()
    assert "is being loaded by another run" in str(other[0].result(raise_on_failure=False))
    assert ask(STORED) == EXPECTED
    assert ask(LOADS) == [("succeeded", COUNT, 2 * COUNT, 2 * COUNT, 0)]


@pytest.mark.long
def test_workers_together_keep_the_rate(
    run: Callable[..., State[Any]], days: Days, ask: Ask
) -> None:
    resource = replace(DAYS, partitions=PARTITIONS[:100])
    assert run(resource, rate=Rate(30)).is_completed()
    times = sorted(days.times)
    assert len(times) == 100
    assert all(later - earlier > 1 for earlier, later in zip(times, times[30:], strict=False))
    assert ask("select source from elt.rates") == [("shop",)]


@pytest.mark.long
def test_the_scheduler_sees_no_secrets(
    run: Callable[..., State[Any]],
    warehouse_url: URL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warehouse.save({warehouse.URL_VARIABLE: libpq(warehouse_url.set(password="canary-1"))})
    monkeypatch.setenv("SHOP_TOKEN", "canary-2")
    sent: list[bytes] = []
    submit = distributed.Client.submit

    def record(*given: Any, **named: Any) -> Any:
        sent.append(cloudpickle.dumps((given[1:], named)))
        return submit(*given, **named)

    monkeypatch.setattr(distributed.Client, "submit", record)
    run(replace(DAYS, partitions=PARTITIONS[:10]), login=Bearer("shop-token"))
    assert sent
    assert not any(b"canary" in each for each in sent)


@pytest.mark.long
def test_workers_share_one_token_of_a_refreshed_login(
    run: Callable[..., State[Any]], serve: Serve, ask: Ask
) -> None:
    """Each reads the login's secrets from their blocks, and the token from the warehouse."""
    exchanged: list[str] = []

    def exchange(asked: Asked) -> Answer:
        exchanged.extend(parse_qs(asked.body.decode())["refresh_token"])
        return Answer(b'{"access_token": "access-1", "refresh_token": "refresh-1"}')

    Secret(value="s3cret").save("shop-secret", overwrite=True)
    Secret(value="refresh-0").save("shop-refresh-token", overwrite=True)
    url = f"{serve(exchange).url}token"
    login = OAuth2(url, "shop", "shop-secret", refresh_token="shop-refresh-token")
    assert run(login=login).is_completed()
    assert exchanged == ["refresh-0"]
    assert ask(STORED) == EXPECTED


@pytest.mark.long
def test_workers_log_in_as_the_account_of_each_partition(
    run: Callable[..., State[Any]], days: Days, ask: Ask
) -> None:
    """A batch has partitions of both accounts."""
    accounts = Accounts({name: Bearer(f"shop-{name}-token") for name in ("eu", "us")})
    for name in ("eu", "us"):
        Secret(value=f"token-of-{name}").save(f"shop-{name}-token", overwrite=True)
    resource = replace(
        DAYS,
        path="days/{account}/{day}",
        key=("account", "day", "id"),
        partitions=product(PARTITIONS[:60], accounts.partitions),
        partition_columns=("account", "day"),
    )
    assert run(resource, login=accounts).is_completed()
    sent = Counter(
        (asked.split("/")[2], asked.headers["Authorization"]) for asked in days.server.asked
    )
    assert sent == {("eu", "Bearer token-of-eu"): 60, ("us", "Bearer token-of-us"): 60}
    assert ask("select account, count(*) from raw_shop.days group by 1 order by 1") == [
        ("eu", 120),
        ("us", 120),
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    ("runner", "address", "kind", "said"),
    [
        ("ray", "", ConfigurationError, "Set it to `threads` or to `dask`"),
        ("dask", "", ConfigurationError, "must name the scheduler"),
        ("dask", "tcp://127.0.0.1:9", UnavailableError, "does not respond"),
    ],
)
def test_a_cluster_that_is_not_there_is_named(
    run: Callable[..., State[Any]],
    runner: str,
    address: str,
    kind: type[Exception],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, runner)
    monkeypatch.setenv(ADDRESS_VARIABLE, address)
    with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
        error = run().result(raise_on_failure=False)
    assert isinstance(error, kind)
    assert said in str(error)


def _batches_of(state: State[Any]) -> list[str]:
    """The names of the task runs that loaded batches."""
    chosen = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as prefect:
        runs = prefect.read_task_runs(flow_run_filter=chosen)
    return [each.name for each in runs if " partitions: " in each.name]
