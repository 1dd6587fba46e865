"""Promises of extract and load together, kept with PocketBase: a login, totals, filters, children.

The raw tables are compared with what it returns for each record.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from psycopg2.extensions import connection as Connection

from flows.errors import RefusedLoginError
from flows.source import Source
from tests.foreign_servers import pocketbase, services
from tests.foreign_servers.loading import (
    Query,
    changed,
    extracted,
    load_resource,
    stored,
    whole_rows,
)

pytestmark = pytest.mark.long

Record = dict[str, Any]
AT = {"name": "updated", "type": "autodate", "onCreate": True, "onUpdate": True}
COLLECTIONS = {
    "orders": {"number": "number", "note": "text", "is_paid": "bool", "ship_to": "json"},
    "lines": {"order": "text", "number": "number"},
}
ORDERS = 23


class Owner:
    """Fills PocketBase, and returns the records that it has."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}api/collections"
        self._session = requests.Session()
        self.records: dict[str, dict[str, Record]] = {name: {} for name in COLLECTIONS}
        identity, password = services.POCKETBASE_OWNER
        login = {"identity": identity, "password": password}
        token = self._send("POST", "/_superusers/auth-with-password", login)["token"]
        self._session.headers["Authorization"] = token
        for name, types in COLLECTIONS.items():
            fields = [{"name": field, "type": kind} for field, kind in types.items()]
            self._send("POST", "", {"name": name, "type": "base", "fields": [*fields, AT]})

    def _send(self, method: str, path: str, body: Record) -> Record:
        answer = self._session.request(method, f"{self._url}{path}", json=body, timeout=10)
        answer.raise_for_status()
        document: Record = answer.json()
        return document

    def add(self, name: str, **fields: Any) -> str:
        """Add a record; its id."""
        record = self._send("POST", f"/{name}/records", fields)
        self.records[name][record["id"]] = record
        return str(record["id"])

    def change(self, name: str, key: str, **fields: Any) -> None:
        self.records[name][key] = self._send("PATCH", f"/{name}/records/{key}", fields)

    def add_order(self, number: int) -> str:
        """An order with an empty text, a nested value and, often, lines."""
        order = self.add(
            "orders",
            number=number + 0.25,
            note="" if number % 5 else f"Größe {number}, “urgent” \\ \t",
            is_paid=number % 3 == 0,
            ship_to={"city": "London", "lines": [number, None]},
        )
        for line in range(number % 3 * 4):
            self.add("lines", order=order, number=line)
        return order


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with services.pocketbase(tmp_path) as url:
        yield url


@pytest.fixture
def owner(url: str) -> Owner:
    found = Owner(url)
    for number in range(ORDERS):
        found.add_order(number)
    return found


@pytest.fixture
def shop(url: str, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setenv("POCKETBASE_PASSWORD", services.POCKETBASE_OWNER[1])
    return pocketbase.shop(url)


def in_snake_case(record: Record) -> Record:
    return {
        "collection_id": record["collectionId"],
        "collection_name": record["collectionName"],
        **{name: value for name, value in record.items() if not name.startswith("collection")},
    }


def assert_exact(query: Query, shop: Source, owner: Owner) -> None:
    """The tables are what PocketBase has."""
    for name, by_id in owner.records.items():
        records = [in_snake_case(record) for record in by_id.values()]
        if name == "lines":
            records = [{**record, "order_id": record["order"]} for record in records]
        wanted = sorted(records, key=lambda record: record["id"])
        assert sorted(stored(query, shop, name), key=lambda record: record["id"]) == wanted


def load_both(connection: Connection, shop: Source) -> tuple[int, int, int]:
    return changed(
        [*load_resource(connection, shop, "orders"), *load_resource(connection, shop, "lines")]
    )


def test_all_arrives_and_later_what_changed(
    connection: Connection, query: Query, shop: Source, owner: Owner
) -> None:
    load_both(connection, shop)
    assert_exact(query, shop, owner)
    before = whole_rows(query, shop, "orders")
    assert load_both(connection, shop) == (0, 0, 0)
    assert whole_rows(query, shop, "orders") == before
    owner.change("orders", next(iter(owner.records["orders"])), note="late")
    owner.add_order(25)
    assert load_both(connection, shop) == (1 + 4, 1, 0)
    assert_exact(query, shop, owner)


def test_a_filter_by_the_cursor_leaves_older_records_out(
    connection: Connection, query: Query, shop: Source, owner: Owner
) -> None:
    """All records are of today, where a window begins: the cursor is moved on."""
    load_resource(connection, shop, "orders")
    query("update elt.checkpoints set cursor_at = cursor_at + interval '1 day'")
    assert extracted(load_resource(connection, shop, "orders")) == 0


def test_a_refused_password_is_named(
    connection: Connection, shop: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETBASE_PASSWORD", "password-of-yesterday")
    with pytest.raises(RefusedLoginError, match="Failed to authenticate") as raised:
        load_resource(connection, shop, "orders")
    assert "yesterday" not in str(raised.value)
