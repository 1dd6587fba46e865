"""Promises about many partitions that are read side by side and committed in groups."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import ConfigurationError, EltError, NotFoundError, UnavailableError
from flows.extract.selectors import records_at
from flows.load import ledger, partition_reader, side_by_side
from flows.load.ledger import Address, Entry
from flows.load.loader import load
from flows.load.options import LoadOptions
from flows.load.partition_lock import transaction
from flows.load.partition_reader import ReadPages
from flows.load.partitions import partitions_of
from flows.load.replay import replay
from flows.load.side_by_side import load_side_by_side
from flows.page import Page, Resume
from flows.source import (
    Cursor,
    Disposition,
    FullList,
    Partition,
    Resource,
    RowsOf,
    Tombstones,
    Window,
)
from tests.load.memory_api import MemoryApi

Query = Callable[..., list[tuple[Any, ...]]]
Connect = Callable[[], Connection]

COUNT = 12
LINES = Resource(
    "lines",
    "orders/{order}/lines",
    records_at(),
    key=("order", "line"),
    partitions=RowsOf("orders", {"order": "id"}),
    partition_columns=("order",),
)
ORDERS = Resource("orders", "orders", records_at(), key=("id",))
LOADS = (
    "select partition, is_group, state, partitions, pages, extracted, inserted, updated, unchanged"
    " from elt.loads where resource = 'lines' order by load_id"
)
STORED = 'select "order", line, amount from raw_shop.lines order by 1, 2'
FULL = LoadOptions(full_refresh=True)


@dataclass
class Lines:
    """The API: two lines per order, on one page; `asked` lists what was read, in any order.

    Attributes:
        bodies: the pages of an order, if they are other ones.
        errors: what reading an order raises after its pages.
        before: called with the order before its pages are sent.
        pages_at_most: so many of an order's pages are sent at once.
    """

    bodies: dict[Any, list[Any]] = field(default_factory=dict)
    errors: dict[Any, EltError] = field(default_factory=dict)
    before: Callable[[Any], None] = lambda order: None
    pages_at_most: int = 99
    asked: list[tuple[Any, Window]] = field(default_factory=list)

    def read(self, partition: Partition, window: Window, resume: Resume | None) -> Iterator[Page]:
        order = partition.values["order"]
        self.asked.append((order, window))
        self.before(order)
        bodies = self.bodies.get(order, [[{"line": n, "amount": n} for n in (1, 2)]])
        start = int(resume.url or 0) if resume else 0
        for number in range(start, min(start + self.pages_at_most, len(bodies))):
            more = number + 1 < len(bodies) or order in self.errors
            following = Resume("0", str(number + 1), window.since) if more else None
            body = json.dumps(bodies[number]).encode()
            yield Page(body, f"page {number} of order {order}", resume=following)
        if order in self.errors:
            raise self.errors[order]

    @contextmanager
    def reader(self) -> Iterator[ReadPages]:
        yield self.read


@pytest.fixture
def connect(database: URL) -> Connect:
    return partial(psycopg2.connect, libpq(database))


def orders(count: int = COUNT) -> tuple[Partition, ...]:
    return tuple(Partition(str(n), {"order": n}) for n in range(count))


def load_lines(
    connect: Connect,
    api: Lines,
    resource: Resource = LINES,
    partitions: tuple[Partition, ...] | None = None,
    options: LoadOptions = LoadOptions(),  # noqa: B008 (never changed)
    requests_at_once: int = 3,
) -> tuple[list[Entry], list[EltError]]:
    given = orders() if partitions is None else partitions
    return load_side_by_side(
        connect, "shop", resource, given, api.reader, options, requests_at_once
    )


def meet(count: int) -> Callable[[Any], None]:
    """Let each thread wait until so many of them read."""
    together = threading.Barrier(count)

    def wait(order: Any) -> None:
        together.wait(30)

    return wait


def wanted(count: int = COUNT) -> list[tuple[int, int, int]]:
    return [(order, line, line) for order in range(count) for line in (1, 2)]


def test_small_partitions_are_one_entry_of_the_ledger(connect: Connect, query: Query) -> None:
    api = Lines()
    assert load_lines(connect, api)[1] == []
    assert query(STORED) == wanted()
    [group], errors = load_lines(connect, api)
    assert (group.load_id, group.partitions, group.unchanged, errors) == (2, 12, 24, [])
    assert query(LOADS) == [
        ("", True, "succeeded", 12, 12, 24, 24, 0, 0),
        ("", True, "succeeded", 12, 12, 24, 0, 0, 24),
    ]
    assert sorted(order for order, _ in api.asked) == sorted([*range(COUNT)] * 2)
    assert query("select count(*), count(distinct partition) from elt.checkpoints") == [(12, 12)]


def test_tombstones_mark_rows_of_a_group(connect: Connect, query: Query) -> None:
    marking = replace(LINES, deletes=Tombstones("gone"))
    load_lines(connect, Lines(), marking)
    gone = Lines(bodies={5: [[{"line": 2, "gone": True}]]})
    [group], errors = load_lines(connect, gone, marking)
    assert (group.updated, group.unchanged, group.deleted, errors) == (1, 22, 1, [])
    marked = 'select "order", line, amount from raw_shop.lines where _deleted_at is not null'
    assert query(marked) == [(5, 2, 2)]


@pytest.mark.parametrize(("left", "now_at"), [(0, 3), (3, 0)])
def test_the_tombstone_of_an_order_that_a_line_has_left_marks_nothing(
    connect: Connect, query: Query, left: int, now_at: int
) -> None:
    """Whichever is committed first, in one transaction and again in the next run."""
    moving = replace(
        LINES, key=("line",), key_is_global=True, deletes=Tombstones("gone"), partitions=orders(12)
    )
    empty = {number: [[]] for number in range(12)}
    line = {"line": 1, "amount": 5}
    load_lines(connect, Lines(bodies={**empty, left: [[line]]}), moving)
    moved = {left: [[{"line": 1, "gone": True}]], now_at: [[line]]}
    for _ in range(2):
        [group], errors = load_lines(connect, Lines(bodies={**empty, **moved}), moving)
        assert (group.deleted, errors) == (0, [])
        held = 'select "order", amount, _deleted_at is null from raw_shop.lines'
        assert query(held) == [(now_at, 5, True)]


def test_few_partitions_have_an_entry_each(connect: Connect, query: Query) -> None:
    load_lines(connect, Lines(), partitions=orders(4))
    assert query(STORED) == wanted(4)
    assert query("select count(*) from elt.loads where not is_group") == [(4,)]


@pytest.mark.parametrize("pages", [[], [[{"line": 1, "amount": 1}]]], ids=["first", "second"])
def test_a_partition_that_fails_has_its_own_entry_and_is_loaded_by_the_next_run(
    connect: Connect, query: Query, pages: list[Any]
) -> None:
    api = Lines(errors={5: NotFoundError("no order 5")}, bodies={5: pages})
    entries, errors = load_lines(connect, api)
    assert [str(error) for error in errors] == ["no order 5"]
    assert [entry.state for entry in entries] == ["failed"]
    [own] = query("select state, error from elt.loads where partition = '5'")
    assert own == ("failed", "no order 5")
    [group] = query("select state, partitions, error from elt.loads where is_group")
    assert group == ("failed", 11, "1 of them failed: see their own loads.")
    assert "5" in incomplete(connect)
    assert load_lines(connect, Lines())[1] == []
    assert query(STORED) == wanted()
    assert incomplete(connect) == []


def test_a_retry_of_a_run_reads_only_what_the_run_has_not_committed(
    connect: Connect, query: Query
) -> None:
    run, other = LoadOptions(run_id="first"), LoadOptions(run_id="second")
    load_lines(connect, Lines(errors={5: NotFoundError("no order 5")}), options=run)
    retried, later = Lines(), Lines()
    [group], errors = load_lines(connect, retried, options=run)
    assert ([order for order, _ in retried.asked], errors) == ([5], [])
    assert (group.state, group.partitions) == ("succeeded", 1)
    assert query(STORED) == wanted()
    assert incomplete(connect) == []
    load_lines(connect, later, options=other)
    assert len(later.asked) == COUNT


def test_a_retry_of_a_run_reads_children_again_whose_parent_has_changed_since(
    connect: Connect,
) -> None:
    run = LoadOptions(run_id="first")
    before = tuple(replace(each, parent_load_id=1) for each in orders())
    load_lines(connect, Lines(errors={5: NotFoundError("no order 5")}), LINES, before, run)
    retried = Lines()
    after = tuple(replace(each, parent_load_id=2 if each.name == "3" else 1) for each in before)
    load_lines(connect, retried, LINES, after, run)
    assert sorted(order for order, _ in retried.asked) == [3, 5]


def incomplete(connect: Connect) -> list[str]:
    names = [partition.name for partition in orders()]
    with closing(connect()) as connection, transaction(connection) as cursor:
        return ledger.incomplete_partitions(cursor, "shop", "lines", names)


def test_a_partition_with_rejects_has_its_own_entry_and_can_be_replayed(
    connect: Connect, query: Query
) -> None:
    bad = [{"line": 1, "amount": 1}, {"amount": 2}]
    strict = replace(LINES, max_rejects=1)
    _, errors = load_lines(connect, Lines(bodies={3: [bad]}), strict)
    assert errors == []
    assert query("select partition, extracted, rejected from elt.loads where rejected > 0") == [
        ("3", 2, 1)
    ]
    assert query("select count(*) from raw_shop.lines") == [(23,)]
    query('update elt.rejects set record = \'{"line": 2, "amount": 2}\'')
    replay(connect, "shop", strict, orders()[3])
    assert query(STORED) == wanted()


@pytest.mark.parametrize("refused", [{7}, {0, 11}, set(range(COUNT))], ids=str)
def test_what_postgres_refuses_keeps_no_other_partition_out(
    connect: Connect, query: Query, refused: set[int]
) -> None:
    """The parser takes any text for a date."""
    dated = replace(LINES, columns={"amount": "date"}, max_rejects=1)
    api = Lines(
        bodies={
            order: [
                [
                    {"line": 1, "amount": "2024-01-01"},
                    {"line": 2, "amount": "soon" if order in refused else "2024-01-02"},
                ]
            ]
            for order in range(COUNT)
        }
    )
    assert load_lines(connect, api, dated)[1] == []
    assert query('select "order" from raw_shop.lines where line = 2 order by 1') == [
        (order,) for order in range(COUNT) if order not in refused
    ]
    assert query("select count(*) from raw_shop.lines where line = 1") == [(COUNT,)]
    [counts] = query(
        "select sum(partitions), sum(extracted), sum(inserted), sum(rejected) from elt.loads"
    )
    assert counts == (COUNT, 2 * COUNT, 2 * COUNT - len(refused), len(refused))


def test_a_large_partition_is_loaded_on_its_own(
    connect: Connect, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages are not requested again."""
    monkeypatch.setattr(partition_reader, "SMALL_BYTES", 1000)
    large = [[{"line": 10 * p + n, "amount": n} for n in range(10)] for p in range(8)]
    api = Lines(bodies={4: large})
    assert load_lines(connect, api)[1] == []
    assert query("select partition, pages, inserted from elt.loads order by load_id") == [
        ("", 11, 22),
        ("4", 8, 80),
    ]
    assert [order for order, _ in api.asked].count(4) == 1


