"""Queries that find their way through an index return what a look at all entries does."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg2.extensions
import pytest
from conftest import IS_FULL
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from flows.dbt_build import history
from flows.dbt_build.history import RawTable
from flows.load import ledger, reject_log
from flows.load.ledger import Address
from flows.load.partition_lock import transaction
from flows.load.retention import delete_old
from tests.dbt_project.freshness_query import freshness_query

LEDGERS = 60 if IS_FULL else 12
RESOURCES = ("orders", "lines", "prices")
PARTITIONS = ("", "p", "q", "r")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Load:
    """One entry of the ledger, as far as queries look at it; its rejects are all open, or none."""

    load_id: int
    resource: str
    partition: str
    state: str
    is_group: bool
    is_backfill: bool
    replays: int | None
    inserted: int
    deleted: int
    rejected: int
    is_open: bool

    @property
    def is_regular(self) -> bool:
        return self.replays is None and not self.is_backfill

    @property
    def has_succeeded(self) -> bool:
        return self.state == "succeeded"

    @property
    def ended_at(self) -> datetime | None:
        """Loads end in the order of their start: those of one partition wait for each other."""
        return None if self.state == "running" else BEGIN + timedelta(minutes=self.load_id)


@dataclass(frozen=True)
class Ledger:
    """Entries in their order, and for each resource the load before its last reset."""

    loads: Sequence[Load]
    resets: dict[str, int]
    changes: Sequence[int]
    built: dict[str, int]

    def of(self, resource: str, is_since_reset: bool = False) -> list[Load]:
        """A resource's entries."""
        after = self.resets.get(resource, 0) if is_since_reset else 0
        return [each for each in self.loads if each.resource == resource and each.load_id > after]


def random_ledger(seed: int) -> Ledger:
    """A short history of three resources: of a few partitions, with groups, or of both kinds."""
    random = Random(seed)  # noqa: S311 (no secret)
    loads: list[Load] = []
    for load_id in range(1, random.choice([2, 8, 30, 80])):
        resource = random.choice(RESOURCES)
        kind = random.choices(["regular", "backfill", "replay"], [8, 1, 1])[0]
        replayed = [each for each in loads if each.resource == resource and each.rejected]
        origin = random.choice(replayed) if kind == "replay" and replayed else None
        partition = random.choice(PARTITIONS)
        is_stored = random.random() < 0.5
        loads.append(
            Load(
                load_id,
                resource,
                origin.partition if origin else partition + " w" * (kind == "backfill"),
                random.choices(["succeeded", "failed", "abandoned", "running"], [12, 4, 1, 1])[0],
                kind == "regular" and (resource, partition) == ("prices", ""),
                kind == "backfill",
                (origin.replays or origin.load_id) if origin else None,
                random.choice([0, 0, 3]) * is_stored,
                random.choice([0, 0, 2]) * is_stored,
                random.choice([0, 0, 0, 2]),
                random.random() < 0.3,
            )
        )
    numbers = [0, *(each.load_id for each in loads)]
    return Ledger(
        loads,
        {each: random.choice(numbers) for each in RESOURCES if random.random() < 0.3},
        random.sample(numbers[1:], min(len(loads), 2)),
        {each: random.choice(numbers) for each in RESOURCES if random.random() < 0.7},
    )


def fill(connection: Connection, given: Ledger) -> None:
    """Make the ledger of a database this one."""
    with transaction(connection) as cursor:
        ledger.prepare(cursor, "raw_shop")
        history.prepare(cursor)
        cursor.execute(
            "truncate elt.loads, elt.partitions, elt.checkpoints, elt.rejects, elt.schema_changes,"
            " elt.resets, elt.anomalies, dbt.built_tables"
        )
        execute_values(
            cursor,
            "insert into elt.loads (load_id, source, resource, partition, state, ended_at, replays,"
            " is_backfill, is_group, extracted, inserted, deleted, rejected)"
            " overriding system value values %s",
            [
                (
                    each.load_id, "shop", each.resource, each.partition, each.state, each.ended_at,
                    each.replays, each.is_backfill, each.is_group, each.inserted + each.rejected,
                    each.inserted, each.deleted, each.rejected,
                )
                for each in given.loads
            ],
        )  # fmt: skip
        cursor.execute(
            "insert into elt.rejects (load_id, reason, record)"
            " select load_id, 'is odd', '{}' from elt.loads, generate_series(1, rejected)"
        )
        closed = [each.load_id for each in given.loads if not each.is_open]
        cursor.execute(
            "update elt.rejects set replayed_by = load_id where load_id = any(%s)", [closed]
        )
        for resource, after in given.resets.items():
            cursor.execute(
                "insert into elt.resets (source, resource, after_load_id, reason)"
                " values ('shop', %s, %s, 'test')",
                [resource, after],
            )
        for load_id in given.changes:
            cursor.execute(
                "insert into elt.schema_changes (load_id, table_name, column_name, new_type)"
                " values (%s, 't', 'c', 'text')",
                [load_id],
            )
        for resource, load_id in given.built.items():
            cursor.execute(
                "insert into dbt.built_tables (source, resource, load_id) values ('shop', %s, %s)",
                [resource, load_id],
            )


