"""Promises of a source with several accounts: each request logs in as its own, and as no other."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psutil
import pytest

from flows.errors import ConfigurationError, RefusedLoginError
from flows.extract.auth import ApiKey, Bearer, OAuth2, SessionCookie
from flows.extract.client import MOST_ACCOUNTS, Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import page_number
from flows.extract.selectors import records_at
from flows.source import Accounts, Partition, Resource, RowsOf, Source, Window, product
from tests.http_servers import Answer, Asked, Serve, Server

ACCOUNTS = Accounts({"eu": Bearer("shop-eu-token"), "us": Bearer("shop-us-token")})
SECRETS = {"shop-eu-token": "token-of-eu", "shop-us-token": "token-of-us"}
ORDERS = Resource(
    "orders",
    "orders",
    records_at("items"),
    paging=page_number(total_pages="pages"),
    key=("account", "id"),
    partitions=ACCOUNTS.partitions,
    partition_columns=("account",),
)
LINES = Resource(
    "lines",
    "orders/{order}/lines",
    records_at("items"),
    key=("account", "order", "id"),
    partitions=RowsOf("orders", {"account": "account", "order": "id"}),
    partition_columns=("account", "order"),
)
PAGES = 6


def source_of(url: str, accounts: Accounts = ACCOUNTS, **changes: Any) -> Source:
    return Source("shop", url, (ORDERS, LINES), accounts, **changes)


def read(client: Client, source: Source, partition: Partition) -> list[Any]:
    pages = read_pages(client, source, ORDERS, partition, Window())
    return [record for page in pages for record in page.document["items"]]


def page_of(asked: Asked) -> Answer:
    """A page of records that show who asked for them; `?page=` counts from 1."""
    number = int(asked.partition("page=")[2] or 1)
    items = [{"id": number, "for": asked.headers["Authorization"]}]
    return Answer(json.dumps({"items": items, "pages": PAGES}).encode())


def wanted(account: str) -> list[Any]:
    return [{"id": number, "for": f"Bearer token-of-{account}"} for number in range(1, PAGES + 1)]


def test_pages_read_side_by_side_and_ahead_are_those_of_their_account(serve: Serve) -> None:
    """Both accounts have requests under way at the same time, in each of two threads."""
    together = threading.Barrier(2)
    first_of: set[str] = set()

    def answer(asked: Asked) -> Answer:
        if (sent := str(asked.headers["Authorization"])) not in first_of:
            first_of.add(sent)
            together.wait(30)
        return page_of(asked)

    server = serve(answer)
    source = source_of(server.url, concurrency=4)
    with Client(source, SECRETS.__getitem__) as client:

        def work(partitions: tuple[Partition, ...]) -> list[list[Any]]:
            with client.sibling() as own:
                return [read(own, source, partition) for partition in partitions]

        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(work, [ACCOUNTS.partitions, ACCOUNTS.partitions[::-1]]))
    assert found == [[wanted("eu"), wanted("us")], [wanted("us"), wanted("eu")]]
    sent = [asked.headers["Authorization"] for asked in server.asked]
    assert {each: sent.count(each) for each in sent} == dict.fromkeys(
        ("Bearer token-of-eu", "Bearer token-of-us"), 2 * PAGES
    )


def test_each_account_has_its_own_token_and_cookies(serve: Serve) -> None:
    """The API sets a cookie for each account, and renews a token that it has refused once."""
    refused: list[str] = []

    def answer(asked: Asked) -> Answer:
        if asked.startswith("/token"):
            secret = json.loads(asked.body)["client_secret"]
            return Answer(json.dumps({"access_token": f"{secret}-{len(refused)}"}).encode())
        sent = str(asked.headers["Authorization"])
        if sent.endswith("us-0"):
            refused.append(sent)
            return Answer(status=401)
        cookie = {"Set-Cookie": f"for={sent.split('-')[2]}", "Content-Type": "application/json"}
        return Answer(page_of(asked).body, headers=cookie)

    server = serve(answer)
    login = {
        name: OAuth2(f"{server.url}token", "app", f"shop-{name}-token", sends="json")
        for name in ("eu", "us")
    }
    source = source_of(server.url, Accounts(login), concurrency=1)
    with Client(source, SECRETS.__getitem__) as client:
        for partition in ACCOUNTS.partitions * 2:
            read(client, source, partition)
    asked = [each for each in server.asked if not each.startswith("/token")]
    seen = {(str(each.headers["Authorization"]), str(each.headers["Cookie"])) for each in asked}
    assert seen == {
        ("Bearer token-of-eu-0", "None"),
        ("Bearer token-of-eu-0", "for=eu"),
        ("Bearer token-of-us-0", "None"),
        ("Bearer token-of-us-1", "None"),
        ("Bearer token-of-us-1", "for=us"),
    }
    assert len(server.asked) - len(asked) == 3


def test_sessions_are_begun_for_each_account(serve: Serve) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.startswith("/login"):
            return Answer(b"", 204, {"Set-Cookie": f"s={asked.body.decode()}-of-a-session"})
        cookie = asked.headers["Cookie"]
        return Answer(json.dumps({"items": [{"id": 1, "for": cookie}], "pages": 1}).encode())

    server = serve(answer)
    logins = {
        name: SessionCookie(f"{server.url}login", f"shop-{name}-token", lambda known: {"p": known})
        for name in ("eu", "us")
    }
    source = source_of(server.url, Accounts(logins))
    with Client(source, SECRETS.__getitem__) as client:
        found = [read(client, source, partition)[0] for partition in ACCOUNTS.partitions]
    assert [each["for"] for each in found] == [
        "s=p=token-of-eu-of-a-session",
        "s=p=token-of-us-of-a-session",
    ]
    logins = [asked for asked in server.asked if asked.startswith("/login")]
    assert [asked.headers["Cookie"] for asked in logins] == [None, None]


def test_a_refused_account_is_named_and_the_other_is_read(serve: Serve) -> None:
    def answer(asked: Asked) -> Answer:
        is_known = asked.headers["Authorization"] == "Bearer token-of-us"
        return page_of(asked) if is_known else Answer(status=401)

    source = source_of(serve(answer).url)
    with Client(source, SECRETS.__getitem__) as client:
        eu, us = ACCOUNTS.partitions
        with pytest.raises(RefusedLoginError, match="source 'shop', account 'eu'"):
            read(client, source, eu)
        assert read(client, source, us) == wanted("us")


def test_a_missing_secret_fails_its_own_account_only(serve: Serve) -> None:
    def known(name: str) -> str:
        if name == "shop-eu-token":
            raise RefusedLoginError("The secret 'shop-eu-token' is missing")
        return SECRETS[name]

    source = source_of(serve(page_of).url)
    with Client(source, known) as client:
        eu, us = ACCOUNTS.partitions
        with pytest.raises(RefusedLoginError, match="shop-eu-token"):
            read(client, source, eu)
        assert read(client, source, us) == wanted("us")


def test_a_pause_that_the_api_asks_of_one_account_is_not_kept_by_the_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one waits for 30 s, the other reads."""
    waits: list[float] = []
    found: list[Any] = []
    said = [Answer(status=429, headers={"Retry-After": "30"})]
    server: Server = serve(lambda asked: said.pop() if said else page_of(asked))
    source = source_of(server.url, concurrency=1)
    with Client(source, SECRETS.__getitem__) as client, client.sibling() as other:
        eu, us = ACCOUNTS.partitions

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if not found:
                found.append(read(other, source, us))

        monkeypatch.setattr("flows.extract.client.sleep", sleep)
        monkeypatch.setattr("flows.extract.rate_limit.monotonic", lambda: 0.0)
        assert read(client, source, eu) == wanted("eu")
    assert found == [wanted("us")]
    assert waits[0] == 30


