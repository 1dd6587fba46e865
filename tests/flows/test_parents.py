"""The flow with parents and children, replays, logins: sources that are declared here."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests
from prefect.client.schemas.objects import State

from blocks import secrets
from flows import sources
from flows.elt import elt, waves
from flows.errors import ConfigurationError, RefusedLoginError
from flows.extract import client
from flows.extract.auth import Bearer
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.source import Cursor, Rate, Resource, RowsOf, Source
from tests.fault_api.server import misbehaving

Ask = Callable[..., list[tuple[Any, ...]]]

PARENTS = Resource("parents", "parents", records_at("items"), key=("id",), paging=next_url("next"))
CHILDREN = Resource(
    "children",
    "parents/{parent}/children",
    records_at("items"),
    paging=next_url("next"),
    key=("parent", "id"),
    partitions=RowsOf("parents", {"parent": "id"}),
    partition_columns=("parent",),
)
FAMILY = Source("family", "", (CHILDREN, PARENTS))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(client, "sleep", lambda seconds: None)
    with misbehaving() as url:
        yield f"{url}/"


@pytest.fixture
def declare(api: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Source], None]:
    """Have the flow find this source, at the sample API."""

    def make_known(source: Source) -> None:
        known = replace(source, base_url=f"{api}{source.base_url}")
        monkeypatch.setattr(sources, "find", lambda name: known)

    return make_known


def plan(api: str, **fault: Any) -> None:
    requests.post(f"{api}_faults", json=[fault], timeout=10).raise_for_status()


def run(source: str = "family", **parameters: Any) -> State[Any]:
    state: State[Any] = elt(source=source, transform=False, **parameters, return_state=True)
    return state


def test_children_are_read_for_every_row_of_their_parents(
    declare: Callable[[Source], None], ask: Ask
) -> None:
    """They are declared first, and wait for the parents all the same."""
    declare(FAMILY)
    assert run().is_completed()
    assert ask("select count(*), count(distinct parent_id) from raw_family.children") == [(25, 4)]
    assert ask(
        "select partition, inserted from elt.loads where resource = 'children' order by load_id"
    ) == [("", 25)]


def test_a_child_that_fails_lets_the_others_load_and_is_named(
    declare: Callable[[Source], None], api: str, ask: Ask
) -> None:
    declare(FAMILY)
    plan(api, path="/parents/3/children", fault="404")
    state = run()
    assert state.is_failed()
    error = state.result(raise_on_failure=False)
    assert isinstance(error, ConfigurationError)
    assert "/parents/3/children: answered 404" in str(error)
    assert ask("select count(*) from raw_family.children") == [(13,)]
    assert run().is_completed()
    assert ask("select count(*) from raw_family.children") == [(25,)]


def test_children_without_their_parents_are_read_by_the_rows_there_are(
    declare: Callable[[Source], None], ask: Ask
) -> None:
    declare(FAMILY)
    assert run(resources=["children"]).is_completed()
    assert run(resources=["parents"]).is_completed()
    assert run(resources=["children"]).is_completed()
    assert ask("select count(*) from raw_family.children") == [(25,)]


def test_a_replace_of_children_deletes_those_of_parents_that_are_gone(
    declare: Callable[[Source], None], ask: Ask
) -> None:
    declare(replace(FAMILY, resources=(PARENTS, replace(CHILDREN, disposition="replace"))))
    assert run().is_completed()
    ask("delete from raw_family.parents where id = 3")
    assert run(resources=["children"]).is_completed()
    assert ask("select count(*) from raw_family.children") == [(13,)]
    ask("delete from raw_family.parents where id in (1, 4)")
    refused = run(resources=["children"]).result(raise_on_failure=False)
    assert "raw_family.children holds 13 rows" in str(refused)
    assert run(resources=["children"], accept_shrinkage=True).is_completed()
    assert ask("select count(*) from raw_family.children") == [(1,)]


def test_parents_come_before_their_children_whatever_their_order() -> None:
    grandchildren = replace(
        CHILDREN, name="grandchildren", partitions=RowsOf("children", {"parent": "id"})
    )
    found = waves([grandchildren, CHILDREN, PARENTS])
    assert [[resource.name for resource in wave] for wave in found] == [
        ["parents"],
        ["children"],
        ["grandchildren"],
    ]
    with pytest.raises(ConfigurationError, match="each other's parents"):
        waves([replace(CHILDREN, partitions=RowsOf("children", {"parent": "id"}))])


def test_a_secret_comes_from_the_environment_or_from_its_block(
    declare: Callable[[Source], None], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = Resource("items", "", records_at("items"), paging=next_url("next"), key=("id",))
    declare(Source("shop", "login/bearer", (items,), Bearer("parents-test-token")))
    monkeypatch.setattr(sources, "names", lambda: ["shop"])
    refused = run("shop").result(raise_on_failure=False)
    assert isinstance(refused, RefusedLoginError)
    assert "PARENTS_TEST_TOKEN" in str(refused)
    for _ in range(2):
        saved = secrets.save({"PARENTS_TEST_TOKEN": "sample-bearer-token"})
        assert saved == ["parents-test-token"]
    assert run("shop").is_completed()
    monkeypatch.setenv("PARENTS_TEST_TOKEN", "another")
    assert run("shop").is_failed()
    assert ask("select count(*) from raw_shop.items") == [(25,)]


def test_a_rate_of_all_processes_is_kept_in_the_warehouse(
    declare: Callable[[Source], None], ask: Ask
) -> None:
    declare(replace(FAMILY, rate=Rate(1000)))
    assert run().is_completed()
    assert ask("select source from elt.rates") == []
    declare(replace(FAMILY, rate=Rate(1000, is_shared=True)))
    assert run(full_refresh=True).is_completed()
    assert ask("select source from elt.rates") == [("family",)]


def test_a_run_deletes_the_ledgers_entries_beyond_the_sources_days(
    declare: Callable[[Source], None], ask: Ask
) -> None:
    declare(replace(FAMILY, keep_ledger_days=30))
    for _ in range(2):
        assert run(resources=["parents"]).is_completed()
    ask("update elt.loads set ended_at = ended_at - interval '31 days'")
    assert run(resources=["parents"]).is_completed()
    assert ask("select load_id from elt.loads order by 1") == [(1,), (3,)]


def test_the_flow_replays_rejected_records(declare: Callable[[Source], None], ask: Ask) -> None:
    declare(replace(FAMILY, resources=(replace(PARENTS, columns={"price": "bigint"}),)))
    assert run().is_failed()
    assert ask("select count(*) from elt.rejects where replayed_by is null") == [(5,)]
    declare(replace(FAMILY, resources=(replace(PARENTS, columns={"price": "numeric"}),)))
    assert run(replay=True).is_completed()
    assert ask("select count(*) from raw_family.parents") == [(5,)]
    assert ask("select count(*) from elt.rejects where replayed_by is null") == [(0,)]


def test_a_replay_of_days_is_refused(declare: Callable[[Source], None]) -> None:
    dated = replace(PARENTS, cursor=Cursor("updated_at"))
    declare(replace(FAMILY, resources=(dated,)))
    error = run(replay=True, full_refresh=True).result(raise_on_failure=False)
    assert isinstance(error, ConfigurationError)
    assert "replay does not read the API" in str(error)
