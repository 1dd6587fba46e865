"""Promises about records that were deleted at the API: tombstones, and complete lists."""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import BadPayloadError, ConfigurationError, UnavailableError
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.load.options import LoadOptions
from flows.load.partitions import partitions_of
from flows.load.replay import replay
from flows.personal_data import masked
from flows.source import (
    Cursor,
    FullList,
    Partition,
    Resource,
    RowsOf,
    Rule,
    TokenCursor,
    Tombstones,
)
from tests.load.memory_api import WAYS, MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

HELD = "select id, v, _deleted_at is not null from raw_shop.items order by id"
MARKS = "select id, _deleted_at, _loaded_at, _load_id from raw_shop.items order by id"
LIST: dict[str, Any] = {"deletes": FullList()}
ACCEPTED = LoadOptions(accepts_shrinkage=True)
FULL = LoadOptions(full_refresh=True, accepts_shrinkage=True)
CITIES = tuple(Partition(name, {"city": name}) for name in ("Bonn", "Ro'me 50%"))


def rows(*ids: int, **others: Any) -> list[dict[str, Any]]:
    return [{"id": number, "v": "a", **others} for number in ids]


# Complete lists


def test_a_list_marks_the_rows_that_it_lacks(connection: Connection, query: Query) -> None:
    first = load_pages(connection, rows(1, 2), rows(3), **LIST)
    entry = load_pages(connection, rows(1), rows(3), **LIST)
    assert query(HELD) == [(1, "a", False), (2, "a", True), (3, "a", False)]
    assert (entry.deleted, entry.updated, entry.unchanged) == (1, 0, 2)
    written = [number for (*_, number) in query(MARKS)]
    assert written == [first.load_id, entry.load_id, first.load_id]


def test_a_mark_stays_as_it_is_until_the_row_comes_back(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, rows(1, 2, 3), **LIST)
    load_pages(connection, rows(1, 2), **LIST)
    before = query(MARKS)
    assert load_pages(connection, rows(1, 2), **LIST).deleted == 0
    assert query(MARKS) == before
    entry = load_pages(connection, rows(1, 2, 3), **LIST)
    assert (entry.updated, entry.unchanged, entry.deleted) == (1, 2, 0)
    assert query(HELD) == [(1, "a", False), (2, "a", False), (3, "a", False)]


@pytest.mark.parametrize("pages", [[], [[]]], ids=["no page", "an empty page"])
def test_an_empty_list_marks_all_only_if_that_is_accepted(
    connection: Connection, query: Query, pages: list[Any]
) -> None:
    load_pages(connection, rows(1, 2))
    with pytest.raises(BadPayloadError, match=r"holds 2 rows, .*leave 0.*accept_shrinkage"):
        load_pages(connection, *pages, **LIST)
    entry = load_pages(connection, *pages, options=ACCEPTED, **LIST)
    assert entry.deleted == 2
    assert query(HELD) == [(1, "a", True), (2, "a", True)]
    assert load_pages(connection, *pages, **LIST).state == "succeeded"


def test_a_list_that_shrank_too_far_marks_nothing(connection: Connection, query: Query) -> None:
    """Rows that are marked already do not count as those that are left."""
    load_pages(connection, rows(*range(10)), **LIST)
    load_pages(connection, rows(*range(6)), **LIST)
    before = query(MARKS)
    with pytest.raises(BadPayloadError, match=r"holds 6 rows, .*leave 2"):
        load_pages(connection, rows(0, 1), **LIST)
    assert query(MARKS) == before
    load_pages(connection, rows(0, 1), max_shrinkage=0.7, **LIST)
    assert [is_marked for *_, is_marked in query(HELD)] == [False] * 2 + [True] * 8


def test_a_list_that_was_interrupted_is_read_from_the_start(
    connection: Connection, query: Query
) -> None:
    """What was seen before an interruption is neither stored nor counted."""
    load_pages(connection, rows(1, 2, 3, 4), **LIST)
    before = query(MARKS)
    api = MemoryApi([rows(1), rows(2), rows(3)], fails_at=2)
    with pytest.raises(UnavailableError):
        load_api(connection, api, items(**LIST))
    assert query(MARKS) == before
    api.fails_at = None
    assert load_api(connection, api, items(**LIST)).deleted == 1
    assert api.asked[-1][1] is None
    assert [number for number, _, is_marked in query(HELD) if is_marked] == [4]


