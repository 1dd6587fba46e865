"""Promises of column names: snake_case, short enough for Postgres, and never two fields in one."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_api import load_pages
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError, ConfigurationError
from flows.load.frames import MisfitError
from flows.load.names import OWN_COLUMNS, SYSTEM_COLUMNS, column_name, column_names

Query = Callable[..., list[tuple[Any, ...]]]

encodable = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("OrderID", "order_id"),
        ("orderId", "order_id"),
        ("HTTPServer", "http_server"),
        ("temperature_2m_max", "temperature_2m_max"),
        ("@odata.etag", "odata_etag"),
        ("Straße Nr.", "straße_nr"),
        ("2nd", "_2nd"),
        ("_id", "_id"),
        ("", "_"),
        ("__", "_"),
        ("?", "_"),
    ],
)
def test_a_field_becomes_a_snake_case_column(field: str, name: str) -> None:
    assert column_name(field) == name


@settings(database=None, deadline=None)
@given(encodable)
def test_a_column_name_fits_postgres(field: str) -> None:
    assert 0 < len(column_name(field).encode()) <= 63


@settings(database=None, deadline=None)
@given(st.text(st.characters(codec="ascii"), max_size=200))
def test_a_column_name_is_its_own_column_name(field: str) -> None:
    name = column_name(field)
    assert column_name(name) == name


def test_long_names_are_cut_but_stay_apart() -> None:
    names = {column_name("long" * 20 + end) for end in ("", "a", "b")}
    assert len(names) == 3
    assert column_name("long" * 20) == "long" * 13 + "lo_5aa1dce7"


@settings(database=None, deadline=None)
@given(st.lists(encodable, unique=True, max_size=5))
def test_fields_have_columns_of_their_own_or_are_refused(fields: list[str]) -> None:
    try:
        names = column_names(fields)
    except MisfitError:
        assert len(set(map(column_name, fields))) < len(fields)
    else:
        assert list(names) == fields
        assert len(set(names.values())) == len(fields)


@pytest.mark.parametrize("field", sorted({"_LoadID", *OWN_COLUMNS, *SYSTEM_COLUMNS}))
def test_names_that_are_taken_get_an_underscore(
    connection: Connection, query: Query, field: str
) -> None:
    load_pages(connection, [{"id": 1, field: 7}])
    [row] = query("select to_jsonb(items) ->> %s from raw_shop.items", column_name(field))
    assert row == ("7",)
    assert column_name(field).endswith("_")


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param([[{"id": 1, "orderId": 1}, {"id": 2, "order_id": 2}]], id="in one page"),
        pytest.param([[{"id": 1, "orderId": 1}], [{"id": 2, "order_id": 2}]], id="in two pages"),
        pytest.param(
            [[{"id": 1, "orderId": 1}, {"id": 2, "orderId": 1, "order_id": 2}]], id="in one record"
        ),
    ],
)
def test_a_record_whose_field_meets_another_in_one_column_is_set_aside(
    connection: Connection, query: Query, pages: list[Any]
) -> None:
    with pytest.raises(BadPayloadError, match="'order_id' as 'orderId' does"):
        load_pages(connection, *pages)
    assert query("select id, order_id from raw_shop.items") == [(1, 1)]


def test_fields_that_meet_in_every_record_are_a_fault_of_the_declaration(
    connection: Connection,
) -> None:
    with pytest.raises(ConfigurationError, match=r"101 records can't be stored.*'order_id'"):
        load_pages(connection, [{"id": n, "orderId": 1, "order_id": 2} for n in range(200)])


def test_any_name_that_postgres_quotes_is_stored(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1, "Größe": 1, "select": 2, "a" * 70: 3, "": 4, "1%s{}": 5}])
    found = query('select größe, "select", _, _1_s from raw_shop.items')
    assert found == [(1, 2, 4, 5)]