def test_a_partition_that_was_interrupted_resumes(connect: Connect, query: Query) -> None:
    eager = replace(LINES, checkpoint_rows=1)
    pages = [[{"line": n, "amount": n}] for n in (1, 2)]
    api = Lines(bodies={6: pages}, errors={6: UnavailableError("away")})
    _, errors = load_lines(connect, api, eager)
    assert [str(error) for error in errors] == ["away"]
    resumed = Lines(bodies={6: pages, 1: [[]]})
    assert load_lines(connect, resumed, eager)[1] == []
    assert query("select pages from elt.loads where partition = '6' order by load_id") == [
        (2,),
        (0,),
    ]


def test_a_partition_that_was_not_read_to_its_end_is_read_on_by_the_next_run(
    connect: Connect, query: Query
) -> None:
    """As `max_pages` leaves it: its last page leads on."""
    api = Lines(bodies={5: [[{"line": 1, "amount": 1}], [{"line": 2, "amount": 2}]]})
    api.pages_at_most = 1
    limited = replace(LINES, max_pages=1)
    assert load_lines(connect, api, limited)[1] == []
    assert (5, 2, 2) not in query(STORED)
    unread = "select partition from elt.checkpoints where resume is not null"
    assert query(unread) == [("5",)]
    query("update elt.checkpoints set saved_at = saved_at - interval '2 days'")
    assert load_lines(connect, api, limited)[1] == []
    assert query(STORED) == wanted()
    assert query(unread) == []