@pytest.fixture(params=range(4))
def ledgers(request: pytest.FixtureRequest, connection: Connection) -> Iterable[Ledger]:
    """Random ledgers, each in the database while it is looked at."""
    part: int = request.param

    def filled() -> Iterable[Ledger]:
        for seed in range(part, LEDGERS, 4):
            given = random_ledger(seed)
            fill(connection, given)
            yield given

    return filled()


def regular_since_group(loads: Sequence[Load]) -> dict[str, list[Load]]:
    """The regular loads of each partition since the last group that succeeded, oldest first."""
    since = max((each.load_id for each in loads if each.is_group and each.has_succeeded), default=0)
    found: dict[str, list[Load]] = {}
    for each in loads:
        if each.is_regular and each.load_id >= since:
            found.setdefault(each.partition, []).append(each)
    return found


def is_complete(loads: Sequence[Load]) -> bool:
    return all(each[-1].has_succeeded for each in regular_since_group(loads).values())


def raw_table(given: Ledger, resource: str) -> RawTable:
    """The state of a raw table with a regular load."""
    loads = given.of(resource)
    changed = max((e.load_id for e in loads if e.inserted + e.deleted), default=0)
    reshaped = [each.load_id for each in loads if each.deleted or each.load_id in given.changes]
    reshaped_by = max(reshaped, default=0)
    built = given.built.get(resource)
    is_new = built is None
    return RawTable(
        "shop",
        resource,
        changed,
        is_complete(loads),
        is_new or built < max(changed, reshaped_by),
        is_new or built < reshaped_by,
    )


def incomplete(given: Ledger, resource: str, names: Iterable[str]) -> set[str]:
    loads = given.of(resource, is_since_reset=True)
    rejecting = {e.partition for e in given.of(resource) if e.is_open and e.rejected}
    found = regular_since_group(loads)
    has_group = any(each.is_group and each.has_succeeded for each in loads)
    return {
        name
        for name in names
        if name in rejecting or not (found[name][-1].has_succeeded if name in found else has_group)
    }


def fresh_at(given: Ledger, resource: str) -> datetime | None:
    """The end of the oldest of the partitions' last successes; None if one has none."""
    ends = [
        max((each.ended_at for each in loads if each.has_succeeded and each.ended_at), default=None)
        for loads in regular_since_group(given.of(resource)).values()
    ]
    return None if None in ends else min(filter(None, ends), default=None)


def test_raw_tables_of_builds(ledgers: Iterable[Ledger], connection: Connection) -> None:
    for given in ledgers:
        loaded = {each.resource for each in given.loads if each.is_regular}
        with transaction(connection) as cursor:
            found = history.raw_tables(cursor)
        assert found == [raw_table(given, resource) for resource in sorted(loaded)], given


def test_incomplete_partitions(ledgers: Iterable[Ledger], connection: Connection) -> None:
    for given in ledgers:
        for resource in RESOURCES:
            names = [*PARTITIONS, "never loaded"]
            with transaction(connection) as cursor:
                found = ledger.incomplete_partitions(cursor, "shop", resource, names)
            assert len(found) == len(set(found))
            assert set(found) == incomplete(given, resource, names), given


def test_what_was_loaded_since_a_reset(ledgers: Iterable[Ledger], connection: Connection) -> None:
    for given in ledgers:
        for resource in RESOURCES:
            loads = given.of(resource, is_since_reset=True)
            succeeded = [each for each in loads if each.has_succeeded]
            address = Address("shop", resource, "")
            with transaction(connection) as cursor:
                assert ledger.has_loaded(cursor, address) == any(e.inserted for e in succeeded)
                assert ledger.has_stored(cursor, address) == any(e.inserted for e in loads)
                windows = {each.partition for each in succeeded if each.is_backfill}
                assert ledger.backfilled(cursor, "shop", resource) == windows


