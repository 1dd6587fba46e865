"""The rows of a nested list, as a view and as an incremental model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from flows.source import FullList
from tests.dbt_project.small_project import small_project
from tests.load.memory_api import load_pages

Query = Callable[..., list[tuple[Any, ...]]]

VIEW = """
select
    orders.id as order_id,
    element.position as line_position,
    element.value ->> 'sku' as sku,
    orders._loaded_at as loaded_at
from {{ source('shop', 'orders') }} as orders
{{ elements_of('orders.lines') }}
where orders._deleted_at is null
"""
INCREMENTAL = (
    """
{{ config(
    materialized='incremental',
    pre_hook="{{ delete_outdated_elements(source('shop', 'orders'), {'order_id': 'id'}) }}"
) }}
"""
    + VIEW
    + """
{% if is_incremental() %} and {{ has_outdated_elements('orders', {'order_id': 'id'}) }} {% endif %}
"""
)
LINES = "select order_id, line_position, sku from staging.{} order by 1, 2"
PLACES = "select order_id, xmin::text from staging.incremental order by 1"


def order(number: int, *skus: str, **others: Any) -> dict[str, Any]:
    return {"id": number, "lines": [{"sku": sku} for sku in skus], **others}


@pytest.mark.long
def test_an_incremental_model_of_elements_ends_as_the_view_does(
    database: URL, connection: Connection, query: Query, tmp_path: Path
) -> None:
    """Only the elements of changed parents are written again."""

    def load(*orders: dict[str, Any]) -> None:
        load_pages(connection, list(orders), name="orders", deletes=FullList())

    same = [order(5, "e"), {"id": 6, "lines": None}, {"id": 7, "lines": {"sku": "no list"}}]
    load(order(1, "a", "b"), order(2, "c"), order(3, "d"), order(4), *same)
    models = {"view": VIEW, "incremental": INCREMENTAL}
    dbt = small_project(database, tmp_path, models)
    dbt.succeed("run")
    assert query(LINES.format("view")) == [
        *((1, 1, "a"), (1, 2, "b"), (2, 1, "c"), (3, 1, "d"), (5, 1, "e")),
    ]
    assert query(LINES.format("incremental")) == query(LINES.format("view"))
    before = dict(query(PLACES))
    load(order(1, "b"), order(2), order(4, "f", "f"), order(8, "g"), *same)  # 3 is deleted
    dbt.succeed("run")
    assert query(LINES.format("view")) == [
        *((1, 1, "b"), (4, 1, "f"), (4, 2, "f"), (5, 1, "e"), (8, 1, "g")),
    ]
    assert query(LINES.format("incremental")) == query(LINES.format("view"))
    after = dict(query(PLACES))
    assert {number for number in after if before.get(number) == after[number]} == {5}
