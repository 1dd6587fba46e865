"""Promises of a replay: rejects are loaded after a fix, once, and nothing else changes."""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.dbt_build import history
from flows.errors import BadPayloadError, ConfigurationError, UnavailableError
from flows.extract.selectors import records_at
from flows.load import ledger, reject_log
from flows.load import replay as replaying
from flows.load.ledger import Address, Entry
from flows.load.options import LoadOptions
from flows.load.replay import replay
from flows.source import Cursor, Job, Partition
from tests.load.memory_api import (
    EVERYTHING,
    WAYS,
    WHOLE,
    MemoryApi,
    in_python,
    items,
    load_api,
    load_pages,
)

Query = Callable[..., list[tuple[Any, ...]]]
Connect = Callable[[], Connection]

ROWS = "select id, v from raw_shop.items order by id, v"
REJECTS = "select load_id, replayed_by, record from elt.rejects order by reject_id"
OPEN = "select load_id, reason, record from elt.rejects where replayed_by is null order by 1, 3"
STATES = "select state, replays, extracted, rejected from elt.loads order by load_id"
CHECKPOINTS = (
    "select cursor_at, cursor_seen_at, resume::text, window_until, load_id from elt.checkpoints"
)

BAD = {"columns": {"v": "date"}, "max_rejects": 100}
GOOD = {"columns": {"v": "text"}}


@pytest.fixture
def connect(database: URL) -> Connect:
    return lambda: psycopg2.connect(libpq(database))


def replay_items(
    connect: Connect,
    options: LoadOptions = EVERYTHING,
    partition: Partition = WHOLE,
    **changes: Any,
) -> list[Entry]:
    """Replay `raw_shop.items`; whatever it is, no record may be unaccounted for."""
    entries = replay(connect, "shop", items(**changes), partition, options)
    for entry in entries:
        assert entry.extracted == (
            entry.inserted + entry.updated + entry.unchanged + entry.rejected
        )
    return entries


FIXES = [
    pytest.param(BAD, {"v": "soon"}, GOOD, id="a pin of another type"),
    pytest.param(
        {"columns": {"v": "numeric(3,1)"}}, {"v": 123}, {"columns": {"v": "numeric(5,1)"}},
        id="a pin with more room",
    ),
    pytest.param({"columns": {"v": "bigint"}}, {"v": 1.5}, {}, id="no pin any more"),
    pytest.param({"contract": "quarantine"}, {"w": 1}, {"contract": "evolve"}, id="evolve"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "record", "after"), FIXES)
@pytest.mark.parametrize("disposition", ["merge", "append", "replace"])
def test_after_a_fix_a_replay_loads_what_was_set_aside(
    connection: Connection,
    connect: Connect,
    query: Query,
    before: dict[str, Any],
    record: dict[str, Any],
    after: dict[str, Any],
    disposition: str,
) -> None:
    declared = {"disposition": disposition, "max_rejects": 1}
    load_pages(connection, [{"id": 1, "v": None}], **declared | before)
    pages = [[{"id": 1, "v": None}], [{"id": 2, **record}], [{"id": 3}]]
    load_pages(connection, *pages[disposition == "append" :], **declared | before)
    if after == {}:
        query("alter table raw_shop.items alter v type double precision")
    assert query(REJECTS) == [(2, None, json.dumps({"id": 2, **record}))]
    [entry] = replay_items(connect, **declared | after)
    assert (entry.state, entry.extracted, entry.inserted) == ("succeeded", 1, 1)
    [field] = record
    stored = query("select to_jsonb(items) -> %s from raw_shop.items order by id", field)
    assert stored == [(None,), (record[field],), (None,)]
    assert query(REJECTS) == [(2, entry.load_id, json.dumps({"id": 2, **record}))]
    assert query("select replays from elt.loads where load_id = %s", entry.load_id) == [(2,)]


