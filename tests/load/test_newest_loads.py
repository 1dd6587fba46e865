"""`elt.partitions` states the newest loads, whatever happens to loads; builds and loads ask it."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from random import Random
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.dbt_build import history
from flows.errors import ConfigurationError, EltError
from flows.load import ledger
from flows.load.group import close_group, open_group
from flows.load.ledger import Address, Counts
from flows.load.options import LoadOptions
from flows.load.partition_lock import transaction
from flows.load.replay import replay
from flows.load.reset import reset
from flows.load.retention import delete_old
from flows.page import Page, Resume
from flows.source import Partition, Resource, Window
from tests.load.memory_api import EVERYTHING, MemoryApi, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

KNOWN = "select * from elt.partitions order by source, resource, partition"
# Each column looked up on its own, in another way than ledger.sql does.
IN_LEDGER = """
select
    source,
    resource,
    partition,
    max(load_id) filter (where replays is null and not is_backfill),
    max(load_id) filter (where succeeded and replays is null and not is_backfill),
    (
        select ended_at from elt.loads as newest
        where state = 'succeeded' and replays is null and not is_backfill
            and (newest.source, newest.resource) = (given.source, given.resource)
            and newest.partition = given.partition
        order by load_id desc limit 1
    ),
    max(load_id) filter (where succeeded and is_group),
    max(load_id) filter (where succeeded and is_backfill),
    max(load_id) filter (where succeeded and extracted > rejected),
    max(load_id) filter (where inserted > 0 or updated > 0),
    max(load_id) filter (where deleted > 0)
from (select *, state = 'succeeded' as succeeded from elt.loads) as given
group by source, resource, partition
order by source, resource, partition
"""
CITIES = tuple(Partition(city, {"city": city}) for city in ("London", "Paris"))
CITY = items(name="days", key=("city", "id"), partition_columns=("city",), partitions=CITIES)
APPENDED = items(name="events", key=(), disposition="append")
FULL = LoadOptions(full_refresh=True, accepts_shrinkage=True)
BACKFILL = LoadOptions(is_backfill=True)


class KilledApi(MemoryApi):
    """The load's session ends after the first page; nobody closes its entry in the ledger."""

    session: Connection

    def __call__(self, window: Window, resume: Resume | None) -> Iterator[Page]:
        yield from list(super().__call__(window, resume))[:1]
        self.session.close()


class Shop:
    """Loads, and all else that changes the ledger, in an order by chance."""

    def __init__(self, database: URL, query: Query, seed: int) -> None:
        self._connect = lambda: psycopg2.connect(libpq(database))
        self._query = query
        self._random = Random(seed)  # noqa: S311 (no secret)
        self._number = 0

    def step(self) -> str:
        """Do one thing; returns its name."""
        done = self._random.choice(
            [
                *(self.load, self.load, self.fail, self.kill, self.reject, self.replay),
                *(self.refresh, self.backfill, self.group, self.empty, self.reset, self.forget),
            ]
        )
        done()
        return done.__name__

    def load(self, *pages: Any, options: LoadOptions = EVERYTHING, **given: Any) -> None:
        resource, partition = self._target()
        with closing(self._connect()) as connection, suppress(EltError):
            api = given.pop("api", MemoryApi)(list(pages) or self._pages(), **given)
            api.session = connection
            load_api(connection, api, resource, options, partition)

    def fail(self) -> None:
        self.load(fails_at=self._random.choice([0, 1]))

    def kill(self) -> None:
        self.load(api=KilledApi)

    def reject(self) -> None:
        self.load(*self._pages(), ["no object"])

    def empty(self) -> None:
        self.load([])

    def refresh(self) -> None:
        self.load(options=FULL)

    def backfill(self) -> None:
        self.load(options=BACKFILL)

    def replay(self) -> None:
        resource, partition = self._target()
        with suppress(EltError):
            replay(self._connect, "shop", resource, partition)

    def group(self) -> None:
        address = Address("shop", "days", "")
        error = self._random.choice([None, "a partition failed"])
        with closing(self._connect()) as connection, transaction(connection) as cursor:
            ledger.prepare(cursor, "raw_shop")
        with open_group(self._connect, address, LoadOptions()) as (lock, load_id):
            with lock.transaction() as cursor:
                changed = self._random.choice([0, 3])
                counts = Counts(partitions=3, extracted=changed, updated=changed)
                ledger.add_counts(cursor, load_id, counts)
            close_group(lock, load_id, error, CITY, partitions=3)

    def reset(self) -> None:
        with closing(self._connect()) as connection:
            reset(connection, "shop", self._target()[0].name)

    def forget(self) -> None:
        """As retention does, when all loads are old."""
        with closing(self._connect()) as connection, transaction(connection) as cursor:
            ledger.prepare(cursor, "raw_shop")
            cursor.execute("update elt.loads set ended_at = ended_at - interval '401 days'")
            delete_old(cursor, "shop", 400)

    def _target(self) -> tuple[Resource, Partition]:
        kind = self._random.choice(["items", "days", "events"])
        partition = self._random.choice(CITIES) if kind == "days" else Partition()
        return {"items": items(), "days": CITY, "events": APPENDED}[kind], partition

    def _pages(self) -> list[Any]:
        """Two pages of rows that are new, changed or the same."""
        self._number += self._random.choice([0, 1])
        return [[{"id": self._random.choice([1, 2, 9]), "v": self._number}], [{"id": 3}]]


@pytest.mark.parametrize("seed", range(2))
def test_it_says_what_the_ledger_says_after_all_that_happens_to_loads(
    database: URL, query: Query, seed: int
) -> None:
    shop = Shop(database, query, seed)
    shop.load()
    for _ in range(40):
        done = shop.step()
        assert query(KNOWN) == query(IN_LEDGER), done
    assert query("select count(*) > 3 from elt.loads") == [(True,)]


def test_the_next_load_fills_it_from_an_older_ledger(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1}])
    load_pages(connection, [{"id": 1}], options=FULL)
    known = query(KNOWN)
    query("drop trigger notes_newest_load on elt.loads")
    query("drop table elt.partitions")
    query("comment on schema elt is 'The ledger of all loads, version 0.'")
    load_pages(connection, [], partition=Partition("p"))
    assert query(KNOWN)[0] == known[0]
    assert query(KNOWN) == query(IN_LEDGER)


def test_an_upgrade_reads_the_ledger_only_once(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1}])
    load_pages(connection, [{"id": 2}], partition=Partition("p"))
    query("delete from elt.partitions where partition = 'p'")
    query("comment on schema elt is 'The ledger of all loads, version 0.'")
    load_pages(connection, [{"id": 1}])
    assert query("select partition from elt.partitions") == [("",)]


def test_a_build_after_an_upgrade_asks_for_a_load_first(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1}])
    query("drop table elt.partitions cascade")
    with transaction(connection) as cursor:
        history.prepare(cursor)
        with pytest.raises(ConfigurationError, match="Load any resource with this version"):
            history.raw_tables(cursor)
