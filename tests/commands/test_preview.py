"""A preview accepts and refuses the same `records` functions as a load."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from commands.preview import described, first_page
from flows.errors import ConfigurationError
from flows.extract.selectors import records_at
from flows.page import Page
from flows.source import Cursor, IntegerCursor, Partition, Resource, Source
from tests.http_servers import Answer

MARCH = datetime(2024, 3, 1, tzinfo=UTC)


def preview(records: Callable[[Page], Any]) -> str:
    resource = Resource("orders", "orders", records, key=("id",))
    page = Page(json.dumps([{"id": 1}, {"id": 2}]).encode(), "http://127.0.0.1/orders")
    return described(Source("shop", "http://127.0.0.1/", (resource,)), resource, page, Partition())


def test_records_of_a_generator_are_shown() -> None:
    shown = preview(lambda page: (record for record in page.document))
    assert "2 records" in shown
    assert '  {"id": 2}' in shown


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (None, "orders: its `records` function returned None"),
        ([{"id": 1, "price": Decimal("1.5")}], "returned a Decimal in the field .?price"),
    ],
    ids=["nothing", "a value that JSON has not"],
)
def test_what_a_load_refuses_is_refused(returned: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        preview(lambda page: returned)


@pytest.mark.parametrize(
    ("cursor", "query"),
    [
        (Cursor("at", start=MARCH), "since=2024-03-01&until=2024-03-02"),
        (Cursor("at", start=MARCH, step=timedelta(hours=1)), "since=2024-03-01&until=2024-03-01"),
        (Cursor("at"), ""),
        (IntegerCursor("id", start=7), "id=7"),
        (IntegerCursor("id"), ""),
    ],
)
def test_a_preview_requests_the_first_window(
    serve: Callable[..., Any], cursor: Any, query: str
) -> None:
    is_number = isinstance(cursor, IntegerCursor)
    days = {"since": "{since:%Y-%m-%d}", "until": "{until:%Y-%m-%d}"}
    params = {"id": "{since}"} if is_number else days
    orders = Resource("orders", "orders", records_at(), params, key=("id",), cursor=cursor)
    server = serve(lambda path: Answer(b"[]"))
    first_page(Source("shop", server.url, (orders,)), orders, Partition())
    assert server.asked == [f"/orders?{query}".rstrip("?")]


def test_the_columns_of_the_partition_are_shown() -> None:
    resource = Resource(
        "days",
        "days",
        records_at(),
        key=("city", "id"),
        partitions=(Partition("Rome", {"city": "Rome", "zone": 1}),),
        partition_columns=("city",),
    )
    page = Page(b'[{"id": 1}]', "http://127.0.0.1/days")
    shop = Source("shop", "http://127.0.0.1/", (resource,))
    shown = described(shop, resource, page, resource.partitions[0])  # type: ignore[index]
    assert f'  {"city":<32}{"text":<20}"Rome"' in shown
    assert "zone" not in shown
