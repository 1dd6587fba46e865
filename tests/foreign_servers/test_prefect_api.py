"""Promises of extract and load together, kept with Prefect's REST API: POST, paging in the body.

The rows in Postgres are compared with the results of Prefect's own client.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterEndTime
from prefect.states import Completed, Scheduled
from psycopg2.extensions import connection as Connection

from deployments.local.stack import Stack
from flows.errors import BadRequestError
from flows.source import Source
from tests.foreign_servers import prefect_api
from tests.foreign_servers.loading import (
    Query,
    changed,
    extracted,
    load_resource,
    stored,
    whole_rows,
)

ENDED = FlowRunFilter(end_time=FlowRunFilterEndTime(is_null_=False))
ROWS_A_PAGE = 10
NEW_FLOWS = 23
OLD_RUNS = 12
LONG_AGO = datetime.now(UTC) - timedelta(days=9)


@flow(name="read-by-tests")
def read_by_tests() -> None:
    """Do nothing: its runs are only there to be read."""


@pytest.fixture(scope="module")
def prefect(stack: Stack) -> Iterator[SyncPrefectClient]:
    """Prefect's client, on a server with flows and ended runs for more than one page."""
    with get_client(sync_client=True) as client:
        for _ in range(NEW_FLOWS):
            client.create_flow_from_name(f"read-by-tests-{uuid4()}")
        for due_at in [LONG_AGO] * OLD_RUNS + [datetime.now(UTC)]:
            run = client.create_flow_run(read_by_tests, state=Scheduled(scheduled_time=due_at))
            client.set_flow_run_state(run.id, Completed())
        yield client


@pytest.fixture
def source(stack: Stack, prefect: SyncPrefectClient) -> Source:
    """The source, at the stack's server."""
    return replace(prefect_api.SOURCE, base_url=stack.environment["PREFECT_API_URL"])


def all_of(read: Callable[..., list[Any]]) -> list[dict[str, Any]]:
    """The results of Prefect's client, ordered by id, as JSON."""
    found: list[Any] = []
    while more := read(offset=len(found)):
        found += more
    return sorted((one.model_dump(mode="json") for one in found), key=lambda one: one["id"])


@pytest.mark.parametrize(("name", "last_requests"), [("flows", 1), ("numbered_flows", 0)])
def test_every_flow_arrives_once_and_a_second_load_changes_nothing(
    name: str,
    last_requests: int,
    source: Source,
    prefect: SyncPrefectClient,
    connection: Connection,
    query: Query,
) -> None:
    """Offsets end with an empty page; page numbers with the count of pages that Prefect sends."""
    flows = all_of(prefect.read_flows)
    assert len(flows) >= NEW_FLOWS
    (entry,) = load_resource(connection, source, name)
    assert entry.pages == -(-len(flows) // ROWS_A_PAGE) + last_requests
    assert (entry.state, entry.extracted, entry.inserted) == ("succeeded", len(flows), len(flows))
    assert stored(query, source, name) == flows
    before = whole_rows(query, source, name)
    again = load_resource(connection, source, name)
    assert (extracted(again), changed(again)) == (len(flows), (0, 0, 0))
    assert whole_rows(query, source, name) == before


def test_a_load_asks_only_for_what_its_window_lacks(
    source: Source, prefect: SyncPrefectClient, connection: Connection, query: Query
) -> None:
    """The window is in the body that is posted: runs of long ago are not read again."""
    read_ended = partial(prefect.read_flow_runs, flow_run_filter=ENDED)
    pending = prefect.create_flow_run(read_by_tests)
    (first,) = load_resource(connection, source, "flow_runs")
    assert first.extracted == first.inserted == len(all_of(read_ended)) > OLD_RUNS
    prefect.set_flow_run_state(pending.id, Completed())
    (second,) = load_resource(connection, source, "flow_runs")
    assert (second.inserted, second.updated) == (1, 0)
    assert second.extracted == first.extracted - OLD_RUNS + 1
    runs = stored(query, source, "flow_runs")
    assert [*map(without_state, runs)] == [*map(without_state, all_of(read_ended))]
    before = whole_rows(query, source, "flow_runs")
    assert changed(load_resource(connection, source, "flow_runs")) == (0, 0, 0)
    assert whole_rows(query, source, "flow_runs") == before


def without_state(run: dict[str, Any]) -> dict[str, Any]:
    """A run as the API sends it: the client's model of a state adds fields."""
    return {name: value for name, value in run.items() if name != "state"}


def test_what_prefect_refuses_is_told_in_its_own_words(
    source: Source, connection: Connection, query: Query
) -> None:
    greedy = replace(source.resource("flows"), body={"limit": 1000})
    with pytest.raises(BadRequestError, match=r"422 .*Invalid limit: must be less than or equal"):
        load_resource(connection, replace(source, resources=(greedy,)), "flows")
    assert query("select state, extracted from elt.loads") == [("failed", 0)]
