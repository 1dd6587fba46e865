"""A preview accepts and refuses the same `records` functions as a load."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from commands.preview import described
from flows.errors import ConfigurationError
from flows.page import Page
from flows.source import Resource, Source


def preview(records: Callable[[Page], Any]) -> str:
    resource = Resource("orders", "orders", records, key=("id",))
    page = Page(json.dumps([{"id": 1}, {"id": 2}]).encode(), "http://127.0.0.1/orders")
    return described(Source("shop", "http://127.0.0.1/", (resource,)), resource, page)


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
