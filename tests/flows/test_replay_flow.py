"""The flow's parameters `replay` and `wait`: which loads they run, and messages of failures."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
from prefect.client.schemas.objects import State
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows import sources
from flows.elt import elt
from flows.errors import BadPayloadError
from flows.extract.selectors import records_at
from flows.load import ledger
from flows.load.ledger import Address
from flows.source import Resource, Source
from tests.http_servers import Answer

Ask = Callable[..., list[tuple[Any, ...]]]
Declare = Callable[..., None]

OPEN = "select record from elt.rejects where replayed_by is null order by 1"
BODIES = {
    "/boxes": b'[{"id": 1, "v": "soon"}, {"id": 2, "v": "2024-01-01"}]',
    "/bags": b'[{"id": 1, "v": "soon"}, "never"]',
}


@pytest.fixture
def declare(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Declare:
    """Have the flow find a source of two resources, with their columns pinned as given."""
    url = serve(lambda path: Answer(BODIES[path])).url

    def make_known(**columns: str) -> None:
        made = [
            Resource(name, name, records_at(), key=("id",), columns=columns, max_rejects=1)
            for name in ("boxes", "bags")
        ]
        made[1] = replace(made[1], max_rejects=2 if columns["v"] == "date" else 0)
        source = Source("shop", url, tuple(made))
        monkeypatch.setattr(sources, "find", lambda name: source)

    return make_known


def run(**parameters: Any) -> State[Any]:
    state: State[Any] = elt(source="shop", transform=False, **parameters, return_state=True)
    return state


def test_a_replay_loads_what_each_resource_set_aside_and_names_what_stays(
    declare: Declare, ask: Ask
) -> None:
    declare(v="date")
    assert run().is_completed()
    assert ask(OPEN) == [('"never"',), ('{"id": 1, "v": "soon"}',), ('{"id": 1, "v": "soon"}',)]
    declare(v="text")
    error = run(replay=True).result(raise_on_failure=False)
    assert isinstance(error, BadPayloadError)
    assert 'shop.bags: 1 records could not be stored, the first because it is "never"' in str(error)
    assert ask("select v from raw_shop.boxes order by id") == [("soon",), ("2024-01-01",)]
    assert ask("select v from raw_shop.bags") == [("soon",)]
    assert ask(OPEN) == [('"never"',)]


def test_a_replay_of_one_resource_leaves_the_others(declare: Declare, ask: Ask) -> None:
    declare(v="date")
    run()
    declare(v="text")
    assert run(replay=True, resources=["boxes"]).is_completed()
    assert run(replay=True, resources=["boxes"]).is_completed()
    assert ask("select resource, replays from elt.loads where replays is not null") == [
        ("boxes", ask("select load_id from elt.loads where resource = 'boxes' order by 1")[0][0])
    ]
    assert len(ask(OPEN)) == 2


def release_when_waited_for(holder: Connection, ask: Ask) -> None:
    """End the session as soon as another one waits for a lock of its."""
    deadline = time.monotonic() + 30
    while ask("select count(*) from pg_locks where not granted") == [(0,)]:
        assert time.monotonic() < deadline, "nobody waits"
    holder.close()


@pytest.mark.parametrize("replay", [False, True])
def test_a_run_that_is_to_wait_waits_for_the_load_that_is_at_work(
    declare: Declare, ask: Ask, warehouse_url: URL, replay: bool
) -> None:
    declare(v="date")
    run()
    with closing(psycopg2.connect(libpq(warehouse_url))) as holder, ThreadPoolExecutor(1) as thread:
        with holder, holder.cursor() as cursor:
            ledger.lock(cursor, Address("shop", "boxes", ""))
        assert run(resources=["boxes"], replay=replay).is_failed()
        declare(v="text")
        released = thread.submit(release_when_waited_for, holder, ask)
        assert run(resources=["boxes"], replay=replay, wait=True).is_completed()
        released.result()
    assert ask("select v from raw_shop.boxes where id = 1") == [("soon",)]
