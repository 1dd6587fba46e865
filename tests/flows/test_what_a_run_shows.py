"""What a person sees of a run in Prefect: message, tables, lineage and a few log lines."""

import json
from collections.abc import Callable
from datetime import date
from time import monotonic
from typing import Any

import pytest
import requests
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
    TaskRunFilterTags,
)
from prefect.client.schemas.objects import Artifact, State, TaskRun
from prefect.events import Event
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.types._datetime import DateTime, now, parse_datetime

from deployments.local.stack import Stack
from flows import progress
from flows.anomaly_events import ANOMALIES
from flows.backfill import backfill
from flows.elt import elt
from flows.transform import transform
from tests.http_servers import Answer, Asked, Server

Ask = Callable[..., list[tuple]]
Serve = Callable[[Callable[[Asked], Answer]], Server]


def artifacts(state: State[Any]) -> list[Artifact]:
    """The run's artifacts, without the untyped ones, which are Prefect's own results."""
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    with get_client(sync_client=True) as server:
        found = server.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        )
    return [artifact for artifact in found if artifact.type]


def lineage(since: DateTime) -> dict[str, set[str]]:
    """The parents of each table, by the asset events sent to Prefect since then."""
    return {
        event["resource"]["prefect.resource.id"].removeprefix("postgres://warehouse/"): {
            related["prefect.resource.id"].removeprefix("postgres://warehouse/")
            for related in event["related"]
            if related["prefect.resource.role"] == "asset"
        }
        for event in events("prefect.asset.materialization.succeeded", since)
    }


def events(name: str, since: DateTime) -> list[dict[str, Any]]:
    """The events of that name that were sent to Prefect since then, newest first."""
    EventsWorker.drain_all()
    wanted = {
        "occurred": {"since": since.isoformat(), "until": now("UTC").isoformat()},
        "event": {"name": [name]},
    }
    with get_client(sync_client=True) as server:
        answer = server.request("POST", "/events/filter", json={"filter": wanted, "limit": 50})
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def test_the_run_reports_its_totals_and_a_table_shows_each_load(ask: Ask) -> None:
    state = elt(
        source="market",
        resources=("shippers", "suppliers"),
        transform=False,
        return_state=True,
    )
    assert state.message == "2 loads: 32 extracted, 32 inserted"
    [table] = artifacts(state)
    assert (table.type, table.key) == ("table", "loads-market")
    rows = {row["load"]: row for row in json.loads(str(table.data))}
    assert set(rows) == {"market.shippers", "market.suppliers"}
    assert rows["market.shippers"]["inserted"] == 3
    assert rows["market.shippers"]["schema changes"] == ""
    assert (rows["market.shippers"]["requests"], rows["market.shippers"]["retries"]) == (1, 0)
    assert rows["market.shippers"]["received_bytes"] > 100

    ask("alter table raw_market.shippers drop column phone")
    state = elt(source="market", resources=("shippers",), transform=False, return_state=True)
    [row] = json.loads(str(artifacts(state)[0].data))
    assert (row["updated"], row["schema changes"]) == (3, "phone: text")
    assert row["anomalies"] == "new column phone: text"


def test_what_is_unusual_is_in_the_message_the_table_and_one_event(ask: Ask) -> None:
    """The event names its run, from which `notify` makes the message; the next load is alike."""
    options = {"source": "market", "resources": ("suppliers",), "transform": False}
    begun_at = now("UTC")
    states = [elt(**options, return_state=True)]
    ask("update elt.loads set is_comparable = true, extracted = 500, inserted = 500")
    ask(
        "insert into elt.loads (source, resource, partition, state, extracted, inserted,"
        " is_comparable) select source, resource, partition, state, extracted, inserted, true"
        " from elt.loads, generate_series(1, 2)"
    )
    states += [elt(**options, return_state=True) for _ in range(2)]
    assert [state.message for state in states] == [
        "1 loads: 29 extracted, 29 inserted",
        "1 loads: 29 extracted, 29 unchanged; anomalies: 1",
        "1 loads: 29 extracted, 29 unchanged; anomalies: 1",
    ]
    [row] = json.loads(str(artifacts(states[1])[0].data))
    assert row["anomalies"].startswith("29 records; the median of the last 3 ")
    deadline = monotonic() + 60
    while not (found := events("elt.anomalies", begun_at)):
        assert monotonic() < deadline
    [event] = found
    runs = [
        related["prefect.resource.id"].rpartition(".")[2]
        for related in event["related"]
        if related["prefect.resource.role"] == "flow-run"
    ]
    assert runs == [str(states[1].state_details.flow_run_id)]
    assert event["resource"]["prefect.resource.name"] == "market"
    assert event["payload"] == {"anomalies": f"market.suppliers: {row['anomalies']}"}


