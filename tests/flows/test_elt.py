"""The flows against real services: loads, builds, and messages of failures."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import rows
from prefect.client.schemas.objects import State
from sqlalchemy.engine import URL

from blocks import warehouse
from deployments.local.postgres import ensure_database, libpq
from deployments.local.stack import Stack
from flows.dbt_build.build import NOTHING
from flows.dbt_build.history import raw_tables
from flows.elt import elt
from flows.errors import (
    BadPayloadError,
    BuildError,
    ConfigurationError,
    RefusedLoginError,
    UnavailableError,
)
from flows.extract import client
from flows.transform import transform
from tests.http_servers import Answer, Server

Ask = Callable[..., list[tuple]]

HTML = {"Content-Type": "text/html"}


def outcome(state: State[Any]) -> Any:
    """The result or the exception of a flow run."""
    return state.result(raise_on_failure=False)


def run(**parameters: Any) -> State[Any]:
    """Run `elt`, by default without its build."""
    state: State[Any] = elt(**{"transform": False, **parameters}, return_state=True)
    return state


@pytest.fixture
def market(
    stack: Stack,
    serve: Callable[[Callable[[str], Answer]], Server],
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Answer]:
    """The market API behind a proxy; responses put in here by entity set replace its own."""
    said: dict[str, Answer] = {}
    base = stack.environment["MARKET_BASE_URL"]

    def answer(path: str) -> Answer:
        entity_set = path.lstrip("/").partition("?")[0]
        if entity_set in said:
            return said[entity_set]
        return Answer(requests.get(base + path.lstrip("/"), timeout=10).content)

    monkeypatch.setenv("MARKET_BASE_URL", serve(answer).url)
    monkeypatch.setattr(client, "sleep", lambda seconds: None)
    return said


def test_task_runs_are_named_after_what_they_load(ask: Ask) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    state = run(source="market", resources=["orders", "shippers"])
    run_id = state.state_details.flow_run_id
    with get_client(sync_client=True) as server:
        task_runs = server.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        )
    assert {"market.orders", "market.shippers"} >= {run.name for run in task_runs}
    assert ask("select resource, run_id from elt.loads order by 1") == [
        ("orders", str(run_id)),
        ("shippers", str(run_id)),
    ]


def test_since_and_until_choose_the_days(ask: Ask) -> None:
    state = run(source="climate", since=date(1997, 1, 30), until=date(1997, 2, 2))
    assert state.is_completed()
    assert ask("select time from raw_climate.daily_weather order by 1") == [
        ("1997-01-30",),
        ("1997-01-31",),
        ("1997-02-01",),
    ]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"source": "markte"}, ["'markte'", "climate, market"]),
        ({"source": "market", "resources": ["order"]}, ["'order'", "orders", "suppliers"]),
        (
            {"source": "market", "since": date(1998, 1, 2), "until": date(1998, 1, 1)},
            ["since (1998-01-02) must be before until (1998-01-01)"],
        ),
        (
            {"source": "market", "since": date(1998, 1, 2), "full_refresh": True},
            ["full_refresh reads everything"],
        ),
        ({"source": "market", "reset": True}, ["name the resources"]),
        (
            {"source": "market", "resources": ["orders"], "reset": True, "replay": True},
            ["replay does not read the API"],
        ),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_is_loaded(
    parameters: dict[str, Any], words: list[str], ask: Ask
) -> None:
    state = run(**parameters)
    assert state.is_failed()
    assert isinstance(outcome(state), ConfigurationError)
    assert all(word in str(outcome(state)) for word in words)
    assert ask("select to_regclass('elt.loads')") == [(None,)]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (Answer(b'{"error": "key?"}', 401), RefusedLoginError, ["/Orders", "401", "credentials"]),
        (Answer(b"gone", 404, HTML), ConfigurationError, ["404", "base URL or path"]),
        (Answer(b"oops", 500, HTML), UnavailableError, ["500", "oops", "later"]),
        (Answer(b"<html>hello", 200, HTML), BadPayloadError, ["text/html", "<html>hello"]),
        (Answer(b'{"value": [{"Ord'), BadPayloadError, ["not JSON", '{"value": [{"Ord']),
        (Answer(b'{"values": []}'), BadPayloadError, ["'value'", "values"]),
        (
            Answer(b'{"value": [{"OrderID": 1}, {"ShipName": "x"}]}'),
            BadPayloadError,
            ["1 records could not be stored", "has no field 'OrderID'", "elt.rejects"],
        ),
    ],
)
def test_a_misbehaving_api_fails_the_run_and_keeps_the_rest(
    said: Answer,
    kind: type[Exception],
    words: list[str],
    market: dict[str, Answer],
    ask: Ask,
) -> None:
    market["Orders"] = said
    state = run(source="market")
    assert state.is_failed()
    assert isinstance(outcome(state), kind)
    assert all(
        word in str(outcome(state))
        for word in [*words, "Orders" if "elt." not in words[-1] else "orders"]
    )
    assert ask("select count(*) from elt.loads where state = 'succeeded'") == [(7,)]
    assert ask("select error from elt.loads where state = 'failed'") == [(str(outcome(state)),)]

    market.clear()
    assert run(source="market").is_completed()
    assert ask("select count(*) from raw_market.orders where order_date is not null") == [(830,)]


def test_an_empty_answer_empties_a_table_only_where_that_is_accepted(
    market: dict[str, Answer], ask: Ask
) -> None:
    shippers: dict[str, Any] = {"source": "market", "resources": ["shippers"]}
    assert run(**shippers).is_completed()
    market["Shippers"] = Answer(b'{"value": []}')
    state = run(**shippers, full_refresh=True)
    assert isinstance(outcome(state), BadPayloadError)
    assert "raw_market.shippers holds 3 rows" in str(outcome(state))
    assert ask("select count(*) from raw_market.shippers") == [(3,)]
    assert run(**shippers, full_refresh=True, accept_shrinkage=True).is_completed()
    assert ask("select count(*) from raw_market.shippers") == [(0,)]


def test_a_reset_loads_a_resource_from_the_start(ask: Ask) -> None:
    shippers: dict[str, Any] = {"source": "market", "resources": ["shippers"]}
    assert run(**shippers).is_completed()
    assert run(**shippers, reset=True).is_completed()
    loads = "select inserted, unchanged from elt.loads where resource = 'shippers' order by load_id"
    assert ask(loads)[-2:] == [(3, 0), (3, 0)]
    assert ask("select source, resource, reason from elt.resets") == [
        ("market", "shippers", "reset by hand")
    ]


def test_one_sources_failure_does_not_stop_the_others_marts(
    market: dict[str, Answer], ask: Ask
) -> None:
    market["Orders"] = Answer(b"oops", 500)
    assert run(source="market", resources=["orders"]).is_failed()
    assert run(source="climate", transform=True).is_completed()
    assert ask("select count(*) > 300 from marts.fct_daily_weather") == [(True,)]
    assert ask("select to_regclass('marts.rpt_sales_vs_weather')") == [(None,)]


@pytest.mark.long
def test_the_load_history_is_part_of_every_build_and_as_new_as_the_ledger(ask: Ask) -> None:
    assert run(source="market", resources=["shippers"]).is_completed()
    ask(
        "insert into elt.loads (source, resource, partition, state)"
        " values ('market', 'orders', '', 'running')"
    )
    assert ", 0 warned, 0 failed, 0 skipped" in transform()
    assert transform(only_stale=True) == NOTHING
    assert run(source="market", resources=["categories"]).is_completed()

    history = ask("select resource, last_state, is_complete from marts.rpt_load_history order by 1")
    assert history == [
        ("categories", "succeeded", True),
        ("orders", "running", False),
        ("shippers", "succeeded", True),
    ]
    with warehouse.load().transaction() as cursor:
        complete = [table.resource for table in raw_tables(cursor) if table.is_complete]
    assert sorted(complete) == [resource for resource, _, is_complete in history if is_complete]


def test_dbt_that_ends_before_its_first_node_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    assert run(source="market", resources=["shippers"]).is_completed()
    monkeypatch.setenv("DBT_TARGET", "nowhere")
    state = transform(return_state=True)
    assert isinstance(outcome(state), BuildError)
    assert "before it built anything" in str(outcome(state))
    assert "nowhere" in str(outcome(state))


def test_nothing_loaded_builds_nothing(ask: Ask) -> None:
    assert transform() == NOTHING


def test_postgres_that_is_down_is_named(stack: Stack) -> None:
    warehouse.save({warehouse.URL_VARIABLE: "postgresql://elt:secret@127.0.0.1:1/warehouse"})
    state = run(source="market")
    assert isinstance(outcome(state), UnavailableError)
    assert "127.0.0.1:1 does not respond" in str(outcome(state))
    assert "secret" not in str(outcome(state))


def test_a_wrong_password_is_named_and_not_shown(warehouse_url: URL, stack: Stack) -> None:
    guarded = ensure_database(warehouse_url, "guarded")
    rules = Path(str(guarded.query["host"]), "pg_hba.conf")
    rules.write_text(f"local guarded guard scram-sha-256\n{rules.read_text()}")
    login = guarded.set(username="guard", password="wrong-password")
    rows(guarded, "create role guard login password 'right'")
    rows(guarded, "select pg_reload_conf()")
    warehouse.save({warehouse.URL_VARIABLE: libpq(login)})
    state = run(source="market")
    assert isinstance(outcome(state), RefusedLoginError)
    assert "refused user 'guard'" in str(outcome(state))
    assert "wrong-password" not in str(outcome(state))


def test_a_missing_or_broken_address_is_named() -> None:
    with pytest.raises(ConfigurationError, match="WAREHOUSE_URL to postgresql://"):
        warehouse.save({})
    with pytest.raises(ConfigurationError, match="not a URL"):
        warehouse.save({warehouse.URL_VARIABLE: "no url"})
