"""Promises of the warehouse's URL: all of it reaches loads and dbt, or is refused by name."""

import json

import pytest
from prefect_sqlalchemy import ConnectionComponents, SqlAlchemyConnector

from blocks import warehouse
from blocks.warehouse import URL_VARIABLE
from flows.errors import ConfigurationError
from flows.postgres import connection_url
from flows.postgres.connection_url import ConnectionParameters

START = "postgresql://loader:secret@db.test"
LIBPQ_ONLY = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "options": "PGOPTIONS",
    "hostaddr": "PGHOSTADDR",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}


def read(text: str) -> ConnectionParameters:
    return connection_url.from_url(connection_url.parse(text, URL_VARIABLE), URL_VARIABLE)


@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_a_url_reaches_psycopg2_and_dbt(driver: str) -> None:
    found = read(f"{driver}://loader:p%40ss@db.test:6432/shop")
    given = found.connect_arguments()
    assert [given[name] for name in ("host", "port", "user", "password", "dbname")] == [
        "db.test", 6432, "loader", "p@ss", "shop",
    ]  # fmt: skip
    environment = found.dbt_environment()
    assert environment["WAREHOUSE_HOST"] == "db.test"
    assert environment["WAREHOUSE_PORT"] == "6432"
    assert environment["WAREHOUSE_USER"] == "loader"
    assert environment["WAREHOUSE_DATABASE"] == "shop"


@pytest.mark.parametrize(("parameter", "variable"), LIBPQ_ONLY.items())
def test_a_parameter_reaches_psycopg2_and_dbts_libpq(parameter: str, variable: str) -> None:
    found = read(f"{START}/shop?{parameter}=a value")
    assert found.connect_arguments()[parameter] == "a value"
    assert found.dbt_environment()[variable] == "a value"


def test_what_the_url_says_of_time_comes_before_what_is_usual() -> None:
    found = read(f"{START}/shop?connect_timeout=3&keepalives_idle=7&tcp_user_timeout=9000")
    given, environment = found.connect_arguments(), found.dbt_environment()
    assert (given["connect_timeout"], given["keepalives_idle"]) == ("3", "7")
    assert given["keepalives_count"] == "3"
    assert environment["WAREHOUSE_CONNECT_TIMEOUT"] == "3"
    assert environment["WAREHOUSE_KEEPALIVES_IDLE"] == "7"
    assert json.loads(environment["WAREHOUSE_KEEPALIVES"])["tcp_user_timeout"] == "9000"


def test_what_libpq_takes_after_the_question_mark_is_the_same_address() -> None:
    """Embedded Postgres names its Unix socket like this; others put everything there."""
    before = read("postgresql://loader:secret@/shop?host=/run/postgresql&port=5433")
    after = read(
        "postgresql:///?host=/run/postgresql&port=5433&user=loader&password=secret&dbname=shop"
    )
    assert before == after
    assert (before.host, before.port) == ("/run/postgresql", 5433)


@pytest.mark.parametrize("url", [f"{START}/shop", "postgresql://loader@h/shop?password=secret"])
def test_the_password_is_in_one_variable_which_dbt_masks(url: str) -> None:
    found = read(url)
    environment = found.dbt_environment()
    assert "secret" not in f"{found} {warehouse.Warehouse(connection_url.parse(url, URL_VARIABLE))}"
    assert [name for name, value in environment.items() if "secret" in value] == [
        "DBT_ENV_SECRET_WAREHOUSE_PASSWORD"
    ]


REFUSED = {
    "postgresql+asyncpg://u:secret@h/d": "begins with postgresql\\+asyncpg://",
    "mysql://u:secret@h/d": "begins with mysql://",
    "postgresql://u:secret@h1,h2/d": "names several hosts \\(h1,h2\\)",
    "postgresql://u:secret@/d?host=h1,h2": "names several hosts \\(h1,h2\\)",
    "postgresql://u:secret@h1:1,h2:2/d": "port must be one number",
    "postgresql://u:secret@h:abc/d": "port must be one number",
    "postgresql://u:secret@h:/d": "port must be one number",
    "postgresql://u:secret@h/d?port=abc": "has the port 'abc'",
    "postgresql://u:secret@h:70000/d": "has the port '70000'",
    "postgresql://u:secret@h/d?host=other": "sets host before the \\? and after it",
    "postgresql://u:secret@h/d?sslmode=require&sslmode=disable": "has sslmode more than once",
    "postgresql://u:secret@h/d?application_name=me": "sets application_name, which the pipeline",
    "postgresql://u:secret@h/d?client_encoding=latin1": "sets client_encoding, which the pipeline",
    "postgresql://u:secret@h/d?sslpassword=secret": "parameter sslpassword, which can't be",
    "postgresql://u:secret@h/d?service=secret": "parameter service, which can't be",
    "postgresql://u:secret@h/d?connect_timeout=soon": "has connect_timeout=soon",
    "postgresql://u:secret@/d": "has no host",
    "postgresql://h/d": "has no user",
    "postgresql://u:secret@h": "has no database",
    "": "is empty",
    "no url, but a secret": "is not a URL of that form",
}


@pytest.mark.parametrize(("url", "said"), REFUSED.items())
def test_what_can_not_reach_both_is_refused_by_name(
    url: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a block is saved, and without quoting the URL."""
    monkeypatch.setattr(warehouse, "SqlAlchemyConnector", None)
    with pytest.raises(ConfigurationError, match=said) as failure:
        warehouse.save({URL_VARIABLE: url})
    assert URL_VARIABLE in str(failure.value)
    assert "secret" not in str(failure.value)
    assert failure.value.__cause__ is None


@pytest.mark.usefixtures("stack")
def test_a_block_that_was_made_by_hand_is_refused_when_it_is_loaded() -> None:
    login = ConnectionComponents(
        driver="postgresql+psycopg2", username="u", host="h", database="d", query={"service": "x"}
    )
    SqlAlchemyConnector(connection_info=login).save("warehouse", overwrite=True)
    with pytest.raises(ConfigurationError, match="block 'warehouse' has the parameter service"):
        warehouse.load()


@pytest.mark.parametrize(
    "url",
    [
        f"{START}:6432/shop?sslmode=verify-full&sslrootcert=/ca.pem",
        "postgresql://loader:@db.test/an-empty-password-is-none",
    ],
)
@pytest.mark.usefixtures("stack")
def test_a_saved_url_is_loaded_with_all_its_parts(url: str) -> None:
    warehouse.save({URL_VARIABLE: url})
    assert warehouse.load().address == read(url)