TOLD = "select count(told_at) from elt.anomalies"


def test_anomalies_count_as_told_once_their_event_is_sent(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed in between leaves them to the next one."""
    options = {"source": "market", "resources": ("shippers",), "transform": False}
    elt(**options)
    ask("alter table raw_market.shippers drop column phone")
    told: list[list[tuple]] = []
    send = PrefectEventsClient._emit

    async def send_slowly(client: PrefectEventsClient, event: Event) -> None:
        deadline = monotonic() + 0.5
        while event.event == ANOMALIES and monotonic() < deadline:
            told.append(ask(TOLD))
        await send(client, event)

    monkeypatch.setattr(PrefectEventsClient, "_emit", send_slowly)
    elt(**options)
    EventsWorker.drain_all()
    assert ask(TOLD) == [(1,)]
    assert told
    assert all(found == [(0,)] for found in told)


def test_a_load_that_failed_is_in_the_table_with_its_error(
    stack: Stack, serve: Serve, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = stack.environment["MARKET_BASE_URL"]

    def answer(path: Asked) -> Answer:
        if path.startswith("/Suppliers"):
            return Answer(status=401)
        return Answer(requests.get(base + path.lstrip("/"), timeout=10).content)

    monkeypatch.setenv("MARKET_BASE_URL", serve(answer).url)
    state = elt(
        source="market",
        resources=("shippers", "suppliers"),
        transform=False,
        return_state=True,
    )
    assert state.is_failed()
    rows = {row["load"]: row for row in json.loads(str(artifacts(state)[0].data))}
    assert rows["market.shippers"]["state"] == "succeeded"
    assert rows["market.suppliers"]["state"] == "failed"
    assert "401" in rows["market.suppliers"]["error"]


@pytest.mark.long
def test_a_build_has_a_lineage_and_a_summary_with_what_failed(ask: Ask) -> None:
    begun_at = now("UTC")
    assert elt(source="market", transform=False, return_state=True).is_completed()
    ask("update raw_market.orders set order_date = 'soon' where order_id = 10248")
    state = transform(return_state=True)
    assert state.is_failed()
    [summary] = [artifact for artifact in artifacts(state) if artifact.key == "dbt-build"]
    assert str(summary.data).startswith("Everything: nothing is published yet.")
    assert "**failed** model" in str(summary.data)
    assert 'invalid input syntax for type date: "soon"' in str(summary.data)
    made = lineage(begun_at)
    assert made["raw_market/shippers"] == set()
    assert made["staging/stg_market__shippers"] == {"raw_market/shippers"}


@pytest.mark.long
def test_each_dbt_node_is_a_task_run_with_its_status_and_times(ask: Ask) -> None:
    assert elt(
        source="market", resources=("shippers",), transform=False, return_state=True
    ).is_completed()
    state = transform(return_state=True)
    assert state.is_completed()
    EventsWorker.drain_all()
    [(results,)] = ask("select results -> 'results' from dbt.builds")
    built = {result["unique_id"]: result for result in results}
    assert len(built) > 10
    runs = {run.dynamic_key.split(" ")[0]: run for run in dbt_runs(state, len(built))}
    assert runs.keys() == built.keys()
    for unique_id, run in runs.items():
        timing = {part["name"]: part for part in built[unique_id]["timing"]}["execute"]
        assert run.state is not None
        assert run.state.name == built[unique_id]["status"].title()
        assert run.start_time is not None
        assert run.end_time is not None
        assert run.start_time <= parse_datetime(timing["started_at"])
        assert run.end_time >= parse_datetime(timing["completed_at"])


@pytest.mark.long
def test_a_build_of_everything_shows_how_each_resource_was_loaded(ask: Ask) -> None:
    for _ in range(2):
        assert elt(
            source="market", resources=("shippers",), transform=False, return_state=True
        ).is_completed()
    shown = {found.key: found for found in artifacts(transform(return_state=True))}
    assert shown.keys() == {"dbt-build", "resources"}
    [row] = json.loads(str(shown["resources"].data))
    assert row.pop("hours since loaded") < 1
    assert row == {
        "resource": "market.shippers",
        "last state": "succeeded",
        "loads": 2,
        "failed": 0,
        "open rejects": 0,
        "last error": None,
    }
    assert artifacts(transform(only_stale=True, return_state=True)) == []


def dbt_runs(state: State[Any], count: int) -> list[TaskRun]:
    """The task runs of dbt's nodes, once the server has made them of their events."""
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    wanted = TaskRunFilter(
        flow_run_id=TaskRunFilterFlowRunId(any_=[run_id]), tags=TaskRunFilterTags(all_=["dbt"])
    )
    deadline = monotonic() + 60
    with get_client(sync_client=True) as server:
        while len(found := server.read_task_runs(task_run_filter=wanted)) < count:
            assert monotonic() < deadline, f"{len(found)} of {count}"
    return found


def test_a_backfill_shows_how_far_it_is(ask: Ask) -> None:
    state = backfill(
        source="climate",
        since=date(2020, 1, 1),
        until=date(2020, 3, 1),
        transform=False,
        return_state=True,
    )
    [progress] = [artifact for artifact in artifacts(state) if artifact.type == "progress"]
    assert float(str(progress.data)) == 100


def progress_artifacts(stack: Stack) -> dict[str, float]:
    """Progress of all runs that show it, by the artifact's id; callable from any thread."""
    url = f"{stack.environment['PREFECT_API_URL']}/artifacts/filter"
    wanted = {"artifacts": {"type": {"any_": ["progress"]}}}
    found = requests.post(url, json=wanted, timeout=10).json()
    return {artifact["id"]: float(artifact["data"]) for artifact in found}


def test_a_load_that_takes_long_shows_how_far_it_is(
    stack: Stack, serve: Serve, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All answers but the first wait until there is something to see."""
    base = stack.environment["MARKET_BASE_URL"]
    before = progress_artifacts(stack)
    asked: list[Asked] = []
    seen: dict[str, float] = {}

    def answer(path: Asked) -> Answer:
        asked.append(path)
        deadline = monotonic() + 60
        while len(asked) > 1 and not seen and monotonic() < deadline:
            now_there = progress_artifacts(stack)
            seen.update({new: now_there[new] for new in now_there.keys() - before.keys()})
        return Answer(requests.get(base + path.lstrip("/"), timeout=10).content)

    assert progress.SHOWN_EVERY_SECONDS >= 10, "Prefect counts what it is asked"
    monkeypatch.setattr(progress, "SHOWN_EVERY_SECONDS", 0.2)
    monkeypatch.setenv("MARKET_BASE_URL", serve(answer).url)
    loaded = ("order_details", "shippers")
    state = elt(source="market", resources=loaded, transform=False, return_state=True)
    assert state.is_completed()
    [end] = [artifact for artifact in artifacts(state) if artifact.type == "progress"]
    assert set(seen) == {str(end.id)}
    assert seen[str(end.id)] < 100
    assert float(str(end.data)) == 100
    pages = dict(ask("select resource, pages from elt.loads"))
    assert pages["order_details"] > 4
    assert end.description == "\n".join(f"* {name}: {pages[name]} pages" for name in loaded)


def test_a_load_logs_no_line_a_page(ask: Ask) -> None:
    """29 pages of order lines, and as few lines as one page has."""
    state = elt(source="market", resources=("order_details",), transform=False, return_state=True)
    APILogWorker.drain_all()
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    assert ask("select pages > 4 from elt.loads") == [(True,)]
    with get_client(sync_client=True) as server:
        lines = server.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])))
    assert 1 <= len(lines) <= 5, [line.message for line in lines]