def test_an_api_that_is_down_ends_the_run_and_keeps_what_was_read(
    connect: Connect, query: Query
) -> None:
    api = Lines(errors={5: UnavailableError("down")})
    _, errors = load_lines(connect, api, partitions=orders(100), requests_at_once=1)
    assert [str(error) for error in errors] == ["down"]
    assert [order for order, _ in api.asked] == list(range(6))
    assert query(STORED) == wanted(5)


def test_a_bug_of_ours_ends_the_run_and_the_entry(connect: Connect, query: Query) -> None:
    def stumble(order: int) -> None:
        if order == 5:
            raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        load_lines(connect, Lines(before=stumble))
    assert query("select state, error from elt.loads where is_group") == [
        ("failed", "ZeroDivisionError: a bug")
    ]


def test_of_two_runs_at_once_the_second_fails_or_waits(connect: Connect, query: Query) -> None:
    second: list[Any] = []

    def start_another(order: int) -> None:
        if order == 0 and not second:
            second.append(None)
            with pytest.raises(UnavailableError, match=r"shop\.lines is being loaded by another"):
                load_lines(connect, Lines())

    assert load_lines(connect, Lines(before=start_another))[1] == []
    assert query(STORED) == wanted()
    assert query("select count(*) from elt.loads where is_group") == [(1,)]