def test_connections_of_few_accounts_stay_open(serve: Serve) -> None:
    """Also if a source has a hundred of them."""
    names = [f"a{number}" for number in range(3 * MOST_ACCOUNTS)]
    accounts = Accounts({name: Bearer(f"shop-{name}-token") for name in names})
    server = serve(page_of)
    port = int(server.url.split(":")[2].strip("/"))
    resource = replace(ORDERS, partitions=accounts.partitions)
    source = Source("shop", server.url, (resource,), accounts, concurrency=1)
    with Client(source, lambda name: f"token-of-{name.split('-')[1]}") as client:
        for partition in accounts.partitions * 2:
            assert read(client, source, partition) == wanted(partition.name)
        ours = psutil.Process().net_connections("tcp")
        is_open = [each for each in ours if each.raddr and each.raddr.port == port]
        assert len([each for each in is_open if each.status == "ESTABLISHED"]) <= MOST_ACCOUNTS


def test_the_secrets_of_all_accounts_are_those_of_the_source() -> None:
    assert source_of("https://api.example.com/").secret_names == tuple(SECRETS)


def test_a_partition_of_an_account_that_is_gone_is_an_error_with_a_remedy(serve: Serve) -> None:
    """Rows of a parent may be of an account that is no longer declared."""
    source = source_of(serve(page_of).url)
    gone = Partition("asia,1", {"account": "asia", "order": 1})
    with (
        Client(source, SECRETS.__getitem__) as client,
        pytest.raises(ConfigurationError, match=r"'asia'.*eu, us.*where={'account': \['eu', 'us'"),
    ):
        read(client, source, gone)


