"""Promises about old entries of the ledger: which are deleted, and what their loss changes."""

from collections.abc import Callable
from typing import Any

import psycopg2.extensions
import pytest
from psycopg2.extensions import connection as Connection

from flows.dbt_build import history
from flows.load import anomalies, checkpoints, ledger, reject_log, retention
from flows.load.ledger import Address
from flows.load.options import LoadOptions
from flows.load.partition_lock import transaction
from flows.load.retention import delete_old
from tests.dbt_project.freshness_query import freshness_query
from tests.load.memory_api import MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

DAYS = 400
AGE = "update elt.loads set ended_at = ended_at - interval '{} days'"
ENTRIES = "select load_id from elt.loads order by load_id"
FULL = LoadOptions(full_refresh=True, accepts_shrinkage=True)


def delete(connection: Connection, days: int = DAYS) -> int:
    with transaction(connection) as cursor:
        return delete_old(cursor, "shop", days)


def age(query: Query, days: int = DAYS + 1) -> None:
    query(AGE.format(days))


def test_old_loads_are_deleted_and_newer_ones_stay(connection: Connection, query: Query) -> None:
    for number in range(3):
        load_pages(connection, [{"id": 1, "v": number}])
    age(query)
    assert delete(connection) == 2
    assert query(ENTRIES) == [(3,)]
    load_pages(connection, [{"id": 1, "v": 9}])
    assert delete(connection) == 1
    assert delete(connection) == 0
    assert query(ENTRIES) == [(4,)]


def test_loads_within_the_days_stay(connection: Connection, query: Query) -> None:
    for number in range(3):
        load_pages(connection, [{"id": 1, "v": number}])
    age(query, DAYS - 1)
    assert delete(connection) == 0


def test_loads_of_other_sources_stay(connection: Connection, query: Query) -> None:
    for number in range(3):
        load_pages(connection, [{"id": 1, "v": number}])
    age(query)
    query("update elt.loads set source = 'other'")
    assert delete(connection) == 0


def test_what_a_load_asks_about_the_past_stays_true(connection: Connection, query: Query) -> None:
    """The last load with new rows, and the last one that changed the table, are long ago."""
    load_pages(connection, [{"id": 1, "v": 1}], [{"id": 2, "v": 1}])
    load_pages(connection, [{"id": 1, "v": 2}], options=FULL)
    for _ in range(3):
        load_pages(connection, [])
    before = _answers(connection)
    age(query)
    assert delete(connection) == 3
    assert _answers(connection) == before
    query("truncate raw_shop.items")
    load_pages(connection, [{"id": 1, "v": 3}])
    assert query("select reason from elt.resets") == [("raw_shop.items was dropped or emptied",)]


def _answers(connection: Connection) -> list[Any]:
    address = Address("shop", "items", "")
    with transaction(connection) as cursor:
        history.prepare(cursor)
        return [
            ledger.has_loaded(cursor, address),
            ledger.has_stored(cursor, address),
            ledger.incomplete_partitions(cursor, "shop", "items", ["", "x"]),
            history.raw_tables(cursor),
        ]


def test_open_rejects_stay_with_their_load(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1, "v": 1}, {"v": 2}], max_rejects=1)
    load_pages(connection, [{"id": 1, "v": 2}])
    load_pages(connection, [{"id": 1, "v": 3}])
    age(query)
    assert delete(connection) == 1
    assert query(ENTRIES) == [(1,), (3,)]
    query("update elt.rejects set replayed_by = 1")
    assert delete(connection) == 1
    assert query("select count(*) from elt.rejects") == [(0,)]


def test_a_window_of_a_backfill_stays(connection: Connection, query: Query) -> None:
    backfill = LoadOptions(is_backfill=True)
    load_pages(connection, [{"id": 1}], options=backfill)
    load_pages(connection, [{"id": 1}])
    load_pages(connection, [{"id": 2}])
    age(query)
    assert delete(connection) == 1
    assert query(ENTRIES) == [(1,), (3,)]


def test_an_interrupted_append_can_still_undo_its_window(
    connection: Connection, query: Query
) -> None:
    api = MemoryApi([[{"id": 1}], [{"id": 2}], [{"id": 3}]], fails_at=2)
    appended = items(key=(), disposition="append")
    for _ in range(2):
        with pytest.raises(Exception, match="away"):
            load_api(connection, api, appended)
    age(query)
    assert query("select begun_by from elt.checkpoints") == [(1,)]
    assert delete(connection) == 0


