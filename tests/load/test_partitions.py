"""Partitions made from a parent's rows: each has its own name, and so its own cursor."""

from collections.abc import Callable
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import ConfigurationError
from flows.load.partitions import partitions_of
from flows.source import Partition, RowsOf
from tests.load.memory_api import items, load_pages

Query = Callable[..., list[tuple[Any, ...]]]


def names_by(connection: Connection, *columns: str) -> list[str]:
    children = items(
        name="children",
        key=(*columns, "id"),
        partitions=RowsOf("items", {column: column for column in columns}),
        partition_columns=columns,
    )
    return [partition.name for partition in partitions_of(connection, "shop", children)]


def test_values_with_commas_do_not_make_two_partitions_one(connection: Connection) -> None:
    rows = [
        ("a", "b,c"),
        ("a,b", "c"),
        ("a\\", "b,c"),
        ("a\\,b", "c"),
        ("a", "b"),
        ("Köln", "x y/z"),
    ]
    load_pages(connection, [{"id": n, "one": a, "two": b} for n, (a, b) in enumerate(rows)])
    names = names_by(connection, "one", "two")
    assert len(set(names)) == len(rows)
    assert {"a,b", "Köln,x y/z"} < set(names)


def test_the_name_of_a_single_value_is_the_value(connection: Connection) -> None:
    """It is unambiguous, and existing checkpoints use it."""
    values = ["Frankfurt, Oder", "a\\b", "", "1"]
    load_pages(connection, [{"id": n, "one": value} for n, value in enumerate(values)])
    assert sorted(names_by(connection, "one")) == sorted(values)


def test_values_that_are_one_text_are_an_error_that_names_it(connection: Connection) -> None:
    """A column of JSON can hold the number and the string."""
    load_pages(connection, [{"id": 1, "one": 1}, {"id": 2, "one": "1"}], columns={"one": "jsonb"})
    with pytest.raises(ConfigurationError, match=r"shop\.children.*two partitions '1'"):
        names_by(connection, "one")


def test_parents_with_equal_partition_columns_are_refused(
    connection: Connection,
) -> None:
    load_pages(connection, [{"id": n, "one": "a", "two": n} for n in (1, 2)])
    children = items(
        name="children",
        key=("one", "id"),
        partitions=RowsOf("items", {"one": "one", "two": "two"}),
        partition_columns=("one",),
    )
    with pytest.raises(ConfigurationError, match=r"'a,1' and 'a,2' have the same.*one, two"):
        partitions_of(connection, "shop", children)


ORDERS = tuple(Partition(str(order), {"order": order}) for order in (1, 2))
LINES = [[{"line": 1, "v": "a"}, {"line": 2, "v": "b"}], [{"line": 1, "v": "c"}]]
BY_ORDER = {"partitions": ORDERS, "partition_columns": ("order",)}


@pytest.mark.parametrize("disposition", ["merge", "replace"])
def test_a_key_that_repeats_in_each_partition_keeps_the_rows_of_all(
    connection: Connection, query: Query, disposition: str
) -> None:
    declared = {**BY_ORDER, "key": ("order", "line"), "disposition": disposition}
    for time in ("first", "second"):
        for order, lines in zip(ORDERS, LINES, strict=True):
            entry = load_pages(connection, lines, partition=order, **declared)
            assert entry.updated == 0, time
    assert query('select "order", line, v from raw_shop.items order by 1, 2') == [
        (1, 1, "a"),
        (1, 2, "b"),
        (2, 1, "c"),
    ]


@pytest.mark.parametrize("disposition", ["merge", "replace"])
def test_a_row_with_a_global_key_moves_to_the_partition_that_had_it_last(
    connection: Connection, query: Query, disposition: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each move is an update, in the ledger too, and the load warns of it."""
    declared = {**BY_ORDER, "key": ("id",), "key_is_global": True, "disposition": disposition}
    load_pages(connection, [{"id": 7}, {"id": 8}], partition=ORDERS[0], **declared)
    assert "moved" not in caplog.text
    moved = load_pages(connection, [{"id": 7}], partition=ORDERS[1], **declared)
    assert (moved.inserted, moved.updated) == (0, 1)
    assert "1 rows belonged to another partition before and moved" in caplog.text
    caplog.clear()
    again = load_pages(connection, [{"id": 8}], partition=ORDERS[0], **declared)
    assert (again.unchanged, again.deleted) == (1, 0)
    assert "moved" not in caplog.text
    assert query('select id, "order" from raw_shop.items order by id') == [(7, 2), (8, 1)]


def test_tables_whose_names_are_as_long_as_names_can_be_stay_apart(
    connection: Connection, query: Query
) -> None:
    """So are their keys, and the tables that a merge and a replace create."""
    for last in "ab":
        for v in (1, 1.5):
            name = f"{'n' * 62}{last}"
            load_pages(connection, [{"id": 1, "v": v, "of": last}], name=name, checkpoint_rows=9)
            load_pages(
                connection, [{"id": 2, "v": v, "of": last}], name=name, disposition="replace"
            )
    for last in "ab":
        found = query(f"select id, v, of from raw_shop.{'n' * 62}{last}")  # noqa: S608
        assert found == [(2, 1.5, last)]
