"""What runs of `elt` cost, by the number of partitions: `python -m tests.benchmark.scale`.

Each run has a process of its own, which begins with the arguments `run <partitions> <url>
<answer>`. The warehouse has a Postgres of its own, beside the one of Prefect's server.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from sqlalchemy.engine import URL

from deployments.local import stack
from deployments.local.postgres import ensure_database, libpq, postgres
from deployments.local.processes import child
from flows.extract.selectors import records_at
from flows.source import Partition, Resource, Source
from tests.benchmark.measurement import peak_rss_mib
from tests.benchmark.report import Table
from tests.benchmark.services import serving

PARTITIONS = [100, 1_000, 10_000]
CALCULATED = [100_000, 1_000_000]
RECORDS = 10
SAMPLED_SECONDS = 0.1
# Sessions and their sums reach the statistics a little later.
SETTLE_SECONDS = 2.0
HEADS = {
    "partitions": "partitions",
    "is_first": "run",
    "seconds": "seconds",
    "api_requests": "requests to the API",
    "prefect_requests": "to Prefect",
    "log_lines": "log lines",
    "events": "events",
    "sessions": "connections",
    "most_connections": "at once",
    "ledger_rows": "ledger rows",
    "checkpoint_rows": "checkpoint rows",
    "wal_mib": "WAL MiB",
    "peak_rss_mib": "peak RSS MiB",
    "python_seconds": "Python's CPU s",
    "postgres_seconds": "Postgres' CPU s",
    "prefect_seconds": "Prefect server's CPU s",
}


@dataclass(frozen=True)
class Cost:
    """What one run took.

    Attributes:
        is_first: whether its raw table was empty; otherwise every record was there and unchanged.
        prefect_requests: requests to Prefect's API; `events` come beside them, by a websocket.
        sessions: connections to the warehouse that were opened.
        most_connections: as many of them as were open together.
        checkpoint_rows: rows of `elt.checkpoints` that were written, over existing ones or not.
        python_seconds: processor time of the flow's process, of which `peak_rss_mib` is the memory.
    """

    partitions: int
    is_first: bool
    seconds: float
    api_requests: int
    prefect_requests: int
    log_lines: int
    events: int
    sessions: int
    most_connections: int
    ledger_rows: int
    checkpoint_rows: int
    wal_mib: float
    peak_rss_mib: float
    python_seconds: float
    postgres_seconds: float
    prefect_seconds: float


class _Api(BaseHTTPRequestHandler):
    """Answers every request with the same records, without delay, and counts."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    requests = 0
    body = json.dumps(
        [{"line": n, "amount": n * 1.5, "note": f"line {n}", "paid": True} for n in range(RECORDS)]
    ).encode()

    def do_GET(self) -> None:
        with _counting:
            _Api.requests += 1
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


_counting = threading.Lock()


@dataclass(frozen=True)
class Services:
    """What the runs use, seen from outside."""

    folder: Path
    api_url: str
    environment: Mapping[str, str]
    server: URL
    warehouse: URL
    prefect: URL

    def counters(self) -> dict[str, float]:
        """Sums that only grow; a run's cost is how much."""
        [(wal_bytes, sessions)] = _rows(self.server, SERVER_SUMS)
        [(ledger_rows, checkpoint_rows)] = _rows(self.warehouse, LEDGER_SUMS)
        [(log_lines, events)] = _rows(self.prefect, PREFECT_SUMS)
        return {
            "api_requests": _Api.requests,
            "wal_mib": float(wal_bytes) / 2**20,
            "sessions": sessions,
            "ledger_rows": ledger_rows,
            "checkpoint_rows": checkpoint_rows,
            "log_lines": log_lines,
            "events": events,
            "postgres_seconds": _seconds_of_postgres(self.folder / "warehouse"),
            "prefect_seconds": _seconds_of_prefect(),
        }


# Asked in another database of the server, so as not to count itself.
SERVER_SUMS = (
    "select pg_current_wal_insert_lsn() - '0/0', sessions"
    " from pg_stat_database where datname = 'warehouse'"
)
CONNECTIONS = (
    "select count(*) from pg_stat_activity"
    " where datname = 'warehouse' and backend_type = 'client backend'"
)
LEDGER_SUMS = (
    "select sum(n_tup_ins) filter (where relname = 'loads')::bigint,"
    " sum(n_tup_ins + n_tup_upd) filter (where relname = 'checkpoints')::bigint"
    " from pg_stat_user_tables where schemaname = 'elt'"
)
PREFECT_SUMS = "select (select count(*) from log), (select count(*) from events)"


def _seconds_of_postgres(data: Path) -> float:
    """Of all its processes, those that have ended included."""
    server = psutil.Process(int((data / "postmaster.pid").read_text().splitlines()[0]))
    ended = server.cpu_times()
    running = [_seconds(each) for each in (server, *server.children())]
    return float(sum(running) + ended.children_user + ended.children_system)


def _seconds_of_prefect() -> float:
    """Of Prefect's server, which this process has started."""
    return sum(
        _seconds(each)
        for each in psutil.Process().children(recursive=True)
        if "prefect" in " ".join(each.cmdline()) and "server" in each.cmdline()
    )


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _rows(url: URL, query: str) -> list[Any]:
    with closing(psycopg2.connect(libpq(url))) as opened, opened.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