def changed(**changes: Any) -> Callable[[], Source]:
    """The declaration of a source whose resource of orders differs."""
    given = {"key": ("account", "id"), "partition_columns": ("account",), **changes}
    given.setdefault("partitions", ACCOUNTS.partitions)
    return lambda: Source(
        "shop", "", (Resource("orders", "orders", records_at(), **given),), ACCOUNTS
    )


def child(parents: RowsOf, *columns: str, **of_parent: Any) -> Callable[[], Source]:
    orders = replace(ORDERS, **of_parent)
    key = (*columns, "id")
    return lambda: Source(
        "shop",
        "",
        (
            orders,
            replace(LINES, key=key, partitions=parents, partition_columns=columns),
        ),
        ACCOUNTS,
    )


CITIES = (Partition("rome", {"city": "rome"}), Partition("oslo", {"city": "oslo"}))
CITY = {"key": ("account", "city", "id"), "partition_columns": ("account", "city")}
ASIA = (Partition("asia", {"account": "asia"}),)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: Accounts({}), "names no account"),
        (lambda: Accounts({"": Bearer("a")}), "no login or no name"),
        (lambda: Accounts({"eu": ()}), "no login or no name"),
        (lambda: Accounts({"eu": None}), "no login or no name"),
        (
            lambda: Accounts({"eu": Bearer("token"), "us": (Bearer("token"),)}),
            "'eu' and 'us' have the same login",
        ),
        (changed(partitions=(Partition(),), partition_columns=()), r"partitions=ACCOUNTS\.part"),
        (changed(partitions=ASIA), "'asia', which is none of the source's accounts: eu, us"),
        (
            changed(partitions=ACCOUNTS.partitions[:1], partition_columns=()),
            "Name 'account' in partition_columns and key",
        ),
        (
            changed(partitions=ACCOUNTS.partitions[:1], key=("id",)),
            "Name 'account' in partition_columns and key",
        ),
        (
            child(RowsOf("orders", {"order": "id"}), "order"),
            r"RowsOf\('orders', {'order': 'id', 'account': 'account'}",
        ),
        (
            child(RowsOf("orders", {"account": "owner", "order": "id"}), "account", "order"),
            "'account': 'account'",
        ),
    ],
    ids=lambda given: None if callable(given) else given,
)
def test_a_declaration_that_would_mix_up_accounts_is_refused(
    declare: Callable[[], object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        declare()


@pytest.mark.parametrize(
    "declare",
    [
        changed(),
        changed(key=("id",), key_is_global=True),
        changed(key=(), disposition="append"),
        changed(partitions=product(ACCOUNTS.partitions, CITIES), **CITY),
        child(RowsOf("orders", {"account": "account", "order": "id"}), "account", "order"),
        child(
            RowsOf("orders", {"account": "shop", "order": "id"}),
            "account",
            "order",
            names={"account": "shop"},
        ),
    ],
)
def test_such_declarations_are_accepted(declare: Callable[[], Source]) -> None:
    assert declare().accounts is ACCOUNTS


def test_an_account_may_be_named_by_another_column(serve: Serve) -> None:
    """For APIs whose records have a field `account`; a login may be several that sign together."""
    accounts = Accounts(
        {
            name: (Bearer(f"shop-{name}-token"), ApiKey("shop-app", header="X-App"))
            for name in ("eu", "us")
        },
        column="shop",
    )
    server = serve(page_of)
    orders = Resource(
        "orders",
        "orders",
        records_at("items"),
        key=("shop", "id"),
        partitions=accounts.partitions,
        partition_columns=("shop",),
    )
    source = Source("shop", server.url, (orders,), accounts)
    secrets = {**SECRETS, "shop-app": "key-of-the-app"}
    with Client(source, secrets.__getitem__) as client:
        for partition in orders.partitions:
            read(client, source, partition)
    assert [(each.headers["Authorization"], each.headers["X-App"]) for each in server.asked] == [
        (f"Bearer token-of-{name}", "key-of-the-app") for name in ("eu", "us") for _ in range(PAGES)
    ]
    assert source.secret_names == ("shop-eu-token", "shop-app", "shop-us-token")
