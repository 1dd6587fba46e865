"""Promises of the warehouse's blocks: two logins, or one for both."""

from collections.abc import Callable

import psycopg2
import psycopg2.errors
import pytest
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

Ask = Callable[..., list[tuple]]


def users() -> list[str | None]:
    return [warehouse.load(name).url.username for name in (BLOCK, TRANSFORMER_BLOCK)]


@pytest.mark.usefixtures("stack")
def test_dbt_logs_in_as_the_loads_do_where_there_is_no_other_login() -> None:
    """Also where there was one before."""
    both = {URL_VARIABLE: "postgresql://a@h/d", TRANSFORMER_URL_VARIABLE: "postgresql://b@h/d"}
    assert warehouse.save(both) == [BLOCK, TRANSFORMER_BLOCK]
    assert users() == ["a", "b"]
    warehouse.save({URL_VARIABLE: "postgresql://a@h/d", TRANSFORMER_URL_VARIABLE: ""})
    assert users() == ["a", "a"]


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
        ("set statement_timeout = 1; select pg_sleep(9)", psycopg2.errors.QueryCanceled),
        ("select 1 / 0", psycopg2.errors.DivisionByZero),
    ],
    ids=["ended", "disk full", "deadlock", "cancelled", "a mistake"],
)
def test_an_error_is_named_where_postgres_went_away_or_ran_out_of_something(
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
