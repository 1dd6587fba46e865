"""Promises of merge, append, replace and full_refresh, and the numbers the ledger has of them."""

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import ConfigurationError
from flows.load.ledger import Entry
from flows.load.options import LoadOptions
from flows.source import Partition
from tests.load.memory_api import load_pages

Query = Callable[..., list[tuple[Any, ...]]]

ROWS = "select id, v from raw_shop.items order by id"
STAMPS = "select id, xmin::text, _loaded_at, _load_id from raw_shop.items order by id"
OLD = [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]


def counts(entry: Entry) -> dict[str, int]:
    """The numbers that are not zero."""
    names = ("extracted", "inserted", "updated", "unchanged", "rejected", "deleted")
    return {name: getattr(entry, name) for name in names if getattr(entry, name)}


def test_the_ledger_refuses_numbers_that_do_not_add_up(
    connection: Connection, query: Query
) -> None:
    entry = load_pages(connection, OLD)
    with pytest.raises(psycopg2.errors.CheckViolation, match="nothing_is_lost"):
        query("update elt.loads set inserted = inserted - 1 where load_id = %s", entry.load_id)


def test_merge_inserts_and_updates_by_key(connection: Connection, query: Query) -> None:
    first = load_pages(connection, OLD)
    second = load_pages(connection, [{"id": 2, "v": "B"}, {"id": 3, "v": "c"}, OLD[0]])
    assert query(ROWS) == [(1, "a"), (2, "B"), (3, "c")]
    assert counts(first) == {"extracted": 2, "inserted": 2}
    assert counts(second) == {"extracted": 3, "inserted": 1, "updated": 1, "unchanged": 1}


def test_merge_does_not_touch_identical_rows(connection: Connection, query: Query) -> None:
    load_pages(connection, OLD)
    before = query(STAMPS)
    entry = load_pages(connection, [OLD[0], {"id": 2, "v": "B"}])
    after = query(STAMPS)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert after[1][3] == entry.load_id


def test_the_last_of_several_records_with_one_key_wins(
    connection: Connection, query: Query
) -> None:
    same = [{"id": 1, "v": text} for text in "abc"]
    entry = load_pages(connection, same, checkpoint_rows=10)
    assert query(ROWS) == [(1, "c")]
    assert counts(entry) == {"extracted": 3, "inserted": 1, "unchanged": 2}


def test_a_key_may_have_several_fields(connection: Connection, query: Query) -> None:
    pages = [{"OrderID": 1, "line": n, "v": n} for n in (1, 2)], [{"OrderID": 1, "line": 2, "v": 9}]
    load_pages(connection, *pages, key=("OrderID", "line"))
    assert query("select order_id, line, v from raw_shop.items order by 2") == [
        (1, 1, 1),
        (1, 2, 9),
    ]


def test_records_of_nothing_but_a_key_are_merged(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1}])
    assert counts(load_pages(connection, [{"id": 1}])) == {"extracted": 1, "unchanged": 1}
    assert query("select id from raw_shop.items") == [(1,)]


def test_a_field_that_a_record_lacks_is_null(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1, "v": "a", "w": 1}, {"id": 2}, {"id": 3, "v": "c"}])
    entry = load_pages(connection, [{"id": 1, "w": 1}], [{"id": 3, "v": "c"}])
    assert query(ROWS) == [(1, None), (2, None), (3, "c")]
    assert counts(entry) == {"extracted": 2, "updated": 1, "unchanged": 1}


def test_append_adds_every_record(connection: Connection, query: Query) -> None:
    load_pages(connection, OLD, key=())
    entry = load_pages(connection, OLD, OLD, key=())
    assert query("select count(*) from raw_shop.items") == [(6,)]
    assert counts(entry) == {"extracted": 4, "inserted": 4}


@pytest.mark.parametrize("key", [("id",), ()], ids=["keyed", "keyless"])
def test_append_keeps_records_of_which_all_else_is_null(
    connection: Connection, query: Query, key: tuple[str, ...]
) -> None:
    load_pages(connection, [{"id": 1, "v": None}], [{"id": 2, "v": None}], key=key)
    assert query(ROWS) == [(1, None), (2, None)]


def test_records_of_nulls_are_records(connection: Connection, query: Query) -> None:
    for _ in range(2):
        load_pages(connection, [{"id": None, "v": None}, {"v": None}], key=())
    assert query(ROWS) == [(None, None)] * 4


def test_append_refuses_a_second_row_of_a_key(connection: Connection) -> None:
    with pytest.raises(ConfigurationError, match="duplicate key"):
        load_pages(connection, [OLD[0], OLD[0]], disposition="append")


