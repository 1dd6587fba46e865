"""A staging model leaves out what the census of its resource lacks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from flows.source import FullList
from tests.dbt_project.small_project import small_project
from tests.load.memory_api import load_pages

Query = Callable[..., list[tuple[Any, ...]]]

STAGING = """
select orders.id from {{ source('shop', 'orders') }} as orders
where {{ is_listed('orders', source('shop', 'order_ids'), {'id': 'id'}) }}
"""
SHOWN = "select coalesce(array_agg(id order by id), '{}') from staging.stg_shop__orders"


def test_a_row_is_judged_by_the_census_that_began_after_it_was_loaded(
    database: URL, connection: Connection, query: Query, tmp_path: Path
) -> None:
    def load(name: str, *ids: int, **declared: Any) -> None:
        load_pages(connection, [{"id": number} for number in ids], name=name, **declared)

    def take_census(*ids: int) -> None:
        load("order_ids", *ids, deletes=FullList(), max_shrinkage=1)

    load("orders", 1, 2, 3)
    take_census(1, 2, 3)
    query("truncate elt.loads, raw_shop.order_ids cascade")
    small_project(database, tmp_path, {"stg_shop__orders": STAGING}).succeed("run")
    assert query(SHOWN) == [([1, 2, 3],)], "no census was taken yet"
    take_census(1, 2)
    assert query(SHOWN) == [([1, 2],)]
    load("orders", 3, 4, 5)
    assert query(SHOWN) == [([1, 2, 4, 5],)], "new rows are in no census"
    take_census(1, 2, 4)
    assert query(SHOWN) == [([1, 2, 4],)], "5 was never in any"
    take_census(2, 3)
    assert query(SHOWN) == [([2, 3],)], "3 is back"
