"""Promises of `map_record`: a source's function that changes or skips each record."""

from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import BadPayloadError, ConfigurationError
from flows.load.ledger import Address
from flows.load.replay import open_rejects, replay
from flows.source import Cursor, Partition, Record
from tests.load.memory_api import WAYS, MemoryApi, items, load_api, load_pages

Connect = Callable[[], Connection]
Query = Callable[..., list[tuple[Any, ...]]]

both_ways = pytest.mark.parametrize("records", WAYS.values(), ids=WAYS)


@pytest.fixture
def connect(database: URL) -> Connect:
    return lambda: psycopg2.connect(libpq(database))


def over_three(record: Record) -> Record | None:
    """Only ids over 3, with a field of the source's own."""
    return {**record, "is_large": record["id"] > 4} if record["id"] > 3 else None


@both_ways
def test_records_are_mapped_or_left_out_and_both_are_counted(
    connection: Connection, query: Query, records: Any
) -> None:
    pages = [[{"id": 1}, {"id": 4}], [{"id": 2}, {"id": 3}], [{"id": 5}, {"id": 6}]]
    entry = load_pages(connection, *pages, records=records, map_record=over_three)
    assert (entry.extracted, entry.inserted, entry.filtered) == (3, 3, 3)
    assert query("select id, is_large from raw_shop.items order by id") == [
        (4, False),
        (5, True),
        (6, True),
    ]
    assert query("select extracted, filtered from elt.loads") == [(3, 3)]


def test_a_load_that_leaves_everything_out_succeeds(connection: Connection, query: Query) -> None:
    entry = load_pages(connection, [{"id": 1}], map_record=over_three)
    assert (entry.state, entry.extracted, entry.filtered) == ("succeeded", 0, 1)


@both_ways
def test_the_cursor_is_a_field_of_the_mapped_record(
    connection: Connection, query: Query, records: Any
) -> None:
    def with_iso_time(record: Record) -> Record:
        day, month, year = record.pop("changed").split(".")
        return {**record, "changed_at": f"{year}-{month}-{day}"}

    load_pages(
        connection,
        [{"id": 1, "changed": "03.04.2026"}],
        records=records,
        map_record=with_iso_time,
        cursor=Cursor("changed_at"),
    )
    assert query("select cursor_at::date::text from elt.checkpoints") == [("2026-04-03",)]


@both_ways
def test_a_rejected_record_is_kept_as_it_was_sent_and_mapped_again_by_a_replay(
    connection: Connection, query: Query, connect: Connect, records: Any
) -> None:
    def without_key(record: Record) -> Record:
        number = record.pop("number")
        return {**record, "id": None if number == 2 else number}

    page = [{"number": 1}, {"number": 2}, {"number": 3}]
    with pytest.raises(BadPayloadError, match="has null in the field 'id'"):
        load_pages(connection, page, records=records, map_record=without_key)
    assert query("select record::jsonb from elt.rejects") == [({"number": 2},)]

    mended = items(records=records, map_record=lambda record: {"id": record["number"]})
    [entry] = replay(connect, "shop", mended, Partition())
    assert (entry.inserted, entry.filtered) == (1, 0)
    assert query("select id from raw_shop.items order by id") == [(1,), (2,), (3,)]


@both_ways
def test_what_only_postgres_refuses_is_kept_as_it_was_sent(
    connection: Connection, query: Query, records: Any
) -> None:
    """One record is skipped before the one that the table's type refuses."""
    page = [{"id": 0}, {"id": 1, "n": "5"}, {"id": 2, "n": "x"}, {"id": 3, "n": "7"}]
    entry = load_pages(
        connection,
        page,
        records=records,
        map_record=lambda record: {"id": record["id"], "v": record["n"]} if record["id"] else None,
        columns={"v": "integer"},
        max_rejects=1,
    )
    assert (entry.extracted, entry.rejected, entry.filtered) == (3, 1, 1)
    assert query("select record::jsonb from elt.rejects") == [({"id": 2, "n": "x"},)]


def test_a_reject_that_a_replay_leaves_out_is_no_longer_open(
    connection: Connection, query: Query, connect: Connect
) -> None:
    with pytest.raises(BadPayloadError):
        load_pages(connection, [{"id": 1}, {"id": None}])
    leaves_out = items(map_record=lambda record: record if record["id"] else None)
    [entry] = replay(connect, "shop", leaves_out, Partition())
    assert (entry.extracted, entry.filtered) == (0, 1)
    assert open_rejects(connection, Address("shop", "items", "")) == []


def test_records_that_are_no_objects_are_rejected_without_being_mapped(
    connection: Connection, query: Query
) -> None:
    entry = load_pages(connection, [{"id": 4}, "text", None], map_record=over_three, max_rejects=2)
    assert (entry.inserted, entry.rejected, entry.filtered) == (1, 2, 0)


@pytest.mark.parametrize("returned", [[], "text", 1, [{"id": 1}], {}, {1: 2}], ids=repr)
def test_another_return_than_a_record_or_none_is_refused_by_name(
    connection: Connection, returned: Any
) -> None:
    with pytest.raises(ConfigurationError, match=r"shop\.items: its `map_record` returned"):
        load_pages(connection, [{"id": 1}], map_record=lambda record: returned)


def test_an_exception_of_map_record_names_the_function_and_stores_nothing(
    connection: Connection, query: Query
) -> None:
    with pytest.raises(ConfigurationError, match="items: its `map_record` function failed in "):
        load_pages(connection, [{"id": 4}, {"no": 1}], map_record=over_three)
    assert query("select to_regclass('raw_shop.items') is null") == [(True,)]


def test_values_that_no_json_has_are_refused_by_the_field(connection: Connection) -> None:
    with pytest.raises(ConfigurationError, match=r"`map_record`.*a datetime in the field 'at'"):
        load_pages(
            connection,
            [{"id": 1}],
            map_record=lambda record: {**record, "at": __import__("datetime").datetime.now()},
        )


def test_a_partition_may_be_resumed_with_the_counts_of_each_part(
    connection: Connection, query: Query
) -> None:
    api = MemoryApi([[{"id": 1}, {"id": 4}], [{"id": 2}, {"id": 5}]], fails_at=1)
    resource = items(map_record=over_three)
    with pytest.raises(Exception, match="the API is away"):
        load_api(connection, api, resource)
    api.fails_at = None
    load_api(connection, api, resource)
    assert query("select state, inserted, filtered from elt.loads order by load_id") == [
        ("failed", 1, 1),
        ("succeeded", 1, 1),
    ]