@contextmanager
def _services(folder: Path) -> Iterator[Services]:
    with (
        postgres(folder / "warehouse") as server,
        stack.running(folder / "stack", "unused") as started,
        serving(_Api) as api_url,
    ):
        started.wait()
        warehouse = ensure_database(server, "warehouse")
        addresses = dict.fromkeys(["WAREHOUSE_URL", "WAREHOUSE_TRANSFORMER_URL"], libpq(warehouse))
        yield Services(
            folder,
            api_url,
            {**os.environ, **started.environment, **addresses},
            server,
            warehouse,
            started.warehouse.set(database="prefect"),
        )


def measured(services: Services, partitions: Sequence[int]) -> Iterator[Cost]:
    """A first run and one in which nothing changed, for each number of partitions."""
    _run(services, 1)  # creates the ledger
    for number in partitions:
        for is_first in (True, False):
            yield _cost(services, number, is_first)


def _cost(services: Services, partitions: int, is_first: bool) -> Cost:
    before = services.counters()
    with _sampled(services.server) as connections:
        own = _run(services, partitions)
    time.sleep(SETTLE_SECONDS)
    after = services.counters()
    grown = {name: round(after[name] - before[name], 2) for name in before}
    grown["sessions"] -= 1  # of `counters`, for the ledger's tables
    return Cost(
        partitions=partitions, is_first=is_first, most_connections=max(connections), **own, **grown
    )


@contextmanager
def _sampled(server: URL) -> Iterator[list[int]]:
    """How many connections the warehouse has, again and again until the block ends."""
    found: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        with closing(psycopg2.connect(libpq(server))) as opened, opened.cursor() as cursor:
            opened.autocommit = True
            while not is_over.wait(SAMPLED_SECONDS):
                cursor.execute(CONNECTIONS)
                found.append(cursor.fetchall()[0][0])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        is_over.set()
        thread.join()


def _run(services: Services, partitions: int) -> dict[str, Any]:
    answer, log = services.folder / "answer.json", services.folder / "run.log"
    arguments = ["run", str(partitions), services.api_url, str(answer)]
    command = [sys.executable, "-m", __spec__.name, *arguments]
    with child(command, log, services.environment) as process:
        if process.wait() != 0:
            raise RuntimeError(f"{partitions} partitions:\n{log.read_text()[-3000:]}")
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def run(partitions: int, url: str, answer: Path) -> None:
    """Run the flow in this process, and write down what it took."""
    from blocks import warehouse
    from flows import sources
    from flows.elt import elt

    warehouse.save()
    name = f"slices_{partitions}"
    slices = Resource(
        name,
        "slices/{slice}",
        records_at(),
        key=("slice", "line"),
        partitions=tuple(Partition(str(n), {"slice": n}) for n in range(partitions)),
        partition_columns=("slice",),
    )
    found = Source("scale", url, (slices,))
    sources.find = lambda _: found  # type: ignore[assignment]
    requests = _counted()
    began, used = time.perf_counter(), _used()
    elt(source="scale", transform=False)
    cost = {
        "seconds": round(time.perf_counter() - began, 2),
        "prefect_requests": len(requests),
        "python_seconds": round(_used() - used, 2),
        "peak_rss_mib": round(peak_rss_mib(), 1),
    }
    answer.write_text(json.dumps(cost))


def _counted() -> list[str]:
    """The paths of all requests that Prefect's clients send from now on."""
    import httpx

    sent: list[str] = []

    def counting(send: Callable[..., Any]) -> Callable[..., Any]:
        def counted(client: Any, request: httpx.Request, **options: Any) -> Any:
            sent.append(request.url.path)
            return send(client, request, **options)

        return counted

    for kind in (httpx.Client, httpx.AsyncClient):
        kind.send = counting(kind.send)  # type: ignore[method-assign]
    return sent


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def calculated(costs: Sequence[Cost], partitions: int, is_first: bool) -> Cost:
    """What so many would cost: the largest run, and for each further one as much as between two."""
    smaller, larger = sorted(
        (cost for cost in costs if cost.is_first == is_first), key=lambda cost: cost.partitions
    )[-2:]
    further = (partitions - larger.partitions) / (larger.partitions - smaller.partitions)
    few, many = asdict(smaller), asdict(larger)
    grown = {name: many[name] + further * (many[name] - few[name]) for name in HEADS}
    return Cost(**{**grown, "is_first": is_first, "most_connections": larger.most_connections})


def table(costs: Sequence[Cost]) -> Table:
    """A row for each run."""
    rows = [[_cell(name, asdict(cost)[name]) for name in HEADS] for cost in costs]
    return Table(tuple(HEADS.values()), rows, 2)


def _cell(name: str, value: float) -> str:
    if name == "is_first":
        return "first" if value else "unchanged"
    return f"{value:,.1f}" if value < 100 and value != int(value) else f"{value:,.0f}"


def main() -> None:
    """Measure runs, or be one."""
    if sys.argv[1:2] == ["run"]:
        run(int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.scale", description=__doc__)
    parser.add_argument("partitions", type=int, nargs="*", default=PARTITIONS)
    arguments = parser.parse_args()
    costs = []
    with tempfile.TemporaryDirectory(prefix="elt-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with _services(folder) as services:
            for cost in measured(services, arguments.partitions):
                print(f"{cost.partitions:,} partitions in {cost.seconds:.1f} s", flush=True)
                costs.append(cost)
    print(f"\nMeasured:\n{table(costs).text()}")
    more = [calculated(costs, number, first) for first in (True, False) for number in CALCULATED]
    print(f"\nCalculated, linear in the partitions:\n{table(more).text()}")


if __name__ == "__main__":
    main()
