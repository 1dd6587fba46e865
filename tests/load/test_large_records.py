"""Promises about records of more bytes than their resource takes, and pages of many pieces."""

import json
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import BadPayloadError, ConfigurationError, UnavailableError
from flows.extract.selectors import csv_rows, ndjson, record_at, records_at
from flows.load import loader as loading
from flows.load import parse, row_writer
from flows.load import replay as replaying
from flows.load.replay import replay
from flows.source import Partition
from tests.load.memory_api import MemoryApi, in_python, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]
Connect = Callable[[], Connection]

LARGE = {"id": 2, "v": "x" * 900}
RECORDS = [{"id": 1, "v": "x"}, LARGE, {"id": 3, "v": "x"}]
LIST = json.dumps(RECORDS).encode()
LINES = "\n".join(map(json.dumps, RECORDS)).encode()
CSV = b"id,v\n1,x\n2,%b\n3,x\n" % (b"x" * 900)
REASON = "bytes, and the resource's max_record_bytes is 500. Raise it and load again"


@pytest.fixture
def connect(database: URL) -> Connect:
    return lambda: psycopg2.connect(libpq(database))


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (LIST, records_at()),
        (LINES, ndjson()),
        (LIST, in_python),
        (CSV, csv_rows()),
    ],
    ids=["list", "lines", "a function of one's own", "CSV"],
)
def test_a_record_that_is_too_large_is_rejected_with_its_start(
    connection: Connection, query: Query, body: bytes, records: Any
) -> None:
    with pytest.raises(BadPayloadError, match="max_record_bytes is 500"):
        load_pages(connection, body, records=records, max_record_bytes=500)
    assert query("select id::int from raw_shop.items order by id") == [(1,), (3,)]
    [(reason, record)] = query("select reason, record from elt.rejects")
    assert REASON in reason
    assert json.loads(record).startswith('{"id": ')
    assert query("select pages, extracted, rejected from elt.loads") == [(1, 3, 1)]


def test_the_only_record_of_a_page_may_be_too_large(connection: Connection, query: Query) -> None:
    page = {"item": LARGE}
    load_pages(connection, page, records=record_at("item"), max_record_bytes=500, max_rejects=1)
    assert query("select extracted, rejected from elt.loads") == [(1, 1)]


@pytest.mark.parametrize("excess", [0, 1])
def test_a_record_of_just_the_limit_is_stored(connection: Connection, excess: int) -> None:
    limit = len(json.dumps(LARGE)) - excess
    entry = load_pages(connection, RECORDS, max_record_bytes=limit, max_rejects=1)
    assert entry.rejected == excess


def test_a_limit_that_refuses_every_record_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"max_record_bytes=0 .*1 or more"):
        items(max_record_bytes=0)


def test_a_replay_does_not_load_the_start_of_a_record(
    connection: Connection, connect: Connect, query: Query
) -> None:
    """Nor does that keep the others from being replayed."""
    page = [{"v": "short"}, {"v": "x" * 900}]
    load_pages(connection, page, max_record_bytes=500, max_rejects=2)
    replay(connect, "shop", items(key=("v",), max_rejects=1), Partition())
    assert query("select v from raw_shop.items") == [("short",)]
    [(reason,)] = query("select reason from elt.rejects where replayed_by is null")
    assert reason.endswith("not an object")


def test_large_rejects_are_replayed_page_by_page(
    connection: Connection, connect: Connect, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page takes so many bytes, or one reject of more."""
    monkeypatch.setattr(replaying, "PAGE_BYTES", 50)
    page = [{"v": "x" * size} for size in (1, 2, 30, 100, 5, 6, 101)]
    load_pages(connection, page, max_rejects=7)
    [entry] = replay(connect, "shop", items(key=("v",)), Partition())
    assert (entry.pages, entry.inserted) == (5, 7)


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is a record or two, and goes into Postgres at once."""
    monkeypatch.setattr(parse, "PIECE_BYTES", 20)
    monkeypatch.setattr(loading, "MEMORY_BYTES", 1)
    monkeypatch.setattr(row_writer, "REJECTS_BYTES", 1)


DISPOSITIONS = [{}, {"key": ()}, {"disposition": "replace"}]
MIXED = [{"id": 1}, {"id": 2, "v": 1}, "no object", {"id": 3, "v": "x"}, {"id": 4, "v": {}}, 5]


@pytest.mark.usefixtures("without_memory")
@pytest.mark.parametrize("declared", DISPOSITIONS, ids=["merge", "append", "replace"])
def test_a_page_that_is_stored_piece_by_piece_is_one_page(
    connection: Connection, query: Query, declared: dict[str, Any]
) -> None:
    pages = [MIXED, [{"id": 5, "v": True}, {"id": 6}]]
    load_pages(connection, *pages, max_rejects=2, **declared)
    assert query("select id, v #>> '{}' from raw_shop.items order by id") == [
        (1, None),
        (2, "1"),
        (3, "x"),
        (4, "{}"),
        (5, "true"),
        (6, None),
    ]
    assert query("select pages, extracted, inserted, rejected from elt.loads") == [(2, 8, 6, 2)]
    assert query("select record from elt.rejects order by record") == [('"no object"',), ("5",)]


@pytest.mark.usefixtures("without_memory")
@pytest.mark.parametrize("declared", DISPOSITIONS, ids=["merge", "append", "replace"])
def test_a_load_that_ends_within_a_page_stores_it_once_in_the_end(
    connection: Connection, query: Query, monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any]
) -> None:
    rows = [{"id": number} for number in range(20)]
    pages = [rows[:10], rows[10:]]
    real, calls = loading.Loader._free_memory, iter(range(99))

    def failing(load: Any) -> None:
        real(load)
        if next(calls) == 7:
            raise UnavailableError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(loading.Loader, "_free_memory", failing)
        with pytest.raises(UnavailableError):
            load_pages(connection, *pages, **declared)
    assert load_pages(connection, *pages, **declared).state == "succeeded"
    found = query("select id from raw_shop.items order by id")
    assert found == [(number,) for number in range(20)]


@pytest.mark.usefixtures("without_memory")
def test_a_page_goes_on_at_its_start(connection: Connection, query: Query) -> None:
    """The resume point of a page is that of its last piece."""
    api = MemoryApi([[{"id": 1}, {"id": 2}, {"id": 3}], [{"id": 4}]], fails_at=1)
    with pytest.raises(UnavailableError):
        load_api(connection, api, items())
    assert query(
        "select resume->>'url', inserted::int from elt.checkpoints join elt.loads using (load_id)"
    ) == [("1", 3)]