def test_a_partition_that_another_session_loads_is_left_to_it(
    connect: Connect, query: Query
) -> None:
    with closing(connect()) as other, transaction(other) as cursor:
        ledger.prepare(cursor, "raw_shop")
        other.commit()
        ledger.lock(cursor, Address("shop", "lines", "2"))
        other.commit()
        _, errors = load_lines(connect, Lines())
    assert len(errors) == 1
    assert "shop.lines[2] is being loaded by another run" in str(errors[0])
    assert query(STORED) == [row for row in wanted() if row[0] != 2]


def test_rows_that_another_load_has_stored_meanwhile_are_not_replaced_by_older_ones(
    connect: Connect, query: Query
) -> None:
    """It reads the partition after this run did, and commits before it does."""
    newer = MemoryApi([[{"line": n, "amount": 10 * n} for n in (1, 2)]])

    def overtake(order: int) -> None:
        if order == 3:
            with closing(connect()) as connection:
                load(connection, "shop", LINES, orders()[1], newer)

    current = Lines(before=overtake)
    current.bodies[1] = [[{"line": n, "amount": n} for n in (1, 2)]]
    read_first = current.read

    def read(partition: Partition, window: Window, resume: Resume | None) -> Iterator[Page]:
        again = [order for order, _ in current.asked].count(1)
        if partition.values["order"] == 1 and again:
            current.bodies[1] = [[{"line": n, "amount": 10 * n} for n in (1, 2)]]
        yield from read_first(partition, window, resume)

    current.read = read  # type: ignore[method-assign]
    assert load_lines(connect, current, requests_at_once=1)[1] == []
    assert query('select amount from raw_shop.lines where "order" = 1 order by line') == [
        (10,),
        (20,),
    ]


