"""Promises about raw tables whose rows are gone: their next loads read everything."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import UnavailableError
from flows.load import ledger
from flows.load import reset as reset_module
from flows.load.options import LoadOptions
from flows.load.reset import reset
from flows.page import Page, Resume
from flows.source import Cursor, Partition, Window
from tests.load.memory_api import EVERYTHING, MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

PAGE = [{"id": 1, "at": "2026-01-05T00:00:00Z"}, {"id": 2, "at": "2026-02-05T00:00:00Z"}]
INCREMENTAL = items(cursor=Cursor("at"))
START = datetime(2026, 1, 1, tzinfo=UTC)
APPENDED = items(key=(), cursor=Cursor("at", start=START, step=timedelta(days=9e3)))
LOST = {
    "dropped": "drop table raw_shop.items cascade",
    "truncated": "truncate raw_shop.items",
    "emptied": "delete from raw_shop.items",
    "dropped with its schema": "drop schema raw_shop cascade",
}


def execute(connection: Connection, statement: str) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize("statement", LOST.values(), ids=LOST)
@pytest.mark.parametrize("resource", [INCREMENTAL, APPENDED], ids=["merge", "append"])
def test_a_load_begins_from_the_start_where_the_rows_are_gone(
    connection: Connection,
    query: Query,
    resource: Any,
    statement: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = MemoryApi([PAGE])
    load_api(connection, api, resource)
    load_api(connection, api, resource)
    execute(connection, statement)
    load_api(connection, api, resource)
    first, second, third = (window.since for window, _ in api.asked)
    assert first == third != second
    assert query("select id from raw_shop.items order by id")[:2] == [(1,), (2,)]
    assert "was dropped or emptied" in caplog.text
    [(source, name, reason)] = query("select source, resource, reason from elt.resets")
    assert (source, name, reason) == ("shop", "items", "raw_shop.items was dropped or emptied")


def test_rows_that_another_load_commits_meanwhile_are_not_taken_for_lost(
    connection: Connection, database: URL, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two partitions are loaded for the first time: one commits while the other looks for rows."""
    parts = [Partition("a", {"part": "a"}), Partition("b", {"part": "b"})]
    resource = items(key=("part", "id"), partition_columns=("part",), partitions=tuple(parts))
    pending = [parts[1]]

    def then_load(function: Callable[..., bool]) -> Callable[..., bool]:
        def look(*given: Any) -> bool:
            found = function(*given)
            if pending:
                part = pending.pop()
                with closing(psycopg2.connect(libpq(database))) as other:
                    load_api(other, MemoryApi([PAGE]), resource, EVERYTHING, part)
            return found

        return look

    for module, name in ((reset_module, "_has_rows"), (ledger, "has_stored")):
        monkeypatch.setattr(module, name, then_load(getattr(module, name)))
    load_api(connection, MemoryApi([PAGE]), resource, EVERYTHING, parts[0])
    assert not pending
    assert query("select count(*) from raw_shop.items") == [(4,)]
    assert query("select count(*) from elt.resets") == [(0,)]


def test_all_partitions_begin_from_the_start_though_one_fills_the_table_first(
    connection: Connection, query: Query
) -> None:
    parts = [Partition("a", {"part": "a"}), Partition("b", {"part": "b"})]
    resource = items(
        key=("part", "id"),
        partition_columns=("part",),
        partitions=tuple(parts),
        cursor=Cursor("at"),
    )
    api = MemoryApi([PAGE])
    for part in parts:
        load_api(connection, api, resource, EVERYTHING, part)
    execute(connection, "truncate raw_shop.items")
    for part in parts:
        load_api(connection, api, resource, EVERYTHING, part)
    assert [window.since for window, _ in api.asked[2:]] == [None, None]
    assert query("select count(*) from elt.resets") == [(1,)]
    load_api(connection, api, resource, EVERYTHING, parts[0])
    assert api.asked[-1][0].since is not None