def test_freshness(ledgers: Iterable[Ledger], connection: Connection) -> None:
    for given in ledgers:
        for resource in RESOURCES:
            with transaction(connection) as cursor:
                cursor.execute(freshness_query("shop", resource))
                assert cursor.fetchall() == [(fresh_at(given, resource),)], given


def test_open_rejects(ledgers: Iterable[Ledger], connection: Connection) -> None:
    for given in ledgers:
        for resource in RESOURCES:
            for partition in PARTITIONS:
                expected = {
                    each.replays or each.load_id
                    for each in given.of(resource)
                    if each.partition == partition and each.is_open and each.rejected
                }
                with transaction(connection) as cursor:
                    address = Address("shop", resource, partition)
                    assert reject_log.open_loads(cursor, address) == sorted(expected), given


def test_superseded_rejects(
    ledgers: Iterable[Ledger], connection: Connection, query: Callable[..., list[tuple[int, ...]]]
) -> None:
    for given in ledgers:
        last = given.loads[-1]
        with transaction(connection) as cursor:
            address = Address("shop", last.resource, last.partition)
            reject_log.supersede(cursor, address, last.load_id)
        still_open = {
            each.load_id
            for each in given.loads
            if each.is_open and each.rejected
            and (
                (each.resource, each.partition) != (last.resource, last.partition)
                or each.load_id >= last.load_id
            )
        }  # fmt: skip
        found = query("select distinct load_id from elt.rejects where replayed_by is null")
        assert {load_id for (load_id,) in found} == still_open, given


FEW_ROWS = 300
MANY_LOADS = """
insert into elt.loads
    (source, resource, partition, run_id, state, ended_at, extracted, inserted, is_group)
select
    's' || n % 2, 'r' || n % 3, case when n % 3 > 0 then 'p' || n % 5 else '' end, 'run' || n / 9,
    case when n % 50 = 7 then 'failed' else 'succeeded' end,
    now() - interval '1 minute' * (10000 - n), 1, 1, n % 3 = 0
from generate_series(1, 10000) as given (n)
"""


class Counting(psycopg2.extensions.cursor):
    """Adds up the rows of tables and indexes that statements look at."""

    rows = 0

    def execute(self, query: Any, arguments: Any = None) -> None:
        """Run the statement, and look at its plan."""
        text = self.mogrify(query, arguments).decode()
        super().execute("explain (analyze, format json) " + text)
        [(plan,)] = self.fetchall()
        self.rows += _rows_read(plan[0]["Plan"])
        super().execute(query, arguments)


def _rows_read(plan: dict[str, Any]) -> float:
    seen = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    own = seen * plan["Actual Loops"] if "Scan" in plan["Node Type"] else 0
    return float(own) + sum(map(_rows_read, plan.get("Plans", [])))


QUESTIONS: dict[str, Callable[[Cursor], object]] = {
    "raw tables": history.raw_tables,
    "freshness of partitions": lambda cursor: cursor.execute(freshness_query("s1", "r1")),
    "freshness of a group": lambda cursor: cursor.execute(freshness_query("s1", "r0")),
    "incomplete": lambda cursor: ledger.incomplete_partitions(cursor, "s1", "r1", ["p1", "p2"]),
    "retention": lambda cursor: delete_old(cursor, "s1", 400),
    "loaded since a reset": lambda cursor: ledger.has_loaded(cursor, Address("s1", "r1", "")),
    "stored since a reset": lambda cursor: ledger.has_stored(cursor, Address("s1", "r1", "")),
}


def test_many_loads_of_few_partitions_are_not_looked_at_one_by_one(connection: Connection) -> None:
    with transaction(connection) as cursor:
        ledger.prepare(cursor, "raw_shop")
        history.prepare(cursor)
        cursor.execute(MANY_LOADS)
        cursor.execute(
            "insert into elt.resets (source, resource, after_load_id, reason)"
            " values ('s1', 'r1', 9900, 'test')"
        )
        cursor.execute("analyze elt.loads")
    read: dict[str, float] = {}
    for question, ask in QUESTIONS.items():
        with connection, connection.cursor(cursor_factory=Counting) as counting:
            ask(counting)
            read[question] = counting.rows
    assert {each: rows for each, rows in read.items() if rows > FEW_ROWS} == {}
