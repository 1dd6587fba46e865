"""Promises about loads that lost their partition or their session: they write nothing more."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import ConfigurationError, UnavailableError
from flows.load import ledger
from flows.load.ledger import Address
from flows.load.loader import load
from flows.load.options import LoadOptions
from flows.page import Page, Resume
from flows.source import Partition, Window
from tests.load.memory_api import MemoryApi, items, load_pages
from tests.postgres.servers import PGBOUNCER, pgbouncer

Query = Callable[..., list[tuple[Any, ...]]]

PAGES = [[{"id": 1}], [{"id": 2}], [{"id": 3}]]
STATES = "select state from elt.loads order by load_id"
ITEMS = Address("shop", "items", "")


def interrupted(query: Query, pages: int, interrupt: Callable[[], object]) -> Any:
    """The API, with something that happens once so many pages are committed."""
    api = MemoryApi(PAGES)

    def read(window: Window, resume: Resume | None) -> Iterator[Page]:
        for number, page in enumerate(api(window, resume)):
            if number == pages:
                while pages and query("select sum(pages) from elt.loads") != [(pages,)]:
                    """The reader is ahead of the load: wait for the checkpoint."""
                interrupt()
            yield page

    return read


@pytest.mark.parametrize(
    "declared",
    [{}, {"disposition": "append"}, {"disposition": "replace"}, {"key": ()}],
    ids=["merge", "append", "replace", "keyless"],
)
def test_a_load_writes_nothing_once_another_has_taken_over(
    connection: Connection, database: URL, query: Query, declared: dict[str, Any]
) -> None:
    """As if a failover or a pooler had ended the session with its lock."""
    load_pages(connection, [{"id": 0}], **declared)

    def take_over() -> None:
        with closing(psycopg2.connect(libpq(database))) as other, other, other.cursor() as cursor:
            ledger.begin(cursor, ITEMS, None)

    pages = interrupted(query, 0, take_over)
    with pytest.raises(UnavailableError, match=r"shop.items: another load has taken over"):
        load(connection, "shop", items(**declared), Partition(), pages)
    assert query("select id from raw_shop.items") == [(0,)]
    assert query(STATES) == [("succeeded",), ("abandoned",), ("running",)]
    assert query("select count(*) from elt.checkpoints where load_id > 1") == [(0,)]


def test_its_earlier_commits_are_kept_and_the_next_load_resumes(
    connection: Connection, database: URL, query: Query
) -> None:
    def take_over() -> None:
        with closing(psycopg2.connect(libpq(database))) as other, other, other.cursor() as cursor:
            ledger.begin(cursor, ITEMS, None)

    with pytest.raises(UnavailableError, match="taken over"):
        load(connection, "shop", items(), Partition(), interrupted(query, 1, take_over))
    assert query("select id from raw_shop.items") == [(1,)]
    assert load_pages(connection, *PAGES).inserted == 2


@pytest.mark.parametrize("disposition", ["merge", "append", "replace"])
@pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer here")
def test_a_load_whose_session_changes_writes_nothing_more(
    database: URL, query: Query, disposition: str
) -> None:
    """The caller opened the connection without the check for a pooler."""
    with (
        pgbouncer(database, "transaction") as address,
        closing(psycopg2.connect(libpq(address))) as connection,
        closing(psycopg2.connect(libpq(address))) as other,
    ):
        declared = items(disposition=disposition)
        pages = interrupted(query, 0, lambda: other.cursor().execute("select 1"))
        with pytest.raises(ConfigurationError, match=r"a pooler .* session mode"):
            load(connection, "shop", declared, Partition(), pages)
    assert query("select to_regclass('raw_shop.items')") == [(None,)]


@pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer here")
def test_two_loads_on_one_session_notice_each_other(database: URL, query: Query) -> None:
    """A session's lock does not exclude itself, so the second load gets it as well."""
    with (
        pgbouncer(database, "transaction", pool_size=1) as address,
        closing(psycopg2.connect(libpq(address))) as connection,
        closing(psycopg2.connect(libpq(address))) as other,
    ):
        pages = interrupted(query, 0, lambda: load_pages(other, *PAGES))
        with pytest.raises(ConfigurationError, match=r"a pooler .* session mode"):
            load(connection, "shop", items(key=()), Partition(), pages)
    assert query("select id from raw_shop.items order by 1") == [(1,), (2,), (3,)]


def test_a_load_that_ends_frees_its_partition_and_its_session_is_as_before(
    connection: Connection, database: URL, query: Query
) -> None:
    load_pages(connection, *PAGES, options=LoadOptions(waits=True))
    assert query("select count(*) from pg_locks where locktype = 'advisory'") == [(0,)]
    with connection.cursor() as cursor:
        cursor.execute("show lock_timeout")
        assert cursor.fetchall() == [("0",)]
