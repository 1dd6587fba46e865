"""How fast a Dask cluster loads many partitions, by the number of its workers.

`python -m tests.benchmark.workers <runs> <answer>` measures, in the environment of a stack.
"""

import json
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from statistics import median
from typing import Any

import psycopg2

from flows.extract.selectors import records_at
from flows.source import Partition, Rate, Resource, Source
from tests.benchmark.report import Table, ratio, spread
from tests.benchmark.services import in_stack, serving

WORKERS = [1, 2, 4, 8]
LATENCY_SECONDS = 0.05
# Requests under way per worker: eight workers send 320 a second, which two cores can serve.
CONCURRENCY = 2
# While one batch starts or ends, the other one keeps the requests going.
THREADS = 2
PARTITIONS_PER_WORKER = 1000
RATE = Rate(100)
LIMITED_PARTITIONS = 800
HEAD = (
    "Dask workers", "rate limit", "requests", "requests a second", "× one worker",
    "most in a second",
)  # fmt: skip
SPAN = (
    "select extract(epoch from ended_at - started_at)::float, partitions from elt.loads"
    " where state = 'succeeded' order by load_id desc limit 1"
)


@dataclass(frozen=True)
class Throughput:
    """One run: how long its group was open, and the most requests that came within a second."""

    workers: int
    rate: int | None
    requests: int
    seconds: float
    most_in_a_second: int


def measure(runs: int) -> list[Throughput]:
    """Start a stack, and measure in a process with its environment."""
    return [Throughput(**each) for each in in_stack(__name__, runs)]


def table(measured: list[Throughput]) -> Table:
    """Medians, and as multiples of one worker's."""
    rates: dict[tuple[int, int | None], list[float]] = {}
    for each in measured:
        rates.setdefault((each.workers, each.rate), []).append(each.requests / each.seconds)
    one = median(rates[WORKERS[0], None])
    rows = []
    for (workers, rate), found in rates.items():
        alike = [each for each in measured if (each.workers, each.rate) == (workers, rate)]
        most = max(each.most_in_a_second for each in alike)
        rows.append(
            (
                f"{workers}",
                f"{rate} a second" if rate else "none",
                f"{alike[0].requests:,}",
                spread(found),
                ratio(median(found), one),
                f"{most}",
            )
        )
    return Table(HEAD, rows, 2)


class _Api(BaseHTTPRequestHandler):
    """Answers one record per partition after its latency, and notes when requests came."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    times: list[float] = []  # noqa: RUF012 (shared on purpose: the server makes a handler each time)

    def do_GET(self) -> None:
        self.times.append(time.monotonic())
        time.sleep(LATENCY_SECONDS)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "18")
        self.end_headers()
        self.wfile.write(b'[{"id":1,"n":1.5}]')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def measured(runs: int) -> Iterator[Throughput]:
    """Every number of workers, then the most of them under a rate limit."""
    from distributed import LocalCluster

    from blocks import warehouse
    from flows.cluster_loads import ADDRESS_VARIABLE, VARIABLE

    warehouse.save()
    os.environ[VARIABLE] = "dask"
    with serving(_Api) as url:
        for workers in WORKERS:
            with LocalCluster(
                n_workers=workers, threads_per_worker=THREADS, dashboard_address=None
            ) as cluster:
                os.environ[ADDRESS_VARIABLE] = cluster.scheduler_address
                # Every worker imports what it needs before anything is measured.
                _run(url, workers, 200 * workers, None)
                for _ in range(runs):
                    yield _run(url, workers, PARTITIONS_PER_WORKER * workers, None)
                if workers == WORKERS[-1]:
                    for _ in range(runs):
                        yield _run(url, workers, LIMITED_PARTITIONS, RATE)


def _run(url: str, workers: int, partitions: int, rate: Rate | None) -> Throughput:
    from flows import sources
    from flows.elt import elt

    days = Resource(
        "days",
        "days/{day}",
        records_at(),
        key=("day", "id"),
        partitions=tuple(Partition(str(day), {"day": day}) for day in range(partitions)),
        partition_columns=("day",),
    )
    found = Source("throughput", url, (days,), concurrency=CONCURRENCY, rate=rate)
    sources.find = lambda name: found  # type: ignore[assignment]
    _Api.times.clear()
    elt(source="throughput", transform=False)
    [(seconds, loaded)] = _rows(SPAN)
    if loaded != partitions or len(_Api.times) != partitions:
        raise RuntimeError(f"{loaded} of {partitions} partitions, {len(_Api.times)} requests")
    asked = rate.requests if rate else None
    return Throughput(workers, asked, partitions, round(seconds, 3), most_within(_Api.times, 1))


def most_within(times: list[float], seconds: float) -> int:
    """The most of these times in any window of that length."""
    ordered = sorted(times)
    return max(
        bisect_left(ordered, time + seconds) - position for position, time in enumerate(ordered)
    )


def _rows(query: str) -> list[Any]:
    with closing(psycopg2.connect(os.environ["WAREHOUSE_URL"])) as opened, opened.cursor() as c:
        c.execute(query)
        return c.fetchall()


def main() -> None:
    """Measure, and write down each run."""
    runs, answer = int(sys.argv[1]), Path(sys.argv[2])
    answer.write_text(json.dumps([asdict(each) for each in measured(runs)]))


if __name__ == "__main__":
    main()
