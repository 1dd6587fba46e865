"""Promises about locks of other sessions: each wait ends, and its error names the session."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import UnavailableError
from flows.load import ledger, primary_key
from flows.load.ledger import Address
from flows.postgres import locks
from tests.load.memory_api import load_pages

Query = Callable[..., list[tuple[Any, ...]]]

COLUMNS = (
    "select attname from pg_attribute where attrelid = 'raw_shop.items'::regclass and attnum > 0"
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(locks, "LONG_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(locks, "PAUSES_SECONDS", (0.01, 0.01))


@pytest.fixture
def notebook(database: URL) -> Iterator[Connection]:
    """Another session that somebody left open."""
    with closing(psycopg2.connect(libpq(database), application_name="notebook")) as opened:
        yield opened


def leave_open(session: Connection, statement: str) -> None:
    with session.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize(
    "records",
    [[{"id": 1, "v": 1, "new": "x"}], [{"id": 1, "v": "wider"}]],
    ids=["a new column", "a wider type"],
)
@pytest.mark.parametrize("declared", [{}, {"key": ()}], ids=["merge", "append"])
def test_a_reader_left_in_a_transaction_is_named(
    connection: Connection,
    notebook: Connection,
    query: Query,
    records: list[Any],
    declared: dict[str, Any],
) -> None:
    load_pages(connection, [{"id": 1, "v": 1}], **declared)
    before = query(COLUMNS)
    leave_open(notebook, "select from raw_shop.items")
    pid = notebook.info.backend_pid
    with pytest.raises(UnavailableError) as raised:
        load_pages(connection, records, **declared)
    for words in (
        f"process {pid} ", "application notebook", "idle in transaction since 20",
        f"pg_terminate_backend({pid})", "raw_shop.items",
    ):  # fmt: skip
        assert words in str(raised.value)
    assert query(COLUMNS) == before
    assert query("select error from elt.loads where state = 'failed'") == [(str(raised.value),)]
    notebook.rollback()
    assert load_pages(connection, records, **declared).state == "succeeded"


def test_readers_of_a_view_are_named(
    connection: Connection, notebook: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": 1}])
    query("create view public.seen as select v from raw_shop.items")
    leave_open(notebook, "select from public.seen")
    with pytest.raises(UnavailableError, match=f"process {notebook.info.backend_pid} "):
        load_pages(connection, [{"id": 1, "v": "wider"}])


def test_a_change_gets_its_turn_when_the_reader_ends_between_two_attempts(
    connection: Connection, notebook: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_pages(connection, [{"id": 1}])
    leave_open(notebook, "select from raw_shop.items")
    monkeypatch.setattr(locks, "sleep", lambda seconds: notebook.rollback())
    assert load_pages(connection, [{"id": 1, "new": 1}]).updated == 1


def test_other_readers_get_through_between_two_attempts(
    connection: Connection, notebook: Connection, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers queue behind a waiting change; an endless wait would block all of them."""
    load_pages(connection, [{"id": 1}])
    leave_open(notebook, "select from raw_shop.items")
    seen: list[Any] = []
    monkeypatch.setattr(
        locks, "sleep", lambda seconds: seen.append(query("select id from raw_shop.items"))
    )
    with pytest.raises(UnavailableError):
        load_pages(connection, [{"id": 1, "new": 1}])
    assert seen == [[(1,)], [(1,)]]


def test_a_reader_of_a_table_whose_key_is_to_come_is_named(
    connection: Connection, notebook: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1}])
    query("alter table raw_shop.items drop constraint items_pkey")
    query(f"comment on table raw_shop.items is '{primary_key.PUT_OFF}'")
    leave_open(notebook, "select from raw_shop.items")
    with pytest.raises(UnavailableError, match=f"process {notebook.info.backend_pid} "):
        load_pages(connection, [{"id": 1}])


@pytest.mark.parametrize(
    "statement",
    [
        "lock table raw_shop.items in share mode",
        "update raw_shop.items set v = 7",
        "update elt.checkpoints set resume = null",
        "lock table elt.checkpoints",
    ],
)
def test_who_writes_to_a_raw_table_or_the_ledger_is_named(
    connection: Connection, notebook: Connection, statement: str
) -> None:
    load_pages(connection, [{"id": 1, "v": 1}])
    leave_open(notebook, statement)
    with pytest.raises(UnavailableError, match=f"process {notebook.info.backend_pid} "):
        load_pages(connection, [{"id": 1, "v": 2}])
    notebook.rollback()
    assert load_pages(connection, [{"id": 1, "v": 2}]).updated == 1


def test_who_shapes_the_table_is_named(
    connection: Connection, notebook: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1}])
    leave_open(
        notebook, """select pg_advisory_xact_lock(hashtextextended('"raw_shop"."items"', 0))"""
    )
    with pytest.raises(UnavailableError, match=f"process {notebook.info.backend_pid} "):
        load_pages(connection, [{"id": 1, "new": 2}])


def test_a_reader_of_an_older_ledger_is_named(
    connection: Connection, notebook: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1}])
    query("comment on schema elt is 'of an older version'")
    leave_open(notebook, "select from elt.loads")
    with pytest.raises(UnavailableError, match=f"process {notebook.info.backend_pid} "):
        load_pages(connection, [{"id": 1}])
    notebook.rollback()
    assert load_pages(connection, [{"id": 1}]).state == "succeeded"


def test_the_message_of_a_refused_lock_names_its_holder(
    connection: Connection, notebook: Connection
) -> None:
    load_pages(connection, [{"id": 1}])
    with notebook, notebook.cursor() as cursor:
        ledger.lock(cursor, Address("shop", "items", ""))
    said = f"another run: process {notebook.info.backend_pid} .*application notebook.* since 20"
    with pytest.raises(UnavailableError, match=said):
        load_pages(connection, [{"id": 1}])
