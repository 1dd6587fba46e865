"""Unusual loads are noted, once, and usual ones are not."""

import json
import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import ConfigurationError, UnavailableError
from flows.load import anomalies
from flows.load.options import LoadOptions
from flows.load.partition_lock import transaction
from flows.load.reset import reset
from flows.load.side_by_side import load_side_by_side
from flows.page import Page
from flows.redaction import remember
from flows.source import IntegerCursor, Partition, Window
from tests.load.memory_api import MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

FOUND = "select load_id, kind, field, usual from elt.anomalies order by anomaly_id"
STORED = "select a::text, f::text from elt.anomalies as a, elt.usual_fields as f"
MANY = 200


def rows(count: int, **values: Any) -> list[dict[str, Any]]:
    """So many records, all with the same values."""
    return [{"id": number, "note": "n", **values} for number in range(count)]


def load_usual(connection: Connection, times: int = 3, count: int = MANY, **changes: Any) -> None:
    """Load the same records several times."""
    for _ in range(times):
        load_pages(connection, rows(count), **changes)


@pytest.mark.parametrize("count", [0, 60, 500])
def test_a_number_of_records_far_from_the_usual_is_noted_once(
    connection: Connection, query: Query, count: int
) -> None:
    """Once for the load: what it has becomes a part of what is usual."""
    load_usual(connection)
    load_pages(connection, rows(count))
    assert query(FOUND) == [(4, "volume", None, MANY)]
    [(text,)] = query("select description from elt.anomalies")
    today = datetime.now(UTC).strftime("%A")
    assert text == f"{count} records; the median of the last 3 {today}s is {MANY}"


@pytest.mark.parametrize(
    ("usual", "count"),
    [
        pytest.param(MANY, MANY // 2, id="within the factor"),
        pytest.param(MANY, MANY * 2, id="within the factor, above"),
        pytest.param(30, 0, id="small numbers"),
        pytest.param(30, 129, id="small numbers, above"),
    ],
)
def test_a_usual_number_of_records_is_not_noted(
    connection: Connection, query: Query, usual: int, count: int
) -> None:
    load_usual(connection, count=usual)
    load_pages(connection, rows(count))
    assert query(FOUND) == []


def test_too_few_loads_say_nothing_of_the_usual(connection: Connection, query: Query) -> None:
    load_usual(connection, 2)
    load_pages(connection, rows(9 * MANY, note=None))
    assert query(FOUND) == []


def test_only_loads_of_the_same_weekday_are_compared(connection: Connection, query: Query) -> None:
    """Three loads on this weekday, one a week, and after them a small one on each of three days."""
    moved = "update elt.loads set started_at = started_at - interval '1 day' * ({}) where {}"
    load_usual(connection)
    query(moved.format("7 * (4 - load_id) + 1", "load_id <= 3"))
    load_usual(connection, count=2)
    query(moved.format("case when load_id <= 3 then -1 else 7 - load_id end", "true"))
    load_pages(connection, rows(MANY))
    assert query(FOUND) == []
    load_pages(connection, rows(2))
    assert query(FOUND) == [(8, "volume", None, MANY)]


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions(Window(since=datetime(2026, 1, 1, tzinfo=UTC))),
        LoadOptions(full_refresh=True, accepts_shrinkage=True),
        LoadOptions(is_backfill=True),
    ],
    ids=["by hand", "full refresh", "backfill"],
)
def test_other_than_regular_loads_are_neither_unusual_nor_usual(
    connection: Connection, query: Query, options: LoadOptions
) -> None:
    load_usual(connection)
    for _ in range(4):
        load_pages(connection, rows(2, note=None), options=options)
    load_pages(connection, rows(MANY))
    assert query(FOUND) == []
    assert query("select count(*) from elt.loads where is_comparable") == [(4,)]


def test_the_halves_of_a_load_that_was_interrupted_are_not_compared(
    connection: Connection, query: Query
) -> None:
    load_usual(connection)
    halves = [rows(MANY), [{"id": 999}]]
    with pytest.raises(UnavailableError):
        load_api(connection, MemoryApi(halves, fails_at=1), items())
    load_api(connection, MemoryApi(halves), items())
    assert query("select extracted from elt.loads where load_id > 3") == [(MANY,), (1,)]
    assert query(FOUND) == []


def test_incremental_loads_are_compared_only_where_that_is_declared(
    connection: Connection, query: Query
) -> None:
    """The first one, which reads everything, is not."""
    cursor = IntegerCursor("number")

    def changed(number: int, count: int) -> list[dict[str, Any]]:
        return [{**row, "number": number} for row in rows(count)]

    def load(factor: float | None) -> None:
        for number, count in enumerate([2000, MANY, MANY, MANY, 2], start=1):
            load_pages(connection, changed(number, count), cursor=cursor, unusual_factor=factor)

    load(None)
    assert query(FOUND) == []
    query("truncate elt.loads, elt.checkpoints, elt.columns cascade; drop schema raw_shop cascade")
    load(3)
    [(_, kind, _, usual)] = query(FOUND)
    assert (kind, usual) == ("volume", MANY)
    reset(connection, "shop", "items")
    load_pages(connection, changed(9, 2000), cursor=cursor, unusual_factor=3)
    assert len(query(FOUND)) == 1, "it read everything again"


def test_nothing_is_told_of_a_resource_with_an_endless_factor(
    connection: Connection, query: Query
) -> None:
    load_usual(connection, unusual_factor=math.inf)
    load_pages(connection, rows(9 * MANY, note=None), unusual_factor=math.inf)
    assert query(FOUND) == []


