"""Promises of extract and load together, kept with json-server: `Link`, page numbers, offsets.

The rows in Postgres are compared with the file that json-server serves and writes.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from psycopg2.extensions import connection as Connection

from flows.source import Source
from tests.foreign_servers import json_server, services
from tests.foreign_servers.loading import (
    Query,
    changed,
    extracted,
    load_resource,
    stored,
    whole_rows,
)

Record = dict[str, Any]
Tables = dict[str, list[Record]]

# Pages of ten: `Link` marks the last one, an empty page ends all other styles.
PAGES = {"orders": 3, "customers": 4, "products": 3}


def order(number: int) -> Record:
    """An order with all JSON types: nested values, a null, numbers of both kinds."""
    return {
        "id": number,
        "customer_id": number % 30 + 1,
        "freight": number * 1.25,
        "is_paid": number % 3 == 0,
        "note": None if number % 5 else f"Größe {number}, “urgent” \\ \t",
        "ship_to": {"city": "London", "lines": [number, None]},
        "updated_at": f"2024-03-{number % 12 + 1:02d}T08:00:00Z",
    }


def tables() -> Tables:
    """The shop's tables: the last page of orders is not full, that of customers and products is."""
    return {
        "orders": [order(number) for number in range(1, 24)],
        "customers": [{"id": number, "name": f"Customer {number}"} for number in range(1, 31)],
        "products": [{"id": number, "sku": f"P-{number:03d}"} for number in range(1, 21)],
        "lines": [
            {"id": number, "order_id": (number - 1) // 2 + 1, "quantity": number}
            for number in range(1, 45)
        ],
    }


@pytest.fixture(scope="module")
def command() -> list[str]:
    """The command of json-server; without it, all tests here are skipped."""
    return services.installed_json_server()


@pytest.fixture
def shop(command: list[str], tmp_path: Path) -> Iterator[Source]:
    """The source, its json-server running on tables of the test's own."""
    with services.json_server(command, tmp_path, tables()) as url:
        yield replace(json_server.SOURCE, base_url=url)


def served(shop: Source, table: str) -> list[Record]:
    """All records of the server, which it returns in one response."""
    document: Tables = requests.get(f"{shop.base_url}db", timeout=10).json()
    return document[table]


def test_every_record_arrives_whatever_the_paging_and_a_second_load_changes_nothing(
    shop: Source, connection: Connection, query: Query
) -> None:
    for name, pages in PAGES.items():
        (first,) = load_resource(connection, shop, name)
        assert (first.state, first.pages) == ("succeeded", pages)
        assert stored(query, shop, name) == served(shop, name)
        before = whole_rows(query, shop, name)
        second = load_resource(connection, shop, name)
        assert changed(second) == (0, 0, 0)
        assert extracted(second) > 0
        assert whole_rows(query, shop, name) == before


def test_children_are_read_by_their_parents_rows(
    shop: Source, connection: Connection, query: Query
) -> None:
    """The last of 23 orders has no lines: its partition is empty, not an error."""
    load_resource(connection, shop, "orders")
    entries = load_resource(connection, shop, "order_lines")
    assert [entry.state for entry in entries] == ["succeeded"] * 23
    lines = [{**line, "parent": line["order_id"]} for line in served(shop, "lines")]
    assert stored(query, shop, "order_lines") == lines
    before = whole_rows(query, shop, "order_lines")
    again = load_resource(connection, shop, "order_lines")
    assert (extracted(again), changed(again)) == (44, (0, 0, 0))
    assert whole_rows(query, shop, "order_lines") == before


def test_the_next_load_reads_what_changed_on_the_server_and_little_else(
    shop: Source, connection: Connection, query: Query
) -> None:
    """The cursor's edge is read again: two orders have its day."""
    load_resource(connection, shop, "orders")
    edge = [row for row in served(shop, "orders") if row["updated_at"].startswith("2024-03-12")]
    url = f"{shop.base_url}orders"
    late = {"updated_at": "2024-04-01T08:00:00Z"}
    requests.patch(f"{url}/7", json={"freight": 99.5, **late}, timeout=10).raise_for_status()
    requests.post(url, json=order(24) | late, timeout=10).raise_for_status()
    entries = load_resource(connection, shop, "orders")
    assert extracted(entries) == len(edge) + 2 == 4
    assert changed(entries) == (1, 1, 0)
    assert stored(query, shop, "orders") == served(shop, "orders")