PLANNED = ("select", "with", "update", "insert", "delete")
LARGE = {"loads", "rejects", "checkpoints", "schema_changes"}
# The trigger would take longer than all else; the ledger's statements make up for it.
FILL = """
truncate elt.partitions;
alter table elt.loads disable trigger notes_newest_load;
insert into elt.loads
    (source, resource, partition, run_id, state, started_at, ended_at, extracted, unchanged,
     inserted, is_group)
select
    's' || n % 20, 'r' || n % 7, case when n % 3 = 0 then 'p' || n % 5 else '' end, 'run' || n / 9,
    case when n % 50 = 0 then 'failed' else 'succeeded' end,
    now() - interval '1 hour' * (60000 - n) / 6, now() - interval '1 hour' * (60000 - n) / 6,
    3, 3 - n % 2, n % 2, n % 3 <> 0
from generate_series(1, 60000) as given (n);
insert into elt.checkpoints (source, resource, partition, load_id)
select 's' || n % 20, 'r' || n % 7, 'p' || n, n from generate_series(1, 60000) as given (n);
insert into elt.rejects (load_id, reason, record, replayed_by)
select n, 'is odd', '{}', case when n % 100 > 0 then n end from generate_series(1, 60000) as g (n);
insert into elt.schema_changes (load_id, table_name, column_name, new_type)
select n * 1000, 't', 'c', 'text' from generate_series(1, 60) as given (n);
"""


class Explaining(psycopg2.extensions.cursor):
    """Notes each statement that reads one of the ledger's tables from start to end."""

    scans: list[str] = []  # noqa: RUF012 (shared on purpose)

    def execute(self, query: Any, arguments: Any = None) -> None:
        """Explain the statement, then run it."""
        text = self.mogrify(query, arguments).decode().lstrip("\n (")
        if text.startswith(PLANNED):
            super().execute("explain (format json) " + text)
            [(plan,)] = self.fetchall()
            self.scans += [f"{table}: {text}" for table in _scanned(plan[0]["Plan"])]
        super().execute(query, arguments)


def _scanned(plan: dict[str, Any]) -> list[str]:
    is_scan = plan["Node Type"] == "Seq Scan" and plan["Relation Name"] in LARGE
    inner = [table for part in plan.get("Plans", []) for table in _scanned(part)]
    return [plan["Relation Name"], *inner] if is_scan else inner


def test_no_query_reads_all_of_a_large_ledger(
    connection: Connection, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except that of all schema changes, which are few."""
    monkeypatch.setattr(retention, "MOST_DELETED", 20)
    load_pages(connection, [{"id": 1}])
    query(FILL + ledger.OWN.statements)
    for table in LARGE:
        query(f"analyze elt.{table}")
    address = Address("s1", "r1", "p1")
    Explaining.scans.clear()
    with connection, connection.cursor(cursor_factory=Explaining) as cursor:
        history.prepare(cursor)
        load_id = ledger.begin(cursor, address, "run1")
        ledger.completed_by(cursor, address, "run7", is_backfill=False)
        ledger.backfilled(cursor, "s1", "r1")
        ledger.incomplete_partitions(cursor, "s1", "r1", ["p1", "p2"])
        ledger.has_loaded(cursor, address)
        ledger.has_stored(cursor, address)
        ledger.entries(cursor, 59_990)
        ledger.entries_of_run(cursor, "run7")
        ledger.schema_changes(cursor, [100, 200])
        anomalies.compare(cursor, load_id, address, items(), {"id"})
        anomalies.of_loads(cursor, [100, 200])
        ledger.fail(cursor, load_id, "no")
        checkpoints.read_many(cursor, address, ["p1", "p2"])
        reject_log.open_loads(cursor, address)
        reject_log.records_of(cursor, 100, 0, 10, 1000)
        reject_log.mark_replayed(cursor, 100, load_id, None)
        reject_log.supersede(cursor, address, load_id)
        assert len(history.raw_tables(cursor)) == 141
        cursor.execute(freshness_query("s1", "r1").strip())
        delete_old(cursor, "s1", DAYS)
    assert [scan for scan in Explaining.scans if not scan.startswith("schema_changes")] == []
