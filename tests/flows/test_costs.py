"""What a run costs on Prefect's side, against the free plan of Prefect Cloud.

The limits a minute are of https://docs.prefect.io/v3/concepts/rate-limits, as of 2026-11. A run
that stays below them as a whole does so in any minute.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterTimestamp
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.types._datetime import DateTime, now

from flows import sources
from flows.elt import elt
from flows.transform import transform

REQUESTS_A_MINUTE = 625
LOGS_AND_EVENTS_A_MINUTE = 2000
PAGE = 200


@pytest.fixture
def requests_sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request that a Prefect client sends, including retries."""
    sent: list[str] = []

    def counting(send: Callable[..., Any]) -> Callable[..., Any]:
        def counted(client: Any, request: httpx.Request, **options: Any) -> Any:
            sent.append(f"{request.method} {request.url.path}")
            return send(client, request, **options)

        return counted

    for kind in (httpx.Client, httpx.AsyncClient):
        monkeypatch.setattr(kind, "send", counting(kind.send))
    return sent


def logs_since(server: SyncPrefectClient, begun_at: DateTime) -> Iterator[Any]:
    """All log lines that the server got since then."""
    offset = 0
    chosen = LogFilter(timestamp=LogFilterTimestamp(after_=begun_at))
    while page := server.read_logs(chosen, limit=PAGE, offset=offset):
        yield from page
        offset += PAGE


def events_since(server: SyncPrefectClient, begun_at: DateTime) -> int:
    """How many events the server got since then."""
    occurred = {"since": begun_at.isoformat(), "until": now("UTC").isoformat()}
    answer = server.request("POST", "/events/filter", json={"filter": {"occurred": occurred}})
    return int(answer.json()["total"])


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "market",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in [*sources.names(), "transform"]
            if name != "market"
        ),
    ],
)
def test_a_run_stays_below_the_limits_of_the_free_plan(
    name: str,
    warehouse_url: object,
    requests_sent: list[str],
    record_property: Callable[[str, object], None],
) -> None:
    if name == "transform":
        for source in sources.names():
            elt(source=source, transform=False)
    begun_at = now("UTC")
    requests_sent.clear()
    if name == "transform":
        transform()
    else:
        elt(source=name)
    APILogWorker.drain_all()
    EventsWorker.drain_all()
    requests = len(requests_sent)
    with get_client(sync_client=True) as server:
        told = len(list(logs_since(server, begun_at))) + events_since(server, begun_at)
    record_property("requests", requests)
    record_property("logs_and_events", told)
    assert 10 < requests < REQUESTS_A_MINUTE
    assert 10 < told < LOGS_AND_EVENTS_A_MINUTE


def test_a_run_imports_dbt_only_for_a_build() -> None:
    """Dbt takes longer to import than all the rest."""
    program = "import sys, flows.elt, flows.backfill, flows.transform; print('dbt' in sys.modules)"
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