def test_a_resume_point_is_forgotten_with_the_rows(connection: Connection, query: Query) -> None:
    api = MemoryApi([[{"id": 1}], [{"id": 2}]], fails_at=1)
    with pytest.raises(UnavailableError):
        load_api(connection, api, items())
    execute(connection, "drop table raw_shop.items")
    api.fails_at = None
    load_api(connection, api, items())
    assert query("select id from raw_shop.items order by id") == [(1,), (2,)]


def test_a_retry_appends_again_what_was_dropped_meanwhile(
    connection: Connection, query: Query
) -> None:
    options = LoadOptions(run_id="run")
    for statement in ("select 1", "drop table raw_shop.items"):
        load_pages(connection, [{"id": 1}], key=(), options=options)
        execute(connection, statement)
    load_pages(connection, [{"id": 1}], key=(), options=options)
    assert query("select id from raw_shop.items") == [(1,)]


def test_a_backfilled_window_counts_as_missing_where_the_rows_are_gone(
    connection: Connection, query: Query
) -> None:
    window = Partition("2026-01-01..2026-02-01")
    load_pages(connection, PAGE, partition=window, options=LoadOptions(is_backfill=True))
    with connection, connection.cursor() as cursor:
        assert ledger.backfilled(cursor, "shop", "items") == {window.name}
    execute(connection, "truncate raw_shop.items")
    load_pages(connection, [{"id": 9}])
    with connection, connection.cursor() as cursor:
        assert ledger.backfilled(cursor, "shop", "items") == set()


def test_a_table_that_never_had_rows_is_not_reset(connection: Connection, query: Query) -> None:
    for _ in range(2):
        load_api(connection, MemoryApi([[]]), APPENDED)
    assert query("select * from elt.resets") == []
    assert query("select cursor_at is not null from elt.checkpoints") == [(True,)]


def test_a_reset_deletes_all_rows_and_begins_from_the_start(
    connection: Connection, query: Query
) -> None:
    """A view on the table survives it."""
    api = MemoryApi([PAGE])
    load_api(connection, api, APPENDED)
    execute(connection, "create view public.ids as select id from raw_shop.items")
    reset(connection, "shop", "items")
    assert query("select count(*) from public.ids") == [(0,)]
    load_api(connection, api, APPENDED)
    assert query("select id from public.ids order by id") == [(1,), (2,)]
    assert api.asked[0] == api.asked[1]
    assert query("select reason, after_load_id from elt.resets") == [("reset by hand", 1)]


def test_a_reset_of_what_was_never_loaded_does_nothing(
    connection: Connection, query: Query
) -> None:
    reset(connection, "shop", "items")
    load_pages(connection, PAGE)
    assert query("select count(*) from raw_shop.items") == [(2,)]


def test_a_load_at_work_stores_nothing_more_after_a_reset(
    database: URL, connection: Connection, query: Query
) -> None:
    """Its rows before the reset are gone, so its cursor must not be kept."""

    class ResetMeanwhile(MemoryApi):
        def __call__(self, window: Window, resume: Resume | None) -> Iterator[Page]:
            for number, page in enumerate(super().__call__(window, resume)):
                if number == 2:
                    # The first page is committed while this one is read ahead.
                    while query("select to_regclass('raw_shop.items')") == [(None,)]:
                        pass
                    other = psycopg2.connect(libpq(database))
                    reset(other, "shop", "items")
                    other.close()
                yield page

    api = ResetMeanwhile([[{"id": 1}], [{"id": 2}], [{"id": 3}]])
    with pytest.raises(UnavailableError, match="is abandoned"):
        load_api(connection, api, items())
    assert query("select count(*) from raw_shop.items") == [(0,)]
    assert query("select * from elt.checkpoints") == []
    load_api(connection, MemoryApi([[{"id": 1}], [{"id": 2}]]), items())
    assert query("select id from raw_shop.items order by id") == [(1,), (2,)]