def test_a_list_with_rejects_marks_nothing(
    connection: Connection, query: Query, caplog: pytest.LogCaptureFixture
) -> None:
    """The rejected record may be that of the row which seems to be missing."""
    load_pages(connection, rows(1, 2, 3), **LIST)
    bad = {"v": "its id was lost"}
    with caplog.at_level(logging.WARNING):
        entry = load_pages(connection, [*rows(1, 2), bad], max_rejects=1, **LIST)
    assert (entry.deleted, entry.rejected) == (0, 1)
    assert "no row is marked as deleted, because 1 records" in caplog.text
    assert not any(is_marked for *_, is_marked in query(HELD))
    assert load_pages(connection, rows(1, 2), **LIST).deleted == 1


def test_each_partition_has_its_own_list(connection: Connection, query: Query) -> None:
    declared: dict[str, Any] = {
        "key": ("city", "id"),
        "partitions": CITIES,
        "partition_columns": ("city",),
        **LIST,
    }
    for city in CITIES:
        load_pages(connection, rows(1, 2), partition=city, **declared)
    load_pages(connection, rows(2), partition=CITIES[1], **declared)
    marked = "select city, id from raw_shop.items where _deleted_at is not null"
    assert query(marked) == [("Ro'me 50%", 1)]


def test_a_full_refresh_removes_marked_rows_and_marks_none(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, rows(1, 2, 3), options=FULL, **LIST)
    load_pages(connection, rows(1, 2), **LIST)
    assert load_pages(connection, rows(1), options=FULL, **LIST).deleted == 2
    assert query(HELD) == [(1, "a", False)]


def test_a_table_with_another_key_is_refused(connection: Connection, query: Query) -> None:
    load_pages(connection, rows(1, 2))
    with pytest.raises(ConfigurationError, match="has the key"):
        load_pages(connection, rows(1), key=("v",), **LIST)
    assert query("select count(*) from raw_shop.items") == [(2,)]


def test_children_are_asked_for_parents_that_are_not_marked(connection: Connection) -> None:
    load_pages(connection, rows(1, 2), **LIST)
    load_pages(connection, rows(2), **LIST)
    lines = Resource(
        "lines",
        "items/{item}/lines",
        records_at(),
        key=("item", "id"),
        partitions=RowsOf("items", {"item": "id"}),
        partition_columns=("item",),
    )
    assert [each.name for each in partitions_of(connection, "shop", lines)] == ["2"]


# Tombstones


SAYINGS: list[tuple[Tombstones, Any, Any]] = [
    (Tombstones("gone"), True, False),
    (Tombstones("gone"), 1, 0),
    (Tombstones("gone"), "2026-01-01T00:00:00Z", None),
    (Tombstones("gone"), "true", "False"),
    (Tombstones("gone"), "Y", ""),
    (Tombstones("gone"), {"reason": "deleted"}, None),
    (Tombstones("gone.at"), {"at": "2026-01-01"}, {"at": None}),
    (Tombstones("gone.at"), {"at": "2026-01-01"}, {}),
    (Tombstones("gone", values=("50% off", "x")), "50% off", "true"),
    (Tombstones("gone", values=(True,)), True, False),
    (Tombstones("gone", values=(2,)), 2, 1),
    (Tombstones("gone", values=(2, "1.0")), 2.0, 1.5),
    (Tombstones("gone", values=("1.0",)), "1.0", "1"),
    (Tombstones("gone"), 0.5, 0.0),
    (Tombstones("gone.at"), {"at": 10}, {"at": 0.0}),
]


@pytest.mark.parametrize("way", WAYS)
def test_a_record_says_that_it_is_deleted(connection: Connection, query: Query, way: str) -> None:
    for number, (declared, said, denied) in enumerate(SAYINGS):
        name = f"items_{number}"
        given: dict[str, Any] = {"deletes": declared, "records": WAYS[way], "name": name}
        marked = f"select array_agg(id) from raw_shop.{name} where _deleted_at is not null"  # noqa: S608
        load_pages(connection, [*rows(1, gone=denied), *rows(2, gone=said)], **given)
        assert query(marked) == [([2],)], declared
        load_pages(connection, [*rows(1, gone=said), *rows(2, gone=denied)], **given)
        assert query(marked) == [([1],)], declared


TOLD: dict[str, Any] = {"deletes": Tombstones("gone")}


def test_zero_with_decimals_says_nothing(connection: Connection, query: Query) -> None:
    pinned = {"columns": {"gone": "numeric(3,1)"}}
    load_pages(connection, [*rows(1, gone=0), *rows(2, gone=1)], **TOLD, **pinned)
    assert query(HELD) == [(1, "a", False), (2, "a", True)]