def test_a_record_that_was_mended_by_hand_is_replayed(
    connection: Connection, connect: Connect, query: Query
) -> None:
    r"""A record that no declaration can store, like `\u0000`, is fixed in place."""
    load_pages(connection, rb'[{"id": 1, "v": "a\u0000b"}]', max_rejects=1)
    with pytest.raises(BadPayloadError):
        replay_items(connect)
    query(
        r"update elt.rejects set record = replace(record, '\u0000', '') where replayed_by is null"
    )
    assert replay_items(connect)[0].inserted == 1
    assert query(ROWS) == [(1, "ab")]


def test_what_is_rejected_again_stays_with_its_new_reason_and_can_be_replayed_later(
    connection: Connection, connect: Connect, query: Query
) -> None:
    load_pages(connection, [{"id": 1}, {"id": 2, "v": "soon"}, {"id": 3, "v": "4"}], **BAD)
    narrower = {"columns": {"v": "bigint"}, "contract": "evolve"}
    with pytest.raises(BadPayloadError, match="1 records could not be stored") as failure:
        replay_items(connect, **narrower)
    assert 'bigint: "soon"' in str(failure.value)
    assert query(ROWS) == [(1, None), (3, 4)]
    [(load_id, reason, record)] = query(OPEN)
    assert (load_id, record) == (2, '{"id": 2, "v": "soon"}')
    assert "bigint" in reason
    [entry] = replay_items(connect, **GOOD)
    assert (entry.load_id, entry.inserted) == (3, 1)
    assert query(ROWS) == [(1, None), (2, "soon"), (3, "4")]
    assert query("select load_id, replayed_by from elt.rejects order by reject_id") == [
        (1, 2), (1, 2), (2, 3),
    ]  # fmt: skip
    assert query(STATES) == [
        ("succeeded", None, 3, 2), ("failed", 1, 2, 1), ("succeeded", 1, 1, 0),
    ]  # fmt: skip


def test_a_reject_that_stays_keeps_no_other_loads_from_being_replayed(
    connection: Connection, connect: Connect, query: Query
) -> None:
    load_pages(connection, [{"id": 0}, ["never"]], **BAD)
    load_pages(connection, [{"id": 2, "v": "soon"}], **BAD)
    with pytest.raises(BadPayloadError, match=r"is \[\"never\"\], not an object"):
        replay_items(connect, **GOOD)
    assert query(ROWS) == [(0, None), (2, "soon")]
    assert [record for _, _, record in query(OPEN)] == ['["never"]']


def test_too_many_misfits_are_a_configuration_error_and_stay_rejected(
    connection: Connection, connect: Connect, query: Query
) -> None:
    load_pages(connection, [{"id": n, "v": "x"} for n in range(150)], **{**BAD, "max_rejects": 150})
    with pytest.raises(ConfigurationError, match="101 records can't be stored"):
        replay_items(connect, columns={"v": "bigint"})
    assert len(query(OPEN)) == 150
    assert replay_items(connect, **GOOD)[0].inserted == 150


