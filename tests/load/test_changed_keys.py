"""Promises about a declared key that changes after the raw table got another one."""

from collections.abc import Callable
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import ConfigurationError
from flows.load.options import LoadOptions
from flows.source import Partition
from tests.load.memory_api import load_pages

Query = Callable[..., list[tuple[Any, ...]]]

LINES = [{"id": 1, "line": 1}, {"id": 1, "line": 2}, {"id": 2, "line": 1}]
REFRESH = LoadOptions(full_refresh=True)
KEYS = [("id", "line"), ("line", "id", "other"), ("line",), ()]
KEY = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'items_pkey'"


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_load_says_how_the_key_can_be_changed(
    connection: Connection, query: Query, key: tuple[str, ...]
) -> None:
    load_pages(connection, LINES)
    declared = ", ".join(key) or "none"
    with pytest.raises(ConfigurationError) as failure:
        load_pages(connection, LINES, key=key)
    said = f"raw_shop.items has the key (id), and the resource declares ({declared}). Load it once"
    assert said in str(failure.value)
    assert query("select count(*) from raw_shop.items") == [(2,)]


@pytest.mark.parametrize(
    ("key", "rows"),
    [(("id", "line"), 3), (("line",), 2), ((), 3)],
    ids=str,
)
def test_a_full_refresh_changes_the_key(
    connection: Connection, query: Query, key: tuple[str, ...], rows: int
) -> None:
    """A view on the table survives it, and the next load is an ordinary one."""
    load_pages(connection, LINES)
    with connection, connection.cursor() as cursor:
        cursor.execute("create view public.ids as select id from raw_shop.items")
    entry = load_pages(connection, LINES, key=key, options=REFRESH)
    assert (entry.inserted, entry.deleted) == (rows, 2)
    assert query("select count(*) from public.ids") == [(rows,)]
    assert query(KEY) == ([(f"PRIMARY KEY ({', '.join(key)})",)] if key else [])
    again = load_pages(connection, LINES, key=key, disposition="merge" if key else "append")
    assert (again.inserted, again.unchanged) == ((0, 3) if key else (3, 0))


def test_an_answer_that_shrank_changes_no_key(connection: Connection, query: Query) -> None:
    load_pages(connection, LINES)
    with pytest.raises(Exception, match="max_shrinkage"):
        load_pages(connection, [], key=("id", "line"), options=REFRESH)
    assert query("select count(*) from raw_shop.items") == [(2,)]


def test_rows_of_another_partition_that_repeat_the_new_key_are_named(
    connection: Connection, query: Query
) -> None:
    parts = [Partition(name, {"part": name}) for name in "ab"]
    declared: dict[str, Any] = {"partitions": tuple(parts), "partition_columns": ("part",)}
    for part in parts:
        load_pages(connection, LINES, key=("part", "id", "line"), partition=part, **declared)
    with pytest.raises(ConfigurationError, match=r"other partitions repeat .*\(part, id\).*Reset"):
        load_pages(
            connection, LINES, key=("part", "id"), partition=parts[0], options=REFRESH, **declared
        )
    assert query("select count(*) from raw_shop.items") == [(6,)]


def test_the_same_columns_in_another_order_are_the_same_key(connection: Connection) -> None:
    load_pages(connection, LINES, key=("id", "line"))
    assert load_pages(connection, LINES, key=("line", "id")).unchanged == 3