@pytest.mark.parametrize("small_bytes", [0, 1 << 20], ids=["on its own", "in a group"])
def test_pages_that_were_read_before_another_load_are_read_again(
    connect: Connect, query: Query, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    """The other load commits newer rows while this one waits for its page."""
    monkeypatch.setattr(partition_reader, "SMALL_BYTES", small_bytes)
    old, new = ([{"line": n, "amount": factor * n} for n in (1, 2)] for factor in (1, 10))

    def overtake(order: int) -> None:
        if order == 1 and 1 not in api.bodies:
            api.bodies[1] = [new]
            with closing(connect()) as connection:
                load(connection, "shop", LINES, orders()[1], MemoryApi([new]))
            late.append(order)

    late: list[int] = []
    api = Lines()
    read = api.read

    def read_late(partition: Partition, window: Window, resume: Resume | None) -> Iterator[Page]:
        first = partition.values["order"] == 1 and not late
        pages = read(partition, window, resume)
        if first:
            overtake(1)
            yield Page(json.dumps(old).encode(), "an old page")
        else:
            yield from pages

    monkeypatch.setattr(api, "read", read_late)
    assert load_lines(connect, api, requests_at_once=1)[1] == []
    assert query('select amount from raw_shop.lines where "order" = 1 order by line') == [
        (10,),
        (20,),
    ]


def test_each_partition_has_its_own_cursor(connect: Connect, query: Query) -> None:
    dated = replace(LINES, cursor=Cursor("at"))
    bodies = {n: [[{"line": 1, "at": f"2024-01-{n + 1:02}"}]] for n in range(COUNT)}
    load_lines(connect, Lines(bodies=bodies), dated)
    again = Lines(bodies={n: [[]] for n in range(COUNT)})
    assert load_lines(connect, again, dated)[1] == []
    since = {order: window.since for order, window in again.asked}
    assert {order: at and at.day for order, at in since.items()} == {n: n + 1 for n in range(COUNT)}
    bare = Lines(bodies=bodies | {4: [[{"line": 1}]]})
    _, errors = load_lines(connect, bare, dated)
    assert "no record has the cursor field 'at'" in str(errors[0])


def test_a_raw_table_that_was_dropped_is_loaded_from_the_start(
    connect: Connect, query: Query
) -> None:
    dated = replace(LINES, cursor=Cursor("at"))
    api = Lines(bodies={n: [[{"line": 1, "at": "2024-01-01"}]] for n in range(COUNT)})
    load_lines(connect, api, dated)
    query("drop table raw_shop.lines")
    api.asked.clear()
    assert load_lines(connect, api, dated)[1] == []
    assert {window.since for _, window in api.asked} == {None}
    assert query("select count(*) from raw_shop.lines") == [(COUNT,)]


def test_a_contract_holds_in_a_group(connect: Connect, query: Query) -> None:
    frozen = replace(LINES, contract="freeze")
    assert load_lines(connect, Lines(), frozen)[1] == []
    surprise = Lines(bodies={8: [[{"line": 1, "amount": 5, "new": "x"}]]})
    _, errors = load_lines(connect, surprise, frozen)
    assert 'the new column "new" (text)' in str(errors[0])
    assert query("select partition from elt.loads where state = 'failed' and not is_group") == [
        ("8",)
    ]


def test_a_value_of_a_partition_that_its_column_would_change_is_rejected_in_a_group_too(
    connect: Connect, query: Query
) -> None:
    """Cut to their date, two partitions would become one: each would replace the other's rows."""
    times = [f"2026-04-0{day}" for day in range(1, 5)]
    times += ["2026-04-05T10:00:00", "2026-04-05T11:00:00"]
    partitions = tuple(Partition(at, {"order": at}) for at in times)
    lines = replace(LINES, partitions=partitions, columns={"order": "date"}, max_rejects=2)
    assert load_lines(connect, Lines(), lines, partitions, requests_at_once=1)[1] == []
    assert query('select "order"::text, count(*) from raw_shop.lines group by 1 order by 1') == [
        (at, 2) for at in times[:4]
    ]
    assert query("select count(*) from elt.rejects") == [(4,)]


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"disposition": "replace"}, LoadOptions()),
        ({"disposition": "append", "key": ()}, LoadOptions()),
        ({}, FULL),
    ],
    ids=["replace", "append", "full_refresh"],
)
def test_what_is_not_merged_is_loaded_side_by_side_with_an_entry_each(
    connect: Connect, query: Query, changes: dict[str, Any], options: LoadOptions
) -> None:
    declared = replace(LINES, **changes)
    assert load_lines(connect, Lines(), declared, orders(6), options)[1] == []
    met = Lines(before=meet(3))
    assert load_lines(connect, met, declared, orders(6), options)[1] == []
    assert query("select count(*) from elt.loads where not is_group") == [(12,)]


def test_partitions_are_read_at_the_same_time(connect: Connect, query: Query) -> None:
    """Each waits for three others: one thread more than requests at once, to parse meanwhile."""
    met = Lines(before=meet(4))
    assert load_lines(connect, met, requests_at_once=3)[1] == []
    assert query(STORED) == wanted()


def test_many_partitions_are_planned_and_committed_in_parts(
    connect: Connect, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_by_side, "GROUP_PARTITIONS", 7)
    monkeypatch.setattr(side_by_side, "PLANNED_AT_ONCE", 10)
    assert load_lines(connect, Lines(), partitions=orders(95))[1] == []
    assert query(STORED) == wanted(95)
    assert query(LOADS) == [("", True, "succeeded", 95, 95, 190, 190, 0, 0)]


@pytest.mark.parametrize("count", [3, 6], ids=["few", "a group"])
@pytest.mark.parametrize("disposition", ["merge", "replace"])
def test_only_children_of_changed_parents_are_read(
    connect: Connect,
    connection: Connection,
    query: Query,
    disposition: Disposition,
    count: int,
) -> None:
    parents = RowsOf("orders", {"order": "id"}, changed_only=True)
    lines = replace(LINES, partitions=parents, disposition=disposition)

    def read(*states: str, api: Lines | None = None, **given: Any) -> list[int]:
        rows = [{"id": number, "state": state} for number, state in enumerate(states)]
        load(connection, "shop", ORDERS, Partition(), MemoryApi([rows]))
        given_api = api or Lines()
        found = partitions_of(connection, "shop", lines)
        load_lines(connect, given_api, lines, found, **given)
        return sorted(order for order, _ in given_api.asked)

    states = ["new"] * count
    failing = Lines(errors={2: NotFoundError("no order 2")})
    assert read(*states, api=failing) == [*range(count)]
    assert read(*states) == [2]
    assert read(*states) == []
    states[1] = "paid"
    assert read(*states, "new") == [1, count]
    assert read(*states, "new", options=FULL) == [*range(count + 1)]
    assert read(*states, "new") == []
    query("truncate raw_shop.lines")
    assert read(*states, "new") == [*range(count + 1)]


