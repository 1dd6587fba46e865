"""Promises of token cursors: a token is kept when all is read, and only then."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import BadPayloadError, ConfigurationError, NotFoundError, UnavailableError
from flows.extract.auth import ApiKey
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.load.ledger import Entry
from flows.load.loader import load
from flows.load.options import LoadOptions
from flows.load.side_by_side import load_side_by_side
from flows.source import Partition, Resource, Rule, Source, TokenCursor, Window
from tests.extract.reading import asked_params
from tests.http_servers import Answer, Asked, Serve

Query = Callable[..., list[tuple[Any, ...]]]

TOKENS = "select cursor_token, cursor_field, resume is null from elt.checkpoints"
IDS = "select id, version from raw_shop.items order by id"


@dataclass
class Changes:
    """An API that sends what has changed since a token, in pages of two.

    Attributes:
        changed: ids by the version in which they changed, oldest first.
        oldest: tokens of versions before it have expired.
        refuses: the status with which it refuses those.
        fails_at: which page gets status 503.
        said: how the last page names the token.
        header: the header that has the token instead.
        early: what the pages before it say beside their records.
        empty_at: which page gets status 404.
    """

    changed: list[list[int]]
    oldest: int = 0
    refuses: int = 410
    fails_at: int | None = None
    said: Callable[[int], dict[str, Any]] = lambda version: {"sync": f"v/{version}+?"}
    header: str = ""
    early: dict[str, Any] = field(default_factory=dict)
    empty_at: int | None = None
    asked: list[str] = field(default_factory=list)

    def __call__(self, path: Asked) -> Answer:
        self.asked.append(path)
        query = asked_params(path)
        page, token = int(query.get("page", 0)), query.get("token")
        version = int(token.removeprefix("v/").removesuffix("+?")) if token else 0
        if token and version < self.oldest:
            return Answer(b'{"error": "start again"}', status=self.refuses)
        if page == self.empty_at:
            return Answer(status=404)
        if page == self.fails_at:
            return Answer(status=503)
        changes = [
            {"id": number, "version": at}
            for at, ids in enumerate(self.changed, start=1)
            for number in ids
            if at > version
        ]
        following = page + 1 if 2 * page + 2 < len(changes) else None
        body: dict[str, Any] = {"items": changes[2 * page : 2 * page + 2]}
        headers = {"Content-Type": "application/json"}
        if following:
            mark = f"{path.partition('&page')[0].partition('?page')[0]}"
            body |= self.early
            body["next"] = f"{mark}{'&' if '?' in mark else '?'}page={following}"
        elif self.header:
            headers[self.header] = f"v/{len(self.changed)}+?"
        else:
            body |= self.said(len(self.changed))
        return Answer(json.dumps(body).encode(), headers=headers)


def items(**changes: Any) -> Resource:
    declared: dict[str, Any] = {
        "name": "items",
        "path": "items",
        "records": records_at("items"),
        "key": ("id",),
        "params": {"token": "{token}"},
        "paging": next_url("next"),
        "cursor": TokenCursor("sync"),
        "checkpoint_rows": 1,
    }
    return Resource(**declared | changes)


SYNCED = items()


@dataclass
class Shop:
    """The API behind a server, and loads of it."""

    connection: Connection
    url: str
    api: Changes

    def load(
        self, resource: Resource = SYNCED, options: LoadOptions | None = None, **settings: Any
    ) -> Entry:
        self.api.asked.clear()
        source = Source("shop", self.url, (resource,), max_wait_seconds=0, **settings)
        with Client(source) as client:
            pages = partial(read_pages, client, source, resource, Partition())
            return load(
                self.connection, "shop", resource, Partition(), pages, options or LoadOptions()
            )

    def fail(self, page: int, resource: Resource = SYNCED) -> None:
        self.api.fails_at = page
        with pytest.raises(UnavailableError):
            self.load(resource)
        self.api.fails_at = None


@pytest.fixture
def shop(connection: Connection, serve: Serve) -> Iterator[Shop]:
    api = Changes([[1, 2, 3, 4, 5]])
    yield Shop(connection, serve(api).url, api)


def test_the_next_load_sends_the_token_and_gets_what_changed(shop: Shop, query: Query) -> None:
    shop.load()
    assert shop.api.asked == ["/items", "/items?page=1", "/items?page=2"]
    assert query(TOKENS) == [("v/1+?", "sync", True)]
    shop.api.changed.append([2, 6])
    entry = shop.load()
    assert shop.api.asked == ["/items?token=v%2F1%2B%3F"]
    assert (entry.inserted, entry.updated, entry.extracted) == (1, 1, 2)
    assert query(IDS) == [(1, 1), (2, 2), (3, 1), (4, 1), (5, 1), (6, 2)]
    assert query(TOKENS) == [("v/2+?", "sync", True)]
    assert shop.load().extracted == 0
    assert shop.api.asked == ["/items?token=v%2F2%2B%3F"]


@pytest.mark.parametrize("page", [1, 2])
def test_a_token_is_not_kept_until_all_is_read(shop: Shop, query: Query, page: int) -> None:
    shop.fail(page)
    assert query(TOKENS) == [(None, "sync", False)]
    shop.load()
    assert shop.api.asked == [f"/items?page={number}" for number in range(page, 3)]
    assert query(TOKENS) == [("v/1+?", "sync", True)]


def test_the_old_token_stays_while_changes_are_half_read(shop: Shop, query: Query) -> None:
    shop.load()
    shop.api.changed.append([1, 2, 3])
    shop.fail(1)
    assert query(TOKENS) == [("v/1+?", "sync", False)]
    shop.load()
    assert shop.api.asked == ["/items?token=v%2F1%2B%3F&page=1"]
    assert query(TOKENS) == [("v/2+?", "sync", True)]


def test_a_token_replaces_the_one_before_whatever_it_says(shop: Shop, query: Query) -> None:
    for token in ("z", "a", 7):
        shop.api.said = lambda _, token=token: {"sync": token}
        shop.load(items(params={}, headers={"X-Since": "{token}"}))
        assert query(TOKENS) == [(str(token), "sync", True)]


def test_only_the_last_page_has_the_token_that_counts(shop: Shop, query: Query) -> None:
    """The last one is empty here, so it says nothing of a token: that of page 1 is not kept."""
    shop.api.early = {"sync": "v/9+?"}
    shop.api.empty_at = 1
    shop.load(items(rules=(Rule("ignore", status=404),)))
    assert query("select count(*) from raw_shop.items") == [(2,)]
    assert query(TOKENS) == [(None, "sync", True)]


def test_a_token_with_the_secret_of_the_login_is_refused(
    shop: Shop, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "hidden-key-1")
    shop.api.said = lambda _: {"sync": "for hidden-key-1"}
    with pytest.raises(ConfigurationError, match=r"its token contains a secret of the login"):
        shop.load(login=ApiKey("shop-key", header="X-Key"))
    assert query("select count(*) from elt.checkpoints where cursor_token is not null") == [(0,)]


def test_a_token_may_stand_in_a_header_and_go_into_one(shop: Shop, query: Query) -> None:
    shop.api.header = "X-Sync"
    cursor = TokenCursor(header="x-sync")
    resource = items(cursor=cursor, params={}, headers={"X-Since": "{token}"}, path="items?a=1")
    shop.load(resource)
    assert query(TOKENS) == [("v/1+?", "x-sync", True)]
    shop.load(resource)
    assert [each.headers["X-Since"] for each in shop.api.asked] == ["v/1+?"] * 3
    assert query(TOKENS) == [("v/1+?", "x-sync", True)]


@pytest.mark.parametrize("base", ["", "http://{host}"])
def test_a_token_may_be_the_address_of_the_next_request(
    shop: Shop, query: Query, base: str
) -> None:
    host = shop.url.removeprefix("http://").rstrip("/")
    link = base.format(host=host) + "/items?token=v%2F{}%2B%3F&api_key=hidden-key-1"
    shop.api.said = lambda version: {"@delta": link.format(version)}
    delta = items(cursor=TokenCursor("@delta", is_link=True), params={"top": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_KEY", "hidden-key-1")
        login = {"login": ApiKey("shop-key", param="api_key")}
        shop.load(delta, **login)
        assert query(TOKENS) == [(f"{shop.url}items?token=v%2F1%2B%3F", "@delta", True)]
        shop.api.changed.append([9])
        shop.load(delta, **login)
    assert shop.api.asked == ["/items?token=v%2F1%2B%3F&api_key=hidden-key-1"]
    assert query("select count(*) from raw_shop.items") == [(6,)]


def test_a_link_to_another_host_is_refused(shop: Shop, query: Query) -> None:
    shop.api.said = lambda _: {"@delta": "http://localhost:1/items"}
    with pytest.raises(ConfigurationError, match="is not on the host of source 'shop'"):
        shop.load(items(cursor=TokenCursor("@delta", is_link=True)))
    assert query("select count(*) from elt.checkpoints where cursor_token is not null") == [(0,)]


def test_an_expired_token_starts_over_from_nothing_and_says_so(
    shop: Shop, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    shop.load()
    shop.api.changed += [[7], [8]]
    shop.api.oldest = 2
    with caplog.at_level(logging.WARNING, "flows.load"):
        shop.load()
    assert "answered 410 to the token of the last load: it is too old" in caplog.text
    assert shop.api.asked[:2] == ["/items?token=v%2F1%2B%3F", "/items"]
    assert query("select count(*) from raw_shop.items") == [(7,)]
    assert query(TOKENS) == [("v/3+?", "sync", True)]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_a_token_may_expire_with_any_status_that_is_not_retried(
    shop: Shop, query: Query, status: int
) -> None:
    shop.load()
    shop.api.changed += [[7], [8]]
    shop.api.oldest, shop.api.refuses = 2, status
    shop.load(items(cursor=TokenCursor("sync", expired=(status,))))
    assert query(TOKENS) == [("v/3+?", "sync", True)]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 200, 301])
def test_a_status_that_refuses_no_token_is_refused(status: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"expired=\(410, {status}\).*{status} never"):
        TokenCursor("sync", expired=(410, status))


def test_a_load_that_starts_over_resumes_where_it_failed(shop: Shop, query: Query) -> None:
    """Without the old token: with it, it would start over each time."""
    shop.load()
    shop.api.changed += [[7], [8]]
    shop.api.oldest = 2
    shop.fail(2)
    assert query(TOKENS) == [(None, "sync", False)]
    shop.load()
    assert shop.api.asked == ["/items?page=2", "/items?page=3"]
    assert query(TOKENS) == [("v/3+?", "sync", True)]


def test_a_token_that_expires_while_changes_are_half_read_starts_over(
    shop: Shop, query: Query
) -> None:
    shop.load()
    shop.api.changed += [[1, 2, 3]]
    shop.fail(1)
    shop.api.oldest = 2
    shop.load()
    assert shop.api.asked[:2] == ["/items?token=v%2F1%2B%3F&page=1", "/items"]
    assert query(TOKENS) == [("v/2+?", "sync", True)]


def test_only_the_declared_statuses_start_over(shop: Shop, query: Query) -> None:
    shop.load()
    shop.api.oldest = 2
    with pytest.raises(NotFoundError, match="answered 410"):
        shop.load(items(cursor=TokenCursor("sync", expired=(400,))))
    assert query(TOKENS) == [("v/1+?", "sync", True)]


def test_a_last_page_without_its_token_fails_the_load_and_keeps_its_rows(
    shop: Shop, query: Query
) -> None:
    with pytest.raises(ConfigurationError, match="the last page has no token at 'snyc'"):
        shop.load(items(cursor=TokenCursor("snyc")))
    assert query("select count(*) from raw_shop.items") == [(5,)]
    assert query("select cursor_token from elt.checkpoints") == [(None,)]


def test_too_many_rejects_keep_the_old_token(shop: Shop, query: Query) -> None:
    shop.load()
    shop.api.changed.append([None])  # type: ignore[list-item]
    with pytest.raises(BadPayloadError):
        shop.load()
    assert query(TOKENS) == [("v/1+?", "sync", True)]


def test_a_full_refresh_with_too_many_rejects_keeps_the_old_token(shop: Shop, query: Query) -> None:
    shop.load()
    shop.api.changed.append([None])  # type: ignore[list-item]
    with pytest.raises(BadPayloadError):
        shop.load(options=LoadOptions(full_refresh=True))
    assert query(TOKENS) == [("v/1+?", "sync", True)]


def test_full_refresh_reads_everything_and_gets_a_new_token(shop: Shop, query: Query) -> None:
    shop.load()
    shop.api.changed = [[1, 2, 3], [4]]
    shop.load(options=LoadOptions(full_refresh=True))
    assert shop.api.asked == ["/items", "/items?page=1"]
    assert query(IDS) == [(1, 1), (2, 1), (3, 1), (4, 2)]
    assert query(TOKENS) == [("v/2+?", "sync", True)]


def test_a_range_of_days_is_refused(shop: Shop) -> None:
    day = Window(since=datetime(2024, 1, 1, tzinfo=UTC))
    with pytest.raises(ConfigurationError, match="items is read by the API's token, not by date"):
        shop.load(options=LoadOptions(day))


@pytest.mark.parametrize("kind", ["sync", "snyc"])
def test_partitions_of_a_group_have_a_token_each(
    shop: Shop, database: URL, query: Query, kind: str
) -> None:
    parts = tuple(Partition(str(number), {"shop": number}) for number in range(5))
    by_shop = items(
        cursor=TokenCursor(kind),
        partitions=parts,
        partition_columns=("shop",),
        key=("shop", "id"),
        path="items/{shop}",
    )
    source = Source("shop", shop.url, (by_shop,), max_wait_seconds=0)

    def load_all() -> list[Any]:
        shop.api.asked.clear()
        with Client(source) as client:
            read = partial(read_pages, client, source, by_shop)
            _, errors = load_side_by_side(
                lambda: psycopg2.connect(libpq(database)), "shop", by_shop, parts,
                lambda: _entered(read), LoadOptions(), 2,
            )  # fmt: skip
        return errors

    errors = load_all()
    if kind == "snyc":
        assert len(errors) == 5
        assert query("select distinct cursor_token from elt.checkpoints") == [(None,)]
        return
    shop.api.changed += [[6], [7]]
    shop.api.oldest = 2
    query("update elt.checkpoints set cursor_token = 'v/2+?' where partition = '3'")
    assert errors == load_all() == []
    assert len([path for path in shop.api.asked if path.endswith("?token=v%2F1%2B%3F")]) == 4
    assert query("select count(*) from raw_shop.items") == [(7 + 7 + 7 + 7 + 6,)]
    assert query("select distinct cursor_token from elt.checkpoints") == [("v/3+?",)]


def _entered(read: Any) -> Any:
    return closing(_Reader(read))


class _Reader:
    def __init__(self, read: Any) -> None:
        self.read = read

    def __call__(self, *arguments: Any) -> Any:
        return self.read(*arguments)

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"disposition": "replace"}, "sends only changes, and `replace` would delete"),
        ({"key": ()}, r"append with a cursor.*Declare a key\."),
        ({"max_pages": 3}, "with max_pages, it never is"),
        ({"params": {}}, r"that no request names.*\{token\}.*is_link"),
        ({"path": "delta/{token}"}, r"its path names \{token\}.*first load.*params.*is_link=True"),
        (
            {"params": {"a": "{token}{since}"}},
            r"names \{since\} in its params, but its TokenCursor only has",
        ),
    ],
)
def test_what_makes_no_sense_with_a_token_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"items: .*{says}"):
        items(**changes)


def test_a_value_of_the_partition_may_be_called_token() -> None:
    named = items(path="{token}", partitions=(Partition("a", {"token": 1}),))
    assert named.path == "{token}"


@pytest.mark.parametrize("declared", [{}, {"field": "a", "header": "b"}])
def test_a_token_stands_in_one_place(declared: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="say where the token stands"):
        TokenCursor(**declared)
