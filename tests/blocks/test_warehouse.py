"""Promises of the warehouse's blocks: two logins, or one for both."""

import contextlib
import logging
import traceback
from collections.abc import Callable
from contextlib import closing
from urllib.parse import quote

import psycopg2
import psycopg2.errors
import pytest
from conftest import is_in_blocks
from sqlalchemy.engine import URL

from blocks import warehouse
from blocks.warehouse import (
    BLOCK,
    TRANSFORMER_BLOCK,
    TRANSFORMER_URL_VARIABLE,
    URL_VARIABLE,
    Warehouse,
)
from deployments.local.stack import REPORTER_URL_VARIABLE, Stack
from flows.errors import ConfigurationError, UnavailableError
from flows.redaction import redact
from tests.load.memory_api import load_pages

Ask = Callable[..., list[tuple]]


def users() -> list[str | None]:
    return [warehouse.load(name).url.username for name in (BLOCK, TRANSFORMER_BLOCK)]


@pytest.mark.usefixtures("stack")
def test_dbt_logs_in_as_the_loads_do_where_there_is_no_other_login() -> None:
    """Even if there was one before."""
    both = {URL_VARIABLE: "postgresql://a@h/d", TRANSFORMER_URL_VARIABLE: "postgresql://b@h/d"}
    assert warehouse.save(both) == [BLOCK, TRANSFORMER_BLOCK]
    assert users() == ["a", "b"]
    warehouse.save({URL_VARIABLE: "postgresql://a@h/d", TRANSFORMER_URL_VARIABLE: ""})
    assert users() == ["a", "a"]


def test_a_warehouse_that_is_in_the_blocks_is_not_saved_again(warehouse_url: URL) -> None:
    """Saving it takes half a second, before each test."""
    assert is_in_blocks(warehouse_url)
    assert not is_in_blocks(warehouse_url.set(database="another"))


@pytest.mark.usefixtures("stack")
def test_a_wrong_login_of_dbts_is_named_and_nothing_is_saved() -> None:
    warehouse.save({URL_VARIABLE: "postgresql://a@h/d"})
    with pytest.raises(ConfigurationError, match="WAREHOUSE_TRANSFORMER_URL to postgresql://"):
        warehouse.save({URL_VARIABLE: "postgresql://b@h/d", TRANSFORMER_URL_VARIABLE: "no url"})
    assert users() == ["a", "a"]


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("select pg_terminate_backend(pg_backend_pid())", UnavailableError),
        ("do $$ begin raise sqlstate '53100'; end $$", UnavailableError),
        ("do $$ begin raise sqlstate '40P01'; end $$", UnavailableError),
        ("do $$ begin raise sqlstate '42501'; end $$", ConfigurationError),
        ("set statement_timeout = 1; select pg_sleep(9)", psycopg2.errors.QueryCanceled),
        ("select 1 / 0", psycopg2.errors.DivisionByZero),
    ],
    ids=["ended", "disk full", "deadlock", "no privilege", "cancelled", "a mistake"],
)
def test_an_error_is_named_where_there_is_a_remedy(
    database: URL, statement: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind), Warehouse(database).transaction() as cursor:
        cursor.execute(statement)


def test_the_local_stack_has_a_login_for_each_role(stack: Stack) -> None:
    names = (URL_VARIABLE, TRANSFORMER_URL_VARIABLE, REPORTER_URL_VARIABLE)
    assert [
        stack.environment[name].split("://")[1].split("@")[0].rstrip(":") for name in names
    ] == [
        "loader",
        "transformer",
        "reporter",
    ]


PASSWORD = "p4ss/w0rd of it"  # noqa: S105 (asked for by nobody)
QUOTED = quote(PASSWORD, safe="")


@pytest.fixture
def with_password(database: URL) -> Warehouse:
    """The test's own database, by a URL with a password."""
    return Warehouse(database.set(password=PASSWORD))


def quote_login(query: Ask) -> None:
    """Let each new row of raw_shop.items end as an error that quotes the warehouse's login."""
    said = f"connection to postgresql://loader:{QUOTED}@h/d failed, password {PASSWORD}"
    query(
        "create function public.quote() returns trigger language plpgsql as"
        f" $$ begin raise exception using message = '{said}'; end $$"
    )
    query("create trigger quoting before insert on raw_shop.items execute function public.quote()")


def test_an_error_of_postgres_that_quotes_the_password_shows_it_nowhere(
    with_password: Warehouse, query: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the load's error, in what that was raised from, in the ledger or in a log."""
    with closing(with_password.connect()) as connection:
        load_pages(connection, [{"id": 1}])
        quote_login(query)
        with pytest.raises(Exception, match=r"password \*\*\*") as failure:
            load_pages(connection, [{"id": 2}])
    logging.getLogger("anyone").error("Asked with %s", PASSWORD, exc_info=failure.value)
    [(noted,)] = query("select error from elt.loads where state = 'failed'")
    texts = [noted, caplog.text, "".join(traceback.format_exception(failure.value))]
    assert all("***" in text for text in texts)
    assert not [text for text in texts if PASSWORD in text or QUOTED in text]


def test_an_error_in_a_transaction_does_not_show_the_password(with_password: Warehouse) -> None:
    """Neither one that goes up as it is, nor one that is named."""
    for state in ("P0001", "53100"):
        raising = f"do $$ begin raise sqlstate '{state}' using message = '{PASSWORD}'; end $$"
        refused = pytest.raises(Exception, match=r"\*\*\*")
        with refused as failure, with_password.transaction() as cursor:
            cursor.execute(raising)
        assert PASSWORD not in "".join(traceback.format_exception(failure.value))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://loader:{QUOTED}@h/d",
        f"postgresql://loader@h/d?password={QUOTED}",
        f"postgresql://loader:{QUOTED}@h/d?no=such",
    ],
)
@pytest.mark.usefixtures("stack")
def test_the_password_is_hidden_as_soon_as_the_url_is_read(url: str) -> None:
    """Even if the URL is refused."""
    with contextlib.suppress(ConfigurationError):
        warehouse.save({URL_VARIABLE: url})
    assert redact(f"{PASSWORD}, {QUOTED}") == "***, ***"


def test_the_password_that_libpq_finds_for_itself_is_hidden(
    database: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    Warehouse(database)
    assert redact(PASSWORD) == "***"


def test_a_password_that_is_the_name_of_something_does_not_hide_that_name(database: URL) -> None:
    """Every error names the user and database, so this password is not a secret."""
    for name in (database.username, database.database):
        Warehouse(database.set(password=name))
        assert redact(f"refused {name}") == f"refused {name}"
