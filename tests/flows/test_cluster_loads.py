"""Promises about loads of many partitions on the workers of a Dask cluster."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Answer, Asked, Serve, Server
from distributed import LocalCluster
from prefect.client.schemas.objects import State

from flows import cluster_loads, sources
from flows.elt import elt
from flows.extract.selectors import records_at
from flows.source import Partition, Resource, Source

Ask = Callable[..., list[tuple[Any, ...]]]
COUNT = 300


@pytest.fixture(scope="module")
def cluster(stack) -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None) as started:
        yield started


def test_x(cluster, serve, ask, monkeypatch, stack):
    def answer(asked):
        day = int(asked.split("/")[-1])
        return Answer(b'[{"id": 1, "n": %d}]' % day)
    api = serve(answer)
    res = Resource("days", "days/{day}", records_at(), key=("day", "id"), partitions=tuple(Partition(str(n), {"day": n}) for n in range(COUNT)), partition_columns=("day",))
    source = Source("shop", api.url, (res,))
    monkeypatch.setattr(sources, "find", lambda name: source)
    monkeypatch.setenv("ELT_TASK_RUNNER", "dask")
    monkeypatch.setenv("ELT_DASK_SCHEDULER", cluster.scheduler_address)
    for _ in range(2):
        began = time.monotonic()
        state = elt(source="shop", transform=False, return_state=True)
        print(state, time.monotonic() - began)
    print(ask("select count(*) from raw_shop.days"), len(api.asked))
    print(ask("select * from elt.loads"))
    monkeypatch.setenv("ELT_TASK_RUNNER", "threads")
    began = time.monotonic()
    state = elt(source="shop", transform=False, return_state=True)
    print(state, time.monotonic() - began)
    assert 0
