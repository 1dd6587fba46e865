"""Promises of a PgBouncer in front of Postgres: it does not share sessions, or it is refused."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy.engine import URL

from blocks.warehouse import Warehouse
from flows.errors import ConfigurationError, UnavailableError
from flows.postgres import pooler
from tests.load.memory_api import load_pages
from tests.postgres.servers import PGBOUNCER, pgbouncer

Query = Callable[..., list[tuple]]

pytestmark = [
    pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer here"),
    pytest.mark.no_ledger,
]
SCHEMAS = "select nspname from pg_namespace where nspname in ('elt', 'raw_shop')"


def load(address: URL, name: str = "items", **declaration: object) -> None:
    with closing(Warehouse(address).connect()) as connection:
        load_pages(connection, [{"id": 1, "v": name}], name=name, **declaration)


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("pool_size", [1, 20])
def test_a_pooler_that_shares_sessions_is_refused_before_anything_is_written(
    database: URL, query: Query, mode: str, pool_size: int
) -> None:
    with (
        pgbouncer(database, mode, pool_size) as address,
        pytest.raises(ConfigurationError, match="Use the pooler's port for session mode"),
    ):
        load(address)
    assert query(SCHEMAS) == []


@pytest.mark.parametrize("order", [0, 1], ids=["newest first", "oldest first"])
def test_four_loads_at_once_are_refused_too(database: URL, query: Query, order: int) -> None:
    """Whichever session the pooler lends next."""
    with (
        pgbouncer(database, "transaction", server_round_robin=order) as address,
        ThreadPoolExecutor(4) as threads,
    ):
        for _ in range(5):
            loads = [threads.submit(load, address, f"r{n}") for n in range(4)]
            assert {type(each.exception()) for each in loads} == {ConfigurationError}
    assert query(SCHEMAS) == []


def test_loads_through_a_pooler_in_session_mode_are_right(database: URL, query: Query) -> None:
    with pgbouncer(database, "session") as address, ThreadPoolExecutor(4) as threads:
        declared = [
            {"disposition": "merge"},
            {"disposition": "append", "key": ()},
            {"disposition": "replace"},
            {"disposition": "replace"},
        ]
        for _ in range(2):
            loads = [
                threads.submit(load, address, f"r{n}", **declaration)
                for n, declaration in enumerate(declared)
            ]
            assert [each.result() for each in loads] == [None] * 4
    for n, rows in enumerate([1, 2, 1, 1]):
        assert query(f"select v from raw_shop.r{n}") == [(f"r{n}",)] * rows  # noqa: S608 (ours)


def test_a_pooler_that_gives_no_second_session_is_named(
    database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooler, "WAIT_SECONDS", 0.2)
    with (
        pgbouncer(database, "session", pool_size=1) as address,
        pytest.raises(UnavailableError, match="Allow it two for each concurrent load"),
    ):
        load(address)


def test_a_parameter_that_the_pooler_does_not_know_is_named(database: URL) -> None:
    with (
        pgbouncer(database, "session") as address,
        pytest.raises(ConfigurationError, match=r"unsupported startup parameter.*Correct"),
    ):
        load(address.update_query_dict({"options": "-c work_mem=7MB"}))