def test_a_replaced_list_of_tombstones_leaves_no_row(connection: Connection, query: Query) -> None:
    declared = {"disposition": "replace", **TOLD}
    load_pages(connection, rows(*range(10)), **declared)
    pages = [rows(*range(10)), rows(*range(8), gone=True)]
    with pytest.raises(BadPayloadError, match="holds 10 rows, and this load would leave 2:"):
        load_pages(connection, *pages, **declared)
    assert load_pages(connection, *pages, options=ACCEPTED, **declared).deleted == 8
    assert load_pages(connection, *pages, **declared).deleted == 0


def test_the_column_of_marks_is_no_anomaly(connection: Connection, query: Query) -> None:
    """The declaration adds it, not the API."""
    load_pages(connection, rows(1))
    load_pages(connection, rows(1), **LIST)
    assert query("select column_name from elt.schema_changes") == [("_deleted_at",)]
    assert query("select * from elt.anomalies") == []


def test_a_tombstone_keeps_the_values_that_it_does_not_send(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": "a", "w": [1]}, {"id": 2, "v": "a", "w": [2]}], **TOLD)
    entry = load_pages(connection, [{"id": 1, "gone": True}, {"id": 2, "v": "b"}], **TOLD)
    assert query("select id, v, w, gone, _deleted_at is not null from raw_shop.items") == [
        (1, "a", [1], True, True),
        (2, "b", None, None, False),
    ]
    assert (entry.updated, entry.deleted) == (2, 1)


def test_a_tombstone_that_is_sent_again_changes_nothing(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, rows(1, 2), **TOLD)
    load_pages(connection, rows(1, gone=True), **TOLD)
    before = query(MARKS)
    for again in (rows(1, gone=True), [{"id": 1, "gone": True}]):
        entry = load_pages(connection, again, **TOLD)
        assert (entry.updated, entry.unchanged, entry.deleted) == (0, 1, 0)
    assert query(MARKS) == before


def test_of_a_record_and_its_tombstone_the_later_one_counts(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, rows(1, 2), **TOLD)
    back, away = rows(1, gone=False), rows(1, gone=True)
    load_pages(connection, [*back, *away, *rows(2, gone=True), *rows(2)], **TOLD)
    assert query(HELD) == [(1, "a", True), (2, "a", False)]
    load_pages(connection, [*away, *back], checkpoint_rows=99, **TOLD)
    assert query(HELD) == [(1, "a", False), (2, "a", False)]


STEPS: list[list[dict[str, Any]]] = [
    [{"id": 1, "v": "new"}, {"id": 2, "w": 2}, {"id": 1, "gone": True}, {"id": 2, "gone": True}],
    [{"id": 1, "gone": True, "v": None}, {"id": 1, "gone": "yes", "w": 3}, {"id": 2, "gone": 1}],
    [{"id": 1, "gone": True, "w": 4}, {"id": 1, "v": "back"}, {"id": 1, "gone": 2}],
    [{"id": 1, "gone": True}, {"id": 3, "gone": True, "w": 5}, {"id": 1, "v": "back"}],
]


@pytest.mark.parametrize("records", STEPS)
def test_checkpoints_do_not_decide_what_is_kept(
    connection: Connection, query: Query, records: list[dict[str, Any]]
) -> None:
    """Records and their tombstones count one after the other."""
    held = "select id, v, w, gone, _deleted_at is not null from {} order by id"
    for name, pages in (("apart", [[each] for each in records]), ("together", [records])):
        load_pages(connection, [*rows(1, w=1), *rows(2)], name=name, **TOLD)
        load_pages(connection, *pages, name=name, **TOLD)
    assert query(held.format("raw_shop.together")) == query(held.format("raw_shop.apart"))


def test_arrays_are_kept_as_well(connection: Connection, query: Query) -> None:
    both = [{"id": 1, "tags": "{a,b}"}, {"id": 1, "gone": True}]
    load_pages(connection, both, columns={"tags": "text[]"}, **TOLD)
    assert query("select tags, gone from raw_shop.items") == [(["a", "b"], True)]


def test_a_record_and_its_tombstone_that_are_read_again_change_nothing(
    connection: Connection, query: Query
) -> None:
    both = [{"id": 1, "v": "b", "w": None}, {"id": 1, "gone": True}]
    load_pages(connection, both, **TOLD)
    before = query(MARKS)
    assert load_pages(connection, both, **TOLD).unchanged == 2
    assert query(MARKS) == before


MOVING: dict[str, Any] = {
    "key": ("id",),
    "key_is_global": True,
    "partitions": CITIES,
    "partition_columns": ("city",),
    **TOLD,
}


def test_the_tombstone_of_a_partition_that_a_record_has_left_marks_nothing(
    connection: Connection, query: Query
) -> None:
    bonn, rome = CITIES
    held = "select city, v, _deleted_at is not null from raw_shop.items"
    load_pages(connection, rows(1), partition=bonn, **MOVING)
    load_pages(connection, rows(1), partition=rome, **MOVING)
    entry = load_pages(connection, [{"id": 1, "gone": True}], partition=bonn, **MOVING)
    assert (entry.deleted, entry.unchanged) == (0, 1)
    assert query(held) == [(rome.name, "a", False)]
    assert load_pages(connection, rows(1, gone=True), partition=rome, **MOVING).deleted == 1
    load_pages(connection, rows(1), partition=bonn, **MOVING)
    assert query(held) == [(bonn.name, "a", False)]


def test_after_a_load_in_which_all_changed_tombstones_still_mark(
    connection: Connection, query: Query
) -> None:
    """Then the next merge would update at once."""
    load_pages(connection, rows(1, 2), **TOLD)
    gone = [{"id": 1, "gone": 1}, {"id": 2, "gone": 1}]
    assert load_pages(connection, [{"id": 1, "v": "b"}], gone, **TOLD).deleted == 2
    assert query(HELD) == [(1, "b", True), (2, "a", True)]


def test_without_the_declaration_a_row_that_comes_back_is_unmarked(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, rows(1, gone=True), **TOLD)
    load_pages(connection, rows(1, gone=False))
    assert query(HELD) == [(1, "a", False)]


def test_a_replayed_tombstone_leaves_a_newer_row(
    connection: Connection, query: Query, database: URL
) -> None:
    load_pages(connection, rows(1, 2, n=1), **TOLD)
    quarantined = {"contract": "quarantine", "max_rejects": 2, **TOLD}
    refused = [{"id": 1, "gone": "yes", "n": 1}, {"id": 2, "gone": "yes", "n": 1}]
    assert load_pages(connection, refused, **quarantined).rejected == 2
    load_pages(connection, rows(2, n=5), **TOLD)
    replay(lambda: psycopg2.connect(libpq(database)), "shop", items(**TOLD), Partition())
    assert query(HELD) == [(1, "a", True), (2, "a", False)]


# Declarations and names


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"key": (), **LIST}, "Declare a key"),
        ({"key": (), **TOLD}, "Declare a key"),
        ({"disposition": "append", **TOLD}, "no append"),
        ({"disposition": "append", **LIST}, "no append"),
        ({"disposition": "merge", **LIST}, "Remove disposition='merge'"),
        ({"cursor": Cursor("at", lookback=timedelta(days=1)), **LIST}, "with a cursor"),
        ({"cursor": TokenCursor("sync", is_link=True), **LIST}, "sends only changes|with a cursor"),
        ({"max_pages": 3, **LIST}, "with max_pages"),
        ({"rules": (Rule("stop", 404),), **LIST}, "a rule that stops"),
        ({"rules": (Rule("end", 404),), "paging": next_url("next"), **LIST}, "a rule `end`"),
        ({"deletes": Tombstones("id")}, "part of its key"),
        (
            {"columns": {"meta_data": "text"}, "deletes": Tombstones("metaData.gone")},
            "makes 'meta_data' text",
        ),
        ({"personal": {"gone": masked()}, **TOLD}, "replaced by `personal`"),
        ({"personal": {"gone": masked()}, "deletes": Tombstones("gone.at")}, "by `personal`"),
    ],
)
def test_a_declaration_that_would_lose_rows_is_refused(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        items(**declared)


@pytest.mark.parametrize("wrong", [{"field": ""}, {"field": "a", "values": "gone"}])
def test_tombstones_without_a_field_or_with_letters_for_values_are_refused(
    wrong: dict[str, Any],
) -> None:
    with pytest.raises(ConfigurationError, match="Tombstones"):
        Tombstones(**wrong)


def test_a_field_of_the_mark_s_name_gets_another_column(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, rows(1, 2, _deleted_at="never"), **LIST)
    load_pages(connection, rows(1, _deleted_at="never"), **LIST)
    asked = "select id, _deleted_at_, _deleted_at is null from raw_shop.items order by id"
    assert query(asked) == [(1, "never", True), (2, "never", False)]


def test_a_table_in_which_the_api_had_the_mark_s_column_is_refused(
    connection: Connection, query: Query
) -> None:
    """As older versions made it."""
    load_pages(connection, rows(1, 2))
    query("alter table raw_shop.items add column _deleted_at text")
    with pytest.raises(ConfigurationError, match="values of the API"):
        load_pages(connection, rows(1, 2), **LIST)