def test_keyed_replace_deletes_what_was_not_sent_and_leaves_identical_rows(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [*OLD, {"id": 3, "v": "c"}], disposition="replace")
    before = query(STAMPS)
    pages = [OLD[0]], [{"id": 3, "v": "C"}], [{"id": 4, "v": "d"}]
    entry = load_pages(connection, *pages, disposition="replace")
    assert query(ROWS) == [(1, "a"), (3, "C"), (4, "d")]
    assert query(STAMPS)[0] == before[0]
    assert counts(entry) == {
        "extracted": 3, "inserted": 1, "updated": 1, "unchanged": 1, "deleted": 1,
    }  # fmt: skip


def test_keyless_replace_leaves_what_was_sent(connection: Connection, query: Query) -> None:
    load_pages(connection, OLD, key=(), disposition="replace")
    entry = load_pages(connection, [OLD[1]], [OLD[1]], key=(), disposition="replace")
    assert query(ROWS) == [(2, "b"), (2, "b")]
    assert counts(entry) == {"extracted": 2, "inserted": 2, "deleted": 2}


def test_replace_compares_keys_whose_type_was_wider_before(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": "x", "v": "a"}, {"id": 2, "v": "b"}])
    load_pages(connection, [{"id": 2, "v": "b"}], disposition="replace")
    assert query(ROWS) == [("2", "b")]


def test_full_refresh_deletes_what_the_api_no_longer_sends(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, OLD)
    entry = load_pages(connection, [OLD[1]], options=LoadOptions(full_refresh=True))
    assert query(ROWS) == [(2, "b")]
    assert counts(entry) == {"extracted": 1, "unchanged": 1, "deleted": 1}


@pytest.mark.parametrize("pages", [[], [[]], [[], []]], ids=["no page", "empty", "two empty"])
@pytest.mark.parametrize("key", [("id",), ()], ids=["keyed", "keyless"])
def test_pages_without_records_change_nothing(
    connection: Connection, query: Query, key: tuple[str, ...], pages: list[Any]
) -> None:
    assert load_pages(connection, *pages, key=key).state == "succeeded"
    load_pages(connection, OLD, key=key)
    entry = load_pages(connection, *pages, key=key)
    assert (entry.state, counts(entry)) == ("succeeded", {})
    assert query(ROWS) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("key", [("id",), ()], ids=["keyed", "keyless"])
def test_replace_with_nothing_empties_the_table_where_that_is_accepted(
    connection: Connection, query: Query, key: tuple[str, ...]
) -> None:
    load_pages(connection, OLD, key=key)
    accepted = LoadOptions(accepts_shrinkage=True)
    entry = load_pages(connection, [], key=key, disposition="replace", options=accepted)
    assert query(ROWS) == []
    assert counts(entry) == {"deleted": 2}


@pytest.mark.parametrize("key", [("city", "id"), ()], ids=["keyed", "keyless"])
def test_replace_deletes_rows_of_its_own_partition_only(
    connection: Connection, query: Query, key: tuple[str, ...]
) -> None:
    cities = tuple(Partition(name, {"city": name}) for name in ("Bonn", "O'Fallon"))
    declared = {
        "key": key,
        "disposition": "replace",
        "partitions": cities,
        "partition_columns": ("city",),
    }
    for city in cities:
        load_pages(connection, OLD, partition=city, **declared)
    entry = load_pages(connection, [OLD[0]], partition=cities[1], **declared)
    assert query("select city, id from raw_shop.items order by 1, 2") == [
        ("Bonn", 1),
        ("Bonn", 2),
        ("O'Fallon", 1),
    ]
    assert str(entry.address) == "shop.items[O'Fallon]"


def test_a_field_named_like_a_partition_column_is_an_error(connection: Connection) -> None:
    bonn = Partition("Bonn", {"id": "Bonn"})
    declared = {"partitions": (bonn,), "partition_columns": ("id",)}
    with pytest.raises(ConfigurationError, match="also sends a field 'id'"):
        load_pages(connection, OLD, partition=bonn, **declared)


@pytest.mark.parametrize("key", [("id",), ()], ids=["keyed", "keyless"])
def test_readers_see_the_old_table_or_the_new_one(
    connection: Connection, database: URL, key: tuple[str, ...]
) -> None:
    declared: dict[str, Any] = {"key": key, "disposition": "replace"}
    pages = {v: [[{"id": n, "v": v}] for n in range(3)] for v in ("old", "new")}
    load_pages(connection, *pages["old"], **declared)
    stop = threading.Event()
    seen: list[str] = []

    def look() -> None:
        with closing(psycopg2.connect(libpq(database))) as reader, reader.cursor() as cursor:
            reader.autocommit = True
            while not stop.is_set():
                cursor.execute("select string_agg(v, ' ') from raw_shop.items")
                seen.append(cursor.fetchall()[0][0])

    thread = threading.Thread(target=look)
    thread.start()
    for v in ("new", "old") * 5:
        load_pages(connection, *pages[v], **declared)
    stop.set()
    thread.join()
    assert set(seen) == {"old old old", "new new new"}