def test_a_row_that_a_later_load_wrote_is_not_overwritten(
    connection: Connection, connect: Connect, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": "soon"}, {"id": 2, "v": "soon"}], **BAD)
    load_pages(connection, [{"id": 1, "v": "later"}], **GOOD)
    [entry] = replay_items(connect, **GOOD)
    assert (entry.inserted, entry.unchanged) == (1, 1)
    assert query(ROWS) == [(1, "later"), (2, "soon")]


def test_a_row_that_an_earlier_load_wrote_is_overwritten(
    connection: Connection, connect: Connect, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": "2024-01-01"}], **BAD)
    load_pages(connection, [{"id": 1, "v": "soon"}], **BAD)
    [entry] = replay_items(connect, **GOOD)
    assert (entry.updated, entry.unchanged) == (1, 0)
    assert query(ROWS) == [(1, "soon")]


@pytest.mark.parametrize("replays", [1, 2], ids=["in one replay", "in two replays"])
def test_the_last_of_several_rejects_with_one_key_wins(
    connection: Connection, connect: Connect, query: Query, replays: int
) -> None:
    """A replay's rows are as old as the load that it replays, not as the replay."""
    pinned = {"columns": {"v": "date"}, "max_rejects": 2}
    load_pages(connection, [{"id": 1, "v": "first"}, {"id": 1, "v": "second"}], **pinned)
    if replays == 2:
        replay_items(connect, **GOOD)
        assert query(ROWS) == [(1, "second")]
        query("alter table raw_shop.items alter v type date using null")
    load_pages(connection, [{"id": 1, "v": "third"}], **pinned)
    replay_items(connect, **GOOD)
    assert query(ROWS) == [(1, "third")]


def test_an_old_reject_does_not_overwrite_what_a_newer_one_became(
    connection: Connection, connect: Connect, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": "old"}, {"id": 9}], **BAD)
    load_pages(connection, [{"id": 1, "v": "1"}], **BAD)
    with pytest.raises(BadPayloadError):
        replay_items(connect, columns={"v": "bigint"})
    assert query(ROWS) == [(1, 1), (9, None)]
    replay_items(connect, **GOOD)
    assert query(ROWS) == [(1, "1"), (9, None)]


def test_append_gets_each_reject_once(
    connection: Connection, connect: Connect, query: Query
) -> None:
    keyless = {"key": ()}
    for _ in range(2):
        load_pages(connection, [{"id": 1, "v": "2024-01-01"}, {"id": 2, "v": "x"}], **BAD | keyless)
    assert [entry.inserted for entry in replay_items(connect, **GOOD | keyless)] == [1, 1]
    assert replay_items(connect, **GOOD | keyless) == []
    assert query(ROWS) == [(1, "2024-01-01")] * 2 + [(2, "x")] * 2


def test_append_with_too_many_rejects_moves_its_cursor_since_its_rows_are_there(
    connection: Connection, connect: Connect, query: Query
) -> None:
    """Requesting them again would duplicate them; the others are replayed."""
    start = datetime(2024, 3, 1, tzinfo=UTC)
    declared = {"key": (), "cursor": Cursor("at", start=start, step=timedelta(days=5000))}
    api = MemoryApi([[{"id": 1, "v": "2024-01-01"}, {"id": 2, "v": "soon"}]])
    with pytest.raises(BadPayloadError):
        load_api(connection, api, items(**declared, columns={"v": "date"}))
    api.pages = []
    load_api(connection, api, items(**declared, columns={"v": "date"}))
    (first, _), (second, _) = api.asked
    assert second.since == first.until
    replay_items(connect, **declared | GOOD)
    assert query(ROWS) == [(1, "2024-01-01"), (2, "soon")]


@pytest.mark.parametrize("key", [("id",), ()], ids=["keyed", "keyless"])
@pytest.mark.parametrize("anew", ["replace", "full_refresh"])
def test_what_a_later_replace_read_anew_is_not_replayed(
    connection: Connection, connect: Connect, query: Query, key: tuple[str, ...], anew: str
) -> None:
    """Its table holds what the API has now: an older record would be a second or a deleted one."""
    declared = {"key": key, **({"disposition": "replace"} if anew == "replace" else {})}
    load_pages(connection, [{"id": 1, "v": "x"}, {"id": 2, "v": "x"}], **BAD | declared)
    options = LoadOptions(full_refresh=anew == "full_refresh")
    load_pages(connection, [{"id": 1, "v": "y"}], options=options, **GOOD | declared)
    assert replay_items(connect, **GOOD | declared) == []
    assert query(ROWS) == [(1, "y")]
    assert {replayed_by for _, replayed_by, _ in query(REJECTS)} == {2}


def test_a_replace_that_fails_leaves_older_rejects_open(
    connection: Connection, connect: Connect, query: Query
) -> None:
    declared = {"disposition": "replace"}
    load_pages(connection, [{"id": 1, "v": "x"}], **BAD | declared)
    with pytest.raises(UnavailableError):
        load_api(connection, MemoryApi([[], []], fails_at=1), items(**GOOD | declared))
    assert replay_items(connect, **GOOD | declared)[0].inserted == 1


def test_partitions_are_replayed_on_their_own_with_their_own_columns(
    connection: Connection, connect: Connect, query: Query
) -> None:
    cities = tuple(Partition(name, {"city": name}) for name in ("Bonn", "Oslo"))
    declared: dict[str, Any] = {
        "key": ("city", "id"),
        "partitions": cities,
        "partition_columns": ("city",),
    }
    for city in cities:
        load_pages(connection, [{"id": 1, "v": city.name}], partition=city, **BAD | declared)
    [entry] = replay_items(connect, partition=cities[1], **GOOD | declared)
    assert str(entry.address) == "shop.items[Oslo]"
    assert query("select city, id, v from raw_shop.items") == [("Oslo", 1, "Oslo")]
    assert query(OPEN)[0][2] == '{"id": 1, "v": "Bonn"}'


SPACED = '{ "id" : 7,\t"v": %s, "v": %s }'
TEXTS = [
    pytest.param(SPACED % ("1", "1e999"), "", "utf-8", id="beyond double"),
    pytest.param(SPACED % ("1", r'"\u0000"'), "", "utf-8", id="NUL"),
    pytest.param(SPACED % (r'"\uD83D\ude00"', r'"\ud800 \\ud800"'), "", "utf-8", id="half a pair"),
    pytest.param(SPACED % (r'"\ue800"', r'"\u0000"'), "", "utf-8", id="what masks a half"),
    pytest.param(SPACED % ("1.10", '"soon"'), "", "utf-8", id="a misfit"),
    pytest.param(SPACED % ("0.10000000000000000001", "[1.0]"), "", "utf-8", id="a nested misfit"),
    pytest.param(SPACED % ("1", "1e999"), "", "utf-16", id="UTF-16"),
    pytest.param(SPACED % ("1", '"ö"'), "", "utf-16", id="a misfit in UTF-16"),
    pytest.param(SPACED % ("1", "1e999"), "", "utf-8-sig", id="with a byte order mark"),
    pytest.param(SPACED % ("1", r'"\ud800"'), "a.b", "utf-8", id="half a pair under a path"),
    pytest.param(SPACED % ("1", "7" * 5000), "a.b", "utf-8", id="digits beyond Python"),
]


@pytest.mark.parametrize(("record", "path", "encoding"), TEXTS)
def test_a_reject_is_kept_as_it_was_sent_also_when_it_is_rejected_again(
    connection: Connection, connect: Connect, query: Query, record: str, path: str, encoding: str
) -> None:
    text = f'[{{"id": 1, "v": null}}, {record},\n{{"id": 2}}]'
    for name in reversed(path.split(".") if path else []):
        text = f'{{"x": [1], "{name}": {text}}}'
    declared = {"records": records_at(path), "columns": {"v": "date"}, "max_rejects": 1}
    load_pages(connection, text.encode(encoding), **declared)
    assert query("select record from elt.rejects") == [(record,)]
    assert replay_items(connect, **declared)[0].rejected == 1
    assert [kept for _, _, kept in query(REJECTS)] == [record, record]
    assert query("select id from raw_shop.items order by id") == [(1,), (2,)]


def test_a_misfit_of_the_fast_way_is_kept_as_it_was_sent(
    connection: Connection, query: Query
) -> None:
    """There all values of a column are of one type: the 1 is a 1.0."""
    body = b'[{"id":1, "f":0.5, "v":"2024-01-01"}, {"id":2,  "f":1, "v":"soon"}]'
    load_pages(connection, body, **BAD)
    assert query("select record from elt.rejects") == [('{"id":2,  "f":1, "v":"soon"}',)]


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        pytest.param('{"id":2, "v":"soon"}', '{"id": 2, "v": "soon"}', id="a misfit"),
        pytest.param('{"id":2, "v":-1e999}', '{"id": 2, "v": -1e999}', id="beyond double"),
        pytest.param(r'{"id":2, "v":"\uD800"}', r'{"id": 2, "v": "\ud800"}', id="half a pair"),
        pytest.param('{"id":2, "v":"1e999\ud800"}', r'{"id": 2, "v": "1e999\ud800"}', id="byte"),
    ],
)  # fmt: skip
def test_what_a_function_of_the_sources_own_returned_is_kept_as_json_says_it(
    connection: Connection, connect: Connect, query: Query, record: str, kept: str
) -> None:
    """A replay stores it as it is: the function is not called again."""
    body = f'{{"first": {{"id": 1}}, "second": {record}}}'.encode(errors="surrogatepass")
    declared = BAD | {"records": lambda page: list(page.document.values())}
    load_pages(connection, body, **declared)
    replay_items(connect, **declared)
    assert [text for _, _, text in query(REJECTS)] == [kept, kept]


@pytest.mark.parametrize("key", [("id",), ()], ids=["merge", "append"])
@pytest.mark.parametrize("checkpoint", [1, 2, 3])
def test_a_replay_that_is_killed_resumes_and_loads_each_reject_once(
    connection: Connection,
    connect: Connect,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
    key: tuple[str, ...],
    checkpoint: int,
) -> None:
    """Its session ends before a checkpoint is committed. The first reject is never stored."""
    monkeypatch.setattr(replaying, "REJECTS_A_PAGE", 2)
    page = [{"id": n, "v": "soon"} for n in range(5)]
    load_pages(connection, [{"id": 9, "v": None}, "never", *page], **BAD | {"key": key})
    opened: list[Connection] = []
    marks: list[int] = []
    real = reject_log.mark_replayed

    def remembered() -> Connection:
        opened.append(connect())
        return opened[-1]

    def deadly(*arguments: Any) -> None:
        real(*arguments)
        marks.append(1)
        if len(marks) == checkpoint:
            query("select pg_terminate_backend(%s, 10000)", opened[0].info.backend_pid)

    monkeypatch.setattr(reject_log, "mark_replayed", deadly)
    declared = GOOD | {"key": key, "max_rejects": 1}
    with pytest.raises(UnavailableError, match="Postgres went away"):
        replay_items(remembered, **declared)
    done = len(query(ROWS)) - 1
    assert done == max(2 * (checkpoint - 1) - 1, 0)
    assert len(query(OPEN)) == 6 - done
    [entry] = replay_items(connect, **declared)
    assert (entry.inserted, entry.rejected) == (5 - done, 1)
    assert query(ROWS) == [*((n, "soon") for n in range(5)), (9, None)]
    assert [record for _, _, record in query(OPEN)] == ['"never"']
    assert query("select state from elt.loads order by load_id") == [
        ("succeeded",), ("abandoned",), ("succeeded",),
    ]  # fmt: skip


def test_what_a_killed_replay_set_aside_again_is_not_lost(
    connection: Connection, connect: Connect, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "REJECTS_A_PAGE", 1)
    load_pages(connection, [{"id": 0}, "never", {"id": 1, "v": "soon"}], **BAD)
    real = ledger.end

    def dying(cursor: Any, load_id: int, state: str, *rest: Any) -> None:
        if state == "succeeded":
            raise psycopg2.OperationalError("the server closed the connection")
        real(cursor, load_id, state, *rest)

    monkeypatch.setattr(ledger, "end", dying)
    with pytest.raises(UnavailableError):
        replay_items(connect, **GOOD, max_rejects=1, checkpoint_seconds=0)
    monkeypatch.undo()
    assert [record for _, _, record in query(OPEN)] == ['"never"']
    assert replay_items(connect, **GOOD, max_rejects=1)[0].rejected == 1
    assert query(ROWS) == [(0, None), (1, "soon")]


def test_more_rejects_than_a_page_are_replayed_in_pages(
    connection: Connection, connect: Connect, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "REJECTS_A_PAGE", 7)
    load_pages(connection, [{"id": n, "v": "soon"} for n in range(50)], **BAD)
    [entry] = replay_items(connect, **GOOD, checkpoint_rows=20)
    assert (entry.pages, entry.inserted) == (8, 50)
    assert query(OPEN) == []


def test_a_replay_moves_neither_the_cursor_nor_the_resume_point(
    connection: Connection, connect: Connect, query: Query
) -> None:
    dated = {"cursor": Cursor("at", lookback=timedelta(days=1))}
    api = MemoryApi(
        [
            [{"id": 1, "at": "2024-03-01"}, {"id": 2, "v": "soon", "at": "2024-03-09"}],
            [{"id": 3, "at": "2024-03-02"}],
        ]
    )
    load_api(connection, MemoryApi(api.pages), items(**BAD | dated))
    with pytest.raises(UnavailableError):
        load_api(connection, MemoryApi(api.pages, fails_at=1), items(**BAD | dated))
    before = query(CHECKPOINTS)
    assert [entry.inserted for entry in replay_items(connect, **GOOD | dated)] == [1, 0]
    assert query(CHECKPOINTS) == before
    load_api(connection, api, items(**GOOD | dated))
    assert api.asked[0][1] is not None


@pytest.mark.parametrize("fails_at", [None, 1])
def test_a_replay_makes_no_table_complete_and_a_complete_one_stale(
    connection: Connection, connect: Connect, fails_at: int | None
) -> None:
    load_pages(connection, [{"id": 1, "v": "soon"}], **BAD)
    try:
        load_api(connection, MemoryApi([[], []], fails_at=fails_at), items(**BAD))
    except UnavailableError:
        assert fails_at is not None
    replay_items(connect, **GOOD)
    with connection, connection.cursor() as cursor:
        history.prepare(cursor)
        [table] = history.raw_tables(cursor)
    assert (table.is_complete, table.is_stale, table.load_id) == (fails_at is None, True, 3)


@pytest.mark.parametrize("is_loaded", [False, True], ids=["a new database", "no rejects"])
def test_a_replay_of_nothing_does_nothing(
    connection: Connection, connect: Connect, query: Query, is_loaded: bool
) -> None:
    if is_loaded:
        load_pages(connection, [{"id": 1}])
    assert replay_items(connect) == []
    assert query("select count(*) from elt.loads") == [(is_loaded,)]


def test_a_replay_beside_a_load_is_unavailable_and_leaves_all_as_it_is(
    connection: Connection, connect: Connect, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": "soon"}], **BAD)
    with closing(connect()) as other:
        with other, other.cursor() as cursor:
            ledger.lock(cursor, Address("shop", "items", ""))
        with pytest.raises(UnavailableError, match="another run"):
            replay_items(connect, **GOOD)
    assert query(STATES) == [("succeeded", None, 1, 1)]
    assert replay_items(connect, **GOOD)[0].inserted == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_replay_into_no_table_yet_creates_it(
    connection: Connection, connect: Connect, query: Query, way: str
) -> None:
    """All records of the first load were rejected."""
    load_pages(connection, [{"id": 1, "v": "soon"}], **BAD, records=WAYS[way])
    replay_items(connect, **GOOD, records=in_python)
    assert query(ROWS) == [(1, "soon")]


@pytest.mark.parametrize(
    "declared",
    [
        {"params": {"since": "{since}"}},
        {"headers": {"If-Modified-Since": "{since}"}},
        {"method": "POST", "body": {"since": "{since}"}},
        {"method": "POST", "body": {"since": "{since}"}, "sends": "form"},
        {"job": Job("jobs/{id}"), "params": {"since": "{since}"}},
    ],
    ids=str,
)
def test_a_replay_needs_nothing_that_requests_name(
    connection: Connection, connect: Connect, query: Query, declared: dict[str, Any]
) -> None:
    load_pages(connection, [{"id": 1, "v": "soon"}], **BAD)
    replay_items(connect, **GOOD, cursor=Cursor("at"), **declared)
    assert query(ROWS) == [(1, "soon")]
