"""The flow with several accounts of one source: parents, children, cursors and secrets of each."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect.client.schemas.objects import State

from flows import sources
from flows.backfill import backfill
from flows.elt import elt
from flows.errors import RefusedLoginError
from flows.extract.auth import Bearer
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.source import Accounts, Cursor, Resource, RowsOf, Source
from tests.http_servers import Answer, Asked, Serve, Server

Ask = Callable[..., list[tuple[Any, ...]]]

ACCOUNTS = Accounts({name: Bearer(f"shop-{name}-token") for name in ("eu", "us")})
ORDERS = Resource(
    "orders",
    "orders",
    records_at("items"),
    params={"since": "{since:%Y-%m-%d}"},
    paging=next_url("next"),
    key=("account", "id"),
    cursor=Cursor("at"),
    partitions=ACCOUNTS.partitions,
    partition_columns=("account",),
)
LINES = Resource(
    "lines",
    "orders/{order}/lines",
    records_at("items"),
    key=("account", "order", "id"),
    partitions=RowsOf("orders", {"account": "account", "order": "id"}, changed_only=True),
    partition_columns=("account", "order"),
)
NEWEST = {"eu": "2026-03-04T10:00:00Z", "us": "2026-05-06T10:00:00Z"}
COUNTS = {"eu": 6, "us": 4}
STORED = 'select account, "order", id, of from raw_shop.lines order by 1, 2, 3'
WANTED = [
    (account, order, 1, f"{account} {order}")
    for account, count in COUNTS.items()
    for order in range(count)
]


def answer(asked: Asked) -> Answer:
    """Both accounts have orders with the same ids; the token tells whose they are."""
    account = str(asked.headers["Authorization"]).removeprefix("Bearer token-of-")
    if account not in COUNTS:
        return Answer(status=401)
    path, _, query = asked.partition("?")
    if path.endswith("/lines"):
        order = int(path.split("/")[2])
        items = [{"id": 1, "of": f"{account} {order}"}] if order < COUNTS[account] else []
        return Answer(json.dumps({"items": items}).encode(), 200 if items else 404)
    number = int(query.partition("page=")[2] or 0)
    is_last = number + 1 == COUNTS[account] or "since" in query
    items = [] if "since" in query else [{"id": number, "at": NEWEST[account]}]
    following = None if is_last else f"?page={number + 1}"
    return Answer(json.dumps({"items": items, "next": following}).encode())


@pytest.fixture
def api(serve: Serve) -> Server:
    return serve(answer)


@pytest.fixture
def run(
    api: Server, warehouse_url: object, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., State[Any]]:
    """Run the flow; the secrets are in their blocks."""
    for account in COUNTS:
        Secret(value=f"token-of-{account}").save(f"shop-{account}-token", overwrite=True)
    source = Source("shop", api.url, (LINES, ORDERS), ACCOUNTS)
    monkeypatch.setattr(sources, "find", lambda name: source)
    return lambda: elt(source="shop", transform=False, return_state=True)


def test_children_are_read_by_the_account_of_their_parents_row(
    run: Callable[..., State[Any]], api: Server, ask: Ask
) -> None:
    """Each order's lines are requested once, with the token of its account."""
    assert run().is_completed()
    assert ask(STORED) == WANTED
    lines = Counter(
        (asked.headers["Authorization"], str(asked)) for asked in api.asked if "lines" in asked
    )
    assert lines == {
        (f"Bearer token-of-{account}", f"/orders/{order}/lines"): 1 for account, order, *_ in WANTED
    }
    [tokens] = ask("select string_agg(l::text, ' ') like '%%token-of%%' from elt.loads l")
    assert tokens == (False,)


def test_each_account_has_a_cursor_of_its_own(
    run: Callable[..., State[Any]], api: Server, ask: Ask
) -> None:
    assert run().is_completed()
    before = len(api.asked)
    assert run().is_completed()
    again = {(asked.headers["Authorization"], str(asked)) for asked in api.asked[before:]}
    assert again == {
        ("Bearer token-of-eu", "/orders?since=2026-03-04"),
        ("Bearer token-of-us", "/orders?since=2026-05-06"),
    }
    assert ask(STORED) == WANTED


def test_an_account_that_is_refused_lets_the_other_load(
    run: Callable[..., State[Any]], ask: Ask
) -> None:
    Secret(value="token-of-nobody").save("shop-us-token", overwrite=True)
    error = run().result(raise_on_failure=False)
    assert isinstance(error, RefusedLoginError)
    assert "account 'us'" in str(error)
    assert "token-of" not in str(error)
    assert ask("select account, count(*) from raw_shop.orders group by 1") == [("eu", 6)]


def test_a_backfill_of_an_account_that_was_refused_loads_what_is_missing(
    run: Callable[..., State[Any]], ask: Ask
) -> None:
    days = {"since": date(2026, 1, 1), "until": date(2026, 2, 1)}
    options = {"source": "shop", "transform": False, "resources": ("orders",), **days}
    Secret(value="token-of-nobody").save("shop-us-token", overwrite=True)
    error = backfill(**options, return_state=True).result(raise_on_failure=False)
    assert isinstance(error, RefusedLoginError)
    Secret(value="token-of-us").save("shop-us-token", overwrite=True)
    assert backfill(**options, return_state=True).is_completed()
    loads = ask("select left(partition, 2), state from elt.loads order by load_id")
    assert sorted(loads) == [("eu", "succeeded"), ("us", "failed"), ("us", "succeeded")]
