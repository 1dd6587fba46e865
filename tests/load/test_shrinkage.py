"""Promises about responses that would empty or shrink a table."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError, ConfigurationError
from flows.load.options import LoadOptions
from flows.source import Cursor, Partition
from tests.load.memory_api import MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

COUNT = "select count(*) from raw_shop.items"
STATES = "select state, deleted from elt.loads order by load_id"
ACCEPTED = LoadOptions(accepts_shrinkage=True)


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": number, "at": "2024-03-01"} for number in range(start, start + count)]


@pytest.mark.parametrize("key", [("id",), ()], ids=["keyed", "keyless"])
@pytest.mark.parametrize("left", [0, 1, 49])
def test_a_replace_that_shrinks_its_table_too_far_fails_and_keeps_it(
    connection: Connection, query: Query, key: tuple[str, ...], left: int
) -> None:
    declared: dict[str, Any] = {"key": key, "disposition": "replace"}
    load_pages(connection, rows(100), **declared)
    said = rf"raw_shop.items holds 100 rows, .* {left}: .* max_shrinkage=0.5 .*accept_shrinkage"
    with pytest.raises(BadPayloadError, match=said):
        load_pages(connection, rows(left), **declared)
    assert query(COUNT) == [(100,)]
    assert query(STATES) == [("succeeded", 0), ("failed", 0)]
    [(error,)] = query("select error from elt.loads where state = 'failed'")
    assert "100 rows" in error


@pytest.mark.parametrize("key", [("id",), ()], ids=["keyed", "keyless"])
def test_a_replace_may_lose_the_declared_share(
    connection: Connection, query: Query, key: tuple[str, ...]
) -> None:
    declared: dict[str, Any] = {"key": key, "disposition": "replace"}
    load_pages(connection, rows(100), **declared)
    load_pages(connection, rows(50), **declared)
    load_pages(connection, rows(49), max_shrinkage=0.02, **declared)
    with pytest.raises(BadPayloadError, match=r"max_shrinkage=0\.0 "):
        load_pages(connection, rows(48), max_shrinkage=0.0, **declared)
    load_pages(connection, [], max_shrinkage=1, **declared)
    assert query(COUNT) == [(0,)]


def test_the_share_is_compared_exactly(connection: Connection) -> None:
    """0.57 * 100 is less than 57 in floating point."""
    load_pages(connection, rows(100), disposition="replace")
    load_pages(connection, rows(43), disposition="replace", max_shrinkage=0.57)


@pytest.mark.parametrize("share", [-0.1, 1.1, 50])
def test_a_share_beyond_0_and_1_is_refused(share: float) -> None:
    with pytest.raises(ConfigurationError, match="max_shrinkage"):
        items(max_shrinkage=share)


@pytest.mark.parametrize("pages", [[], [[]]], ids=["no page", "an empty page"])
def test_a_first_load_and_one_of_an_empty_table_may_be_empty(
    connection: Connection, query: Query, pages: list[Any]
) -> None:
    assert load_pages(connection, *pages, disposition="replace").state == "succeeded"
    load_pages(connection, rows(1), disposition="replace")
    load_pages(connection, *pages, disposition="replace", options=ACCEPTED)
    assert load_pages(connection, *pages, disposition="replace").state == "succeeded"
    assert query(COUNT) == [(0,)]


def test_shrinkage_is_accepted_for_one_load(connection: Connection, query: Query) -> None:
    load_pages(connection, rows(100), disposition="replace")
    entry = load_pages(connection, rows(10), disposition="replace", options=ACCEPTED)
    assert entry.deleted == 90
    with pytest.raises(BadPayloadError):
        load_pages(connection, rows(1), disposition="replace")


@pytest.mark.parametrize("disposition", ["merge", "append", "replace"])
def test_a_full_refresh_that_finds_nothing_keeps_the_table_and_the_cursor(
    connection: Connection, query: Query, disposition: str
) -> None:
    is_append = disposition == "append"
    declared = items(
        disposition=disposition,
        key=() if is_append else ("id",),
        cursor=None if is_append else Cursor("at", lookback=timedelta(days=2)),
    )
    checkpoint = "select cursor_at, resume, load_id from elt.checkpoints"
    load_api(connection, MemoryApi([rows(10)]), declared)
    before = query(checkpoint)
    with pytest.raises(BadPayloadError, match="10 rows"):
        load_api(connection, MemoryApi([[]]), declared, LoadOptions(full_refresh=True))
    assert query(COUNT) == [(10,)]
    assert query(checkpoint) == before
    accepted = LoadOptions(full_refresh=True, accepts_shrinkage=True)
    load_api(connection, MemoryApi([[]]), declared, accepted)
    assert query(COUNT) == [(0,)]


def test_a_key_sent_many_times_counts_once(connection: Connection, query: Query) -> None:
    load_pages(connection, rows(10), disposition="replace")
    with pytest.raises(BadPayloadError, match="10 rows"):
        load_pages(connection, *[rows(2)] * 9, disposition="replace")
    assert query(COUNT) == [(10,)]


def test_a_replace_whose_records_were_rejected_keeps_the_table(
    connection: Connection, query: Query
) -> None:
    """The reader learns why so few were left."""
    load_pages(connection, rows(10), disposition="replace")
    bad = [{"at": "2024-03-01"}] * 8
    with pytest.raises(BadPayloadError, match="8 more records were rejected, the first because"):
        load_pages(connection, [*rows(2), *bad], disposition="replace", max_rejects=99)
    assert query(COUNT) == [(10,)]


@pytest.mark.parametrize("key", [("city", "id"), ()], ids=["keyed", "keyless"])
def test_each_partition_is_counted_by_itself(
    connection: Connection, query: Query, key: tuple[str, ...]
) -> None:
    cities = tuple(Partition(name, {"city": name}) for name in ("Bonn", "O'Fallon", "Rome"))
    declared: dict[str, Any] = {
        "key": key,
        "disposition": "replace",
        "partitions": cities,
        "partition_columns": ("city",),
    }
    bonn, fallon, rome = cities
    load_pages(connection, rows(100), partition=bonn, **declared)
    load_pages(connection, rows(4), partition=fallon, **declared)
    load_pages(connection, rows(2), partition=fallon, **declared)
    load_pages(connection, [], partition=rome, **declared)
    with pytest.raises(BadPayloadError, match="holds 2 rows of the partition O'Fallon, "):
        load_pages(connection, [], partition=fallon, **declared)
    assert query(COUNT) == [(102,)]


def test_a_table_from_before_its_partitions_has_no_rows_of_them(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, rows(3), key=())
    bonn = Partition("Bonn", {"city": "Bonn"})
    declared = {"partitions": (bonn,), "partition_columns": ("city",), "disposition": "replace"}
    entry = load_pages(connection, [], partition=bonn, key=(), **declared)
    assert entry.deleted == 0
    assert query(COUNT) == [(3,)]


def test_merge_and_append_need_no_rows(connection: Connection) -> None:
    load_pages(connection, rows(3))
    assert load_pages(connection, []).state == "succeeded"
