"""How long statements on a large ledger take: `python -m tests.benchmark.ledger [--rows N]`.

Each runs several times in a transaction that is rolled back, so all of them see the same ledger.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.engine import URL

from deployments.local.postgres import ensure_database, libpq, postgres
from flows.dbt_build import history
from flows.extract.selectors import records_at
from flows.load import anomalies, checkpoints, ledger, ownership, reject_log, undo
from flows.load.batch import Reject
from flows.load.checkpoints import Checkpoint
from flows.load.ledger import Address, Counts
from flows.load.retention import MOST_DELETED, delete_old
from flows.source import Resource
from tests.benchmark.report import Table
from tests.dbt_project.freshness_query import freshness_query
from tests.dbt_project.running_dbt import Dbt

ROWS = 5_000_000
LIMIT_MS = 50
RUNS = 5
ENOUGH_SECONDS = 20.0
KEEP_DAYS = 400
FILL = Path(__file__).with_suffix(".sql").read_text()
LARGE = ("loads", "checkpoints", "rejects", "schema_changes")
HEAD = ("statement", "median ms", "fastest", "rows", f"< {LIMIT_MS} ms")

ORDERS = Address("s03", "orders", "")
GROUP = Address("s03", "prices", "")
MANY = Address("s00", "reports", "report 77")
EVENTS = Address("s03", "events", "")


@dataclass(frozen=True)
class Statement:
    """What is timed; `run` leaves its rows with the cursor."""

    title: str
    run: Callable[[Cursor], object]


@dataclass(frozen=True)
class Timing:
    """How long a statement took, several times."""

    title: str
    milliseconds: Sequence[float]
    rows: int


def fill(connection: Connection, rows: int) -> None:
    """Make the ledger of an empty database, and fill it with about so many loads."""
    with connection, connection.cursor() as cursor:
        ledger.prepare(cursor, "raw_s03")
        cursor.execute("alter table elt.loads disable trigger notes_newest_load")
        cursor.execute(FILL, {"rows": rows, "partitions": max(1, rows // 1000)})
        # As an upgrade does: all at once, for loads that no trigger has seen.
        cursor.execute(ledger.OWN.statements)
        cursor.execute(
            "create table raw_s03.orders as select max(load_id) as _load_id from elt.loads"
            " where (source, resource) = ('s03', 'orders')"
        )
        history.prepare(cursor)
        cursor.execute(
            "insert into dbt.built_tables (source, resource, load_id)"
            " select source, resource, max(load_id) from elt.loads group by source, resource"
        )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"vacuum analyze {', '.join(f'elt.{table}' for table in LARGE)}")
    connection.autocommit = False


def statements(cursor: Cursor) -> list[Statement]:
    """Every statement of loads and builds that reads or writes the ledger, with its examples."""
    facts = {name: _one(cursor, query) for name, query in FACTS.items()}
    return [*_of_loads(facts), *_of_rejects(facts), *_of_builds()]


# What the examples need to know of the ledger.
FACTS = {
    "newest": "select max(load_id) from elt.loads",
    "running": "select max(load_id) from elt.loads where state = 'running'",
    "run": "select run_id from elt.loads where source = 's00' and is_regular"
    " order by load_id desc limit 1",
    "rejecting": "select min(load_id) from elt.rejects where replayed_by is null",
    "replayed": "select min(load_id) from elt.rejects where replayed_by is not null",
    "items": "select array_agg('item ' || n) from generate_series(1, 1000) as g (n)",
    "reports": "select array_agg('report ' || n) from generate_series(1, 2000) as g (n)",
    "rejecting_source": "select source from elt.loads join elt.rejects using (load_id)"
    " where replayed_by is null limit 1",
}


def _of_loads(facts: dict[str, Any]) -> Iterator[Statement]:
    running, run, newest = facts["running"], facts["run"], facts["newest"]
    saved = [Address("s03", "prices", name) for name in facts["items"][:200]]
    yield Statement("ledger.begin", lambda c: ledger.begin(c, ORDERS, "run"))
    yield Statement("ledger.begin, a group", lambda c: ledger.begin(c, GROUP, "run", is_group=True))
    yield Statement("ledger.state_and_token", lambda c: ledger.state_and_token(c, running, 60))
    yield Statement("ledger.add_counts", lambda c: ledger.add_counts(c, running, Counts(pages=1)))
    yield Statement("ledger.end", lambda c: ledger.end(c, running, "succeeded"))
    yield Statement("ledger.fail", lambda c: ledger.fail(c, running, "no"))
    yield Statement("ledger.entry", lambda c: ledger.entry(c, newest))
    yield Statement("ledger.newest", ledger.newest)
    yield Statement("ledger.entries, of the last 1,000", lambda c: ledger.entries(c, newest - 1000))
    yield Statement("ledger.entries_of_run", lambda c: ledger.entries_of_run(c, run))
    yield Statement("ledger.schema_changes", lambda c: ledger.schema_changes(c, [5003, 10006]))
    for address in (ORDERS, MANY):
        yield Statement(
            f"ledger.completed_by, {address}",
            lambda c, at=address: ledger.completed_by(c, at, run, is_backfill=False),
        )
    for address in (ORDERS, GROUP, MANY, Address("s03", "none", "")):
        title = f"{address.source}.{address.resource}"
        yield Statement(
            f"ledger.has_loaded, {title}", lambda c, at=address: ledger.has_loaded(c, at)
        )
        yield Statement(
            f"ledger.has_stored, {title}", lambda c, at=address: ledger.has_stored(c, at)
        )
        yield Statement(
            f"ledger.incomplete_partitions, {title}",
            lambda c, at=address: ledger.incomplete_partitions(c, at.source, at.resource, [""]),
        )
    for address, names in ((GROUP, facts["items"]), (MANY, facts["reports"])):
        yield Statement(
            f"ledger.incomplete_partitions, {len(names):,} of {address.resource}",
            lambda c, at=address, given=names: ledger.incomplete_partitions(
                c, at.source, at.resource, given
            ),
        )
    for address in (ORDERS, GROUP, MANY, Address("s03", "none", "")):
        title = f"anomalies.compare, {address.source}.{address.resource}"
        watched = Resource(address.resource, "", records_at())
        yield Statement(
            title,
            lambda c, at=address, of=watched: anomalies.compare(c, newest, at, of, {"id"}),
        )
    yield Statement("anomalies.tell", lambda c: anomalies.tell(c, "s03"))
    yield Statement("anomalies.of_loads", lambda c: anomalies.of_loads(c, [5003, 10006]))
    yield Statement("ledger.groups_of_run", lambda c: ledger.groups_of_run(c, GROUP, run))
    yield Statement("ledger.backfilled", lambda c: ledger.backfilled(c, "s03", "events"))
    yield Statement("ledger.abandon", lambda c: ledger.abandon(c, "s03", "orders", "no"))
    yield Statement("checkpoints.read", lambda c: checkpoints.read(c, ORDERS))
    yield Statement(
        "checkpoints.read_many, 1,000", lambda c: checkpoints.read_many(c, GROUP, facts["items"])
    )
    yield Statement(
        "checkpoints.save_many, 200",
        lambda c: checkpoints.save_many(c, saved, newest, [Checkpoint()] * len(saved)),
    )
    yield Statement(
        "checkpoints.forget, all of a resource",
        lambda c: checkpoints.forget(c, "s03", "prices", "test"),
    )
    yield Statement(
        "checkpoints.forget_partition", lambda c: checkpoints.forget_partition(c, saved[0])
    )
    yield Statement(
        "undo", lambda c: undo.undo(c, ORDERS, ORDERS.table, max(1, newest - 50_000), newest)
    )
    yield Statement("ownership.check", lambda c: ownership.check(c, ORDERS.table))
    yield Statement(
        "retention.delete_old, nothing is old", lambda c: delete_old(c, "s03", KEEP_DAYS + 1)
    )
    yield Statement(
        f"retention.delete_old, {MOST_DELETED:,} are old",
        lambda c: delete_old(c, "s00", KEEP_DAYS // 2),
    )


def _of_rejects(facts: dict[str, Any]) -> Iterator[Statement]:
    rejecting, replayed = facts["rejecting"], facts["replayed"]
    newest, source = facts["newest"], facts["rejecting_source"]
    rejects = [Reject("is odd", "{}")] * 1000
    for address in (ORDERS, MANY, Address(source, "reports", "report 7")):
        yield Statement(
            f"reject_log.open_loads, {address}", lambda c, at=address: reject_log.open_loads(c, at)
        )
        yield Statement(
            f"reject_log.supersede, {address}",
            lambda c, at=address: reject_log.supersede(c, at, newest),
        )
    yield Statement("reject_log.add, 1,000", lambda c: reject_log.add(c, newest, rejects))
    for load_id in (rejecting, replayed):
        yield Statement(
            "reject_log.records_of",
            lambda c, of=load_id: reject_log.records_of(c, of, 0, 1000, 8 << 20),
        )
        yield Statement(
            "reject_log.mark_replayed",
            lambda c, of=load_id: reject_log.mark_replayed(c, of, newest, None),
        )


def _of_builds() -> Iterator[Statement]:
    yield Statement("history.raw_tables", history.raw_tables)
    for address in (ORDERS, GROUP, MANY, EVENTS):
        query = freshness_query(address.source, address.resource)
        yield Statement(
            f"last_loaded_at, {address.source}.{address.resource}",
            lambda c, text=query: c.execute(text),
        )
    for title, query in MARTS.items():
        yield Statement(title, lambda c, text=query: c.execute(text))


MARTS = {
    "fct_loads, the newest 100": "select * from marts.fct_loads"
    " where load_id > (select max(load_id) - 100 from elt.loads)",
    "fct_loads, of a run": "select * from marts.fct_loads where run_id ="
    " (select run_id from elt.loads order by load_id desc limit 1)",
    "rpt_resource_freshness": "select * from marts.rpt_resource_freshness",
    "rpt_load_history": "select * from marts.rpt_load_history",
}


def timed(connection: Connection, statement: Statement) -> Timing:
    """Run it once to warm up, then several times, or until it took long enough."""
    with _rolled_back(connection) as cursor:
        statement.run(cursor)
        rows = cursor.rowcount
    taken: list[float] = []
    while len(taken) < RUNS and sum(taken) < ENOUGH_SECONDS:
        with _rolled_back(connection) as cursor:
            started = time.perf_counter()
            statement.run(cursor)
            taken.append(time.perf_counter() - started)
    return Timing(statement.title, [1000 * each for each in taken], rows)


@contextmanager
def _rolled_back(connection: Connection) -> Iterator[Cursor]:
    with connection.cursor() as cursor:
        try:
            yield cursor
        finally:
            connection.rollback()


def table(timings: Sequence[Timing]) -> Table:
    """The medians, and whether they are below the limit."""
    rows = []
    for timing in timings:
        taken, fastest = median(timing.milliseconds), min(timing.milliseconds)
        verdict = "yes" if taken < LIMIT_MS else "NO"
        rows.append((timing.title, f"{taken:,.1f}", f"{fastest:,.1f}", f"{timing.rows:,}", verdict))
    return Table(HEAD, rows, 1)


def build_marts(database: URL, folder: Path) -> Iterator[Timing]:
    """Create the ledger's marts with dbt; then build and test them, as each build does."""
    dbt = Dbt(database, folder)
    dbt.succeed("run", "--select", "source:elt+")
    started = time.perf_counter()
    dbt.succeed("build", "--select", "source:elt+")
    yield Timing("dbt build --select source:elt+", [1000 * (time.perf_counter() - started)], 0)


def _one(cursor: Cursor, query: str) -> Any:
    cursor.execute(sql.SQL(query))
    return cursor.fetchall()[0][0]


def main() -> int:
    """Fill a ledger, time everything, and print the table; 0 if all is below the limit."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.ledger", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="elt-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with postgres(folder / "postgres") as server:
            database = ensure_database(server, "ledger")
            with closing(psycopg2.connect(libpq(database))) as connection:
                print(f"Filling a ledger of {arguments.rows:,} loads ...", flush=True)
                fill(connection, arguments.rows)
                timings = [*build_marts(database, folder / "dbt"), *measured(connection)]
    print(table(timings).text())
    return 0 if all(median(each.milliseconds) < LIMIT_MS for each in timings) else 1


def measured(connection: Connection) -> list[Timing]:
    """Time every statement."""
    with _rolled_back(connection) as cursor:
        found = statements(cursor)
    return [timed(connection, each) for each in found]


if __name__ == "__main__":
    sys.exit(main())