@pytest.mark.parametrize("without", [{"note": None}, {}], ids=["null", "missing"])
def test_a_field_without_any_value_is_noted_once_per_occurrence(
    connection: Connection, query: Query, without: dict[str, Any]
) -> None:
    empty = [{"id": number, **without} for number in range(MANY)]
    load_usual(connection)
    for _ in range(2):
        load_pages(connection, empty[:MANY])
    assert query(FOUND) == [(4, "vanished_field", "note", None)]
    load_usual(connection, 2)
    load_pages(connection, empty)
    assert len(query(FOUND)) == 1, "two loads make nothing usual"
    load_usual(connection, 3)
    load_pages(connection, empty)
    assert query(FOUND)[1:] == [(12, "vanished_field", "note", None)]


def test_a_field_with_one_value_has_not_vanished(connection: Connection, query: Query) -> None:
    """Wherever it is, on the fast path and on the slow one."""
    load_usual(connection)
    pages = [rows(MANY, note=None), [{"id": 1000, "note": "here", "nested": {"a": 1}}]]
    load_pages(connection, *pages)
    load_pages(connection, *reversed(pages))
    assert [kind for _, kind, *_ in query(FOUND)] == ["schema_change"]


def test_few_records_say_nothing_of_a_field(connection: Connection, query: Query) -> None:
    load_usual(connection, count=MANY // 2 - 1)
    load_pages(connection, rows(MANY // 2 - 1, note=None))
    assert query(FOUND) == []


def test_schema_changes_are_noted_but_not_those_of_the_first_load(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1}], [{"id": 2, "a": 1}])
    assert query("select count(*) from elt.schema_changes") == [(1,)]
    load_pages(connection, [{"id": 1, "a": "x", "b": True}])
    assert query("select load_id, kind, field, description from elt.anomalies order by 4") == [
        (2, "schema_change", "a", "column a: bigint -> text"),
        (2, "schema_change", "b", "new column b: boolean"),
    ]


def in_group(database: URL, orders: int, bodies: Callable[[int], Sequence[Any]]) -> None:
    """Load partitions as a group."""
    names = tuple(Partition(str(n), {"order": n}) for n in range(orders))
    resource = items(key=("order", "id"), partitions=names, partition_columns=("order",))

    def read(partition: Partition, window: Window, resume: Any) -> Any:
        body = bodies(partition.values["order"])
        yield Page(json.dumps(body).encode(), f"order {partition.name}")

    @contextmanager
    def open_reader() -> Any:
        yield read

    connect = partial(psycopg2.connect, libpq(database))
    _, errors = load_side_by_side(connect, "shop", resource, names, open_reader, LoadOptions(), 3)
    assert not errors


def test_groups_are_compared_as_a_whole(database: URL, query: Query) -> None:
    for _ in range(3):
        in_group(database, 10, lambda _: rows(20))
    in_group(database, 10, lambda _: rows(2, note=None))
    assert query(FOUND) == [(4, "volume", None, 200)]
    in_group(database, 10, lambda _: rows(20, note=None))
    assert query(FOUND)[1:] == [(5, "vanished_field", "note", None)]


def test_a_group_that_lacks_a_partition_is_not_compared(database: URL, query: Query) -> None:
    """One is too large for the group, and so has a load of its own."""
    for _ in range(3):
        in_group(database, 10, lambda _: rows(20))
    large = rows(2, note="x" * 300_000)
    in_group(database, 10, lambda order: large if order == 1 else rows(2, note=None))
    assert query(
        "select is_group, is_comparable from elt.loads where load_id > 3 order by 1 desc"
    ) == [
        (True, False),
        (False, True),
    ]
    assert query(FOUND) == []


def test_each_anomaly_is_told_once(connection: Connection, query: Query) -> None:
    load_usual(connection)
    load_pages(connection, rows(2, more=1))
    with transaction(connection) as cursor:
        told = anomalies.tell(cursor, "shop")
    assert [each.partition(":")[0] for each in told] == ["shop.items", "shop.items"]
    assert "new column more: bigint" in told[0]
    assert f"is {MANY}" in told[1]
    with transaction(connection) as cursor:
        assert anomalies.tell(cursor, "shop") == []


def test_what_goes_on_is_told_once_and_again_after_a_usual_load(
    connection: Connection, query: Query
) -> None:
    def told() -> int:
        with transaction(connection) as cursor:
            return len(anomalies.tell(cursor, "shop"))

    load_usual(connection, 8)
    counts = []
    for count in (2, 2, MANY, 2):
        load_pages(connection, rows(count))
        counts.append(told())
    assert counts == [1, 0, 0, 1]
    assert [load_id for load_id, *_ in query(FOUND)] == [9, 10, 12]


def test_a_field_that_is_named_like_a_secret_is_redacted(
    connection: Connection, query: Query
) -> None:
    """One that is too short for its name to be refused."""
    remember("s3sam3")
    for _ in range(3):
        load_pages(connection, [{"id": n, "of s3sam3": "here"} for n in range(MANY)])
    load_pages(connection, [{"id": n, "x": 1} for n in range(MANY)])
    assert {kind for _, kind, *_ in query(FOUND)} == {"schema_change", "vanished_field"}
    stored = query(STORED)
    assert "s3sam3" not in str(stored)


def test_no_value_of_a_record_is_quoted(connection: Connection, query: Query) -> None:
    for value in (["canary"] * 3) + [None]:
        load_pages(connection, rows(MANY, seen=value, more={"canary": "canary"}))
    load_pages(connection, rows(2, kind="canary"))
    stored = query(STORED)
    assert len(stored) == 3
    assert "canary" not in str(stored)


def test_a_factor_of_one_or_less_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"unusual_factor=1 is out of range.*more than 1"):
        items(unusual_factor=1)
