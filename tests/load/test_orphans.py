"""Promises about the rows of a child whose parent's row is gone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError
from flows.extract.selectors import records_at
from flows.load.loader import load
from flows.load.options import LoadOptions
from flows.load.orphans import delete_orphans
from flows.load.partitions import partitions_of
from flows.source import FullList, Partition, Resource, RowsOf, Source
from tests.load.memory_api import MemoryApi

Query = Callable[..., list[tuple[Any, ...]]]

ORDERS = Resource("orders", "orders", records_at(), key=("id",), disposition="replace")
LINES = Resource(
    "lines",
    "orders/{order}/lines",
    records_at(),
    key=("order", "line"),
    disposition="replace",
    partitions=RowsOf("orders", {"order": "id"}),
    partition_columns=("order",),
)
HELD = 'select "order", count(*) from raw_shop.lines group by 1 order by 1'
FULL = LoadOptions(full_refresh=True)
ACCEPTED = LoadOptions(accepts_shrinkage=True)


def load_orders(
    connection: Connection, *ids: Any, orders: Resource = ORDERS, options: LoadOptions = ACCEPTED
) -> None:
    pages = MemoryApi([[{"id": number} for number in ids]])
    load(connection, "shop", orders, Partition(), pages, options)


def load_lines(
    connection: Connection,
    lines: Resource = LINES,
    orders: Resource = ORDERS,
    options: LoadOptions = LoadOptions(),  # noqa: B008 (never changed)
) -> int:
    """Two lines of each order that the table has; returns how many rows of others are deleted."""
    for partition in partitions_of(connection, "shop", lines):
        api = MemoryApi([[{"line": number} for number in (1, 2)]])
        load(connection, "shop", lines, partition, api, options)
    source = Source("shop", "https://api.example.com/", (orders, lines))
    return sum(entry.deleted for entry in delete_orphans(connection, source, lines, options))


@pytest.mark.parametrize("ids", [(1, 2, 3), ("a", "b,c", "d\\")], ids=["numbers", "texts"])
def test_a_replace_deletes_the_rows_of_parents_that_are_gone(
    connection: Connection, query: Query, ids: tuple[Any, ...]
) -> None:
    load_orders(connection, *ids)
    assert load_lines(connection) == 0
    load_orders(connection, *ids[:2])
    assert load_lines(connection) == 2
    assert query(HELD) == [(number, 2) for number in ids[:2]]
    assert load_lines(connection) == 0


def test_full_lists_mark_the_rows_of_parents_that_are_marked(
    connection: Connection, query: Query
) -> None:
    orders, lines = (replace(each, deletes=FullList()) for each in (ORDERS, LINES))
    load_orders(connection, 1, 2, 3, orders=orders)
    assert load_lines(connection, lines, orders) == 0
    load_orders(connection, 1, 2, orders=orders)
    assert load_lines(connection, lines, orders) == 2
    marked = 'select distinct "order" from raw_shop.lines where _deleted_at is not null'
    assert query(marked) == [(3,)]
    assert query(HELD) == [(1, 2), (2, 2), (3, 2)]
    assert load_lines(connection, lines, orders) == 0
    load_orders(connection, 1, orders=orders)
    with pytest.raises(BadPayloadError, match=r"holds 4 rows, .* would leave 2:"):
        load_lines(connection, replace(lines, max_shrinkage=0.4), orders)
    load_orders(connection, 1, 2, 3, orders=orders)
    load_lines(connection, lines, orders)
    assert query(marked) == []
    load_orders(connection, 1, orders=orders)
    assert load_lines(connection, lines, orders, replace(FULL, accepts_shrinkage=True)) == 4
    assert query(HELD) == [(1, 2)]


def test_a_parent_that_is_gone_makes_no_load_unusual(connection: Connection, query: Query) -> None:
    lines = replace(LINES, deletes=FullList())
    load_orders(connection, 1, 2)
    many = [{"line": number} for number in range(200)]
    for partition in 3 * partitions_of(connection, "shop", lines):
        load(connection, "shop", lines, partition, MemoryApi([many]))
    load_orders(connection, 1)
    source = Source("shop", "https://api.example.com/", (ORDERS, lines))
    [entry] = delete_orphans(connection, source, lines, LoadOptions())
    assert entry.deleted == 200
    assert query("select * from elt.anomalies") == []


def test_of_several_values_all_tell_a_parent(connection: Connection, query: Query) -> None:
    lines = replace(
        LINES,
        key=("order", "again", "line"),
        partitions=RowsOf("orders", {"order": "id", "again": "id"}),
        partition_columns=("again", "order"),
    )
    load_orders(connection, 1, 2)
    load_lines(connection, lines)
    load_orders(connection, 1)
    assert load_lines(connection, lines) == 2
    assert query(HELD) == [(1, 2)]


def test_a_merge_keeps_them_until_a_full_refresh(connection: Connection, query: Query) -> None:
    merged = replace(LINES, disposition="merge")
    load_orders(connection, 1, 2)
    load_lines(connection, merged)
    load_orders(connection, 1)
    assert load_lines(connection, merged) == 0
    assert query(HELD) == [(1, 2), (2, 2)]
    assert load_lines(connection, merged, options=FULL) == 2
    assert query(HELD) == [(1, 2)]


def test_a_parent_that_comes_back_is_read_from_the_start(
    connection: Connection, query: Query
) -> None:
    load_orders(connection, 1, 2)
    load_lines(connection)
    query("update elt.checkpoints set cursor_at = now() where resource = 'lines'")
    load_orders(connection, 1)
    load_lines(connection)
    forgotten = "select cursor_at is null from elt.checkpoints where partition = '2'"
    assert query(f"{forgotten} and resource = 'lines'") == [(True,)]


def test_max_shrinkage_holds_for_all_of_them_together(connection: Connection, query: Query) -> None:
    load_orders(connection, 1, 2, 3)
    load_lines(connection)
    load_orders(connection, 1)
    with pytest.raises(BadPayloadError, match=r"raw_shop.lines holds 6 rows, .* would leave 2:"):
        load_lines(connection)
    assert len(query(HELD)) == 3
    assert load_lines(connection, options=ACCEPTED) == 4


def test_a_parent_without_rows_says_nothing(connection: Connection, query: Query) -> None:
    load_orders(connection, 1, 2)
    load_lines(connection)
    query("delete from raw_shop.orders")
    assert load_lines(connection, options=ACCEPTED) == 0
    assert len(query(HELD)) == 2


def test_rejects_of_the_parent_keep_the_rows_of_its_children(
    connection: Connection, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    """Order 2 is not gone: its record was rejected."""
    load_orders(connection, 1, 2)
    load_lines(connection)
    lenient = replace(ORDERS, max_rejects=1, columns={"id": "bigint"})
    load_orders(connection, 1, "two", orders=lenient)
    assert load_lines(connection, orders=lenient) == 0
    assert "rows of 1 partitions are kept although orders no longer has them" in caplog.text
    assert len(query(HELD)) == 2


@pytest.mark.parametrize("loaded", [["north"], ["north", "south"]])
def test_all_partitions_of_the_parent_have_to_be_loaded_since_its_reset(
    connection: Connection, query: Query, loaded: list[str]
) -> None:
    shops = (Partition("north", {"shop": "north"}), Partition("south", {"shop": "south"}))
    orders = replace(
        ORDERS,
        key=("id",),
        key_is_global=True,
        partitions=shops,
        partition_columns=("shop",),
    )
    bodies = {"north": [{"id": 1}], "south": [{"id": 2}]}

    def load_shops(names: list[str]) -> None:
        for shop in shops:
            if shop.name in names:
                load(connection, "shop", orders, shop, MemoryApi([bodies[shop.name]]))

    load_shops(["north", "south"])
    load_lines(connection, orders=orders)
    query("delete from raw_shop.orders")
    bodies["south"] = [{"id": 3}]
    load_shops(loaded)
    assert load_lines(connection, orders=orders) == (2 if "south" in loaded else 0)


@pytest.mark.parametrize(
    "change",
    [
        "alter table raw_shop.orders alter id type numeric",
        "alter table raw_shop.orders alter id type jsonb using to_jsonb(id);"
        'alter table raw_shop.lines alter "order" type jsonb using to_jsonb("order")',
    ],
    ids=["two types", "JSON"],
)
def test_values_that_can_not_be_compared_keep_their_rows(
    connection: Connection, query: Query, change: str
) -> None:
    load_orders(connection, 1, 2)
    load_lines(connection)
    query("delete from raw_shop.orders where id = 2")
    query(change)
    source = Source("shop", "https://api.example.com/", (ORDERS, LINES))
    assert delete_orphans(connection, source, LINES, LoadOptions()) == []
    assert len(query(HELD)) == 2