def test_a_full_list_with_rejects_is_due_again(connect: Connect, query: Query) -> None:
    """It marked nothing, so what is missing from it is still to be marked."""
    lines = replace(LINES, deletes=FullList(), max_rejects=1)
    changed = tuple(replace(each, parent_load_id=1) for each in orders(1))
    load_lines(connect, Lines(), lines, orders(1))
    first, lost = {"line": 1, "amount": 0}, {"amount": 0}
    load_lines(connect, Lines(bodies={0: [[first, lost]]}), lines, changed)
    unmarked = "select count(*) from raw_shop.lines where _deleted_at is null"
    assert query(unmarked) == [(2,)]
    api = Lines(bodies={0: [[first]]})
    for _ in range(2):
        load_lines(connect, api, lines, changed)
        assert query(unmarked) == [(1,)]
    assert len(api.asked) == 1


@pytest.mark.parametrize("count", [3, 6], ids=["few", "a group"])
def test_a_partition_with_too_many_rejects_is_due_again(connect: Connect, count: int) -> None:
    finals = tuple(Partition(str(n), {"order": n}, is_final=True) for n in range(count))
    for _ in range(2):
        api = Lines(bodies={1: [[{"amount": 1}]]})
        _, errors = load_lines(connect, api, partitions=finals)
        assert "could not be stored" in str(errors[0])
    assert [order for order, _ in api.asked] == [1]


@pytest.mark.parametrize("count", [3, 6], ids=["few", "a group"])
def test_a_final_partition_is_loaded_successfully_once(connect: Connect, count: int) -> None:
    """The last one is not final yet."""

    def read(*finals: bool, api: Lines | None = None, **given: Any) -> list[int]:
        found = tuple(
            Partition(str(n), {"order": n}, is_final=is_final) for n, is_final in enumerate(finals)
        )
        given_api = api or Lines()
        load_lines(connect, given_api, partitions=found, **given)
        return sorted(order for order, _ in given_api.asked)

    finals = [True] * (count - 1) + [False]
    everything = [*range(count)]
    assert read(*finals, api=Lines(errors={1: NotFoundError("no file yet")})) == everything
    assert read(*finals) == [1, count - 1]
    assert read(*finals) == [count - 1]
    assert read(*[True] * count) == [count - 1]
    assert read(*[True] * count) == []
    assert read(*[True] * count, options=FULL) == everything


def test_parents_are_chosen_by_their_columns(connection: Connection) -> None:
    rows = [
        {"id": 1, "state": "open", "size": 3},
        {"id": 2, "state": "paid", "size": 3},
        {"id": 3, "state": "sent", "size": 4},
        {"id": 4, "state": None, "size": 5},
    ]
    load(connection, "shop", ORDERS, Partition(), MemoryApi([rows]))

    def chosen(**where: Any) -> list[str]:
        lines = replace(LINES, partitions=RowsOf("orders", {"order": "id"}, where))
        return [partition.name for partition in partitions_of(connection, "shop", lines)]

    assert chosen() == ["1", "2", "3", "4"]
    assert chosen(state="paid") == ["2"]
    assert chosen(state=("open", "sent")) == ["1", "3"]
    assert chosen(state=["open", None]) == ["1", "4"]
    assert chosen(state=["open", "paid"], size=3) == ["1", "2"]
    assert chosen(state="x' or true --") == []


def test_a_condition_that_no_parent_can_meet_is_refused(connection: Connection) -> None:
    with pytest.raises(ConfigurationError, match="`where` allows no value of 'state'"):
        RowsOf("orders", {"order": "id"}, {"state": []})
    load(connection, "shop", ORDERS, Partition(), MemoryApi([[{"id": 1}]]))
    lines = replace(LINES, partitions=RowsOf("orders", {"order": "id"}, {"stat": "open"}))
    with pytest.raises(ConfigurationError, match=r"stat of shop\.orders, whose raw table only has"):
        partitions_of(connection, "shop", lines)
