"""Promises of pinned `numeric` columns: stored digit for digit, or rejected with the reason."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import BadPayloadError
from flows.extract.selectors import (
    columns_at,
    csv_rows,
    keyed_at,
    ndjson,
    record_at,
    records_at,
    rows_at,
)
from flows.load.pins import Pins
from flows.load.replay import replay
from flows.load.typed_batch import TypedParser
from flows.page import Page
from flows.source import Partition, Resource
from tests.load.memory_api import WAYS, MemoryApi, in_python, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

NUMBERS = [
    "12345678901234567.8901",
    "-0.1000",
    "123456789012345678901234567890",
    "9007199254740993",
    "0.1",
    "7",
    "1e30",
    "1E-4",
    "-0.0",
    "12345678901234567890123456.7890000000000000000",
]


def page_of(numbers: list[str]) -> bytes:
    rows = ", ".join(f'{{"id": {n}, "v": {v}}}' for n, v in enumerate(numbers))
    return f"[{rows}]".encode()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pin", ["numeric", "numeric(60,4)", "decimal(60, 4)"])
def test_a_pinned_number_is_stored_digit_for_digit(
    connection: Connection, query: Query, way: str, pin: str
) -> None:
    load_pages(connection, page_of(NUMBERS), records=WAYS[way], columns={"v": pin})
    found = [value for (value,) in query("select v from raw_shop.items order by id")]
    assert found == list(map(Decimal, NUMBERS))
    load_pages(connection, page_of(NUMBERS), records=WAYS[way], columns={"v": pin})
    [(unchanged,)] = query("select unchanged from elt.loads order by load_id desc limit 1")
    assert unchanged == len(NUMBERS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", ["1e400", "-1E+400", "7" * 5000, "0." + "0" * 400 + "1"])
def test_a_pinned_number_may_be_of_any_length(
    connection: Connection, query: Query, way: str, number: str
) -> None:
    load_pages(connection, page_of(["1", number]), records=WAYS[way], columns={"v": "numeric"})
    found = query("select trim_scale(v) = trim_scale(%s::numeric) from raw_shop.items", number)
    assert sorted(found) == [(False,), (True,)]


@pytest.mark.parametrize(
    ("records", "body"),
    [
        (records_at("a"), b'{"a": [{"id": 1, "v": %s}]}'),
        (record_at(), b'{"id": 1, "v": %s}'),
        (ndjson(), b'{"id": 1, "v": %s}\n'),
        (columns_at("a"), b'{"a": {"id": [1], "v": [%s]}}'),
        (csv_rows(), b"id,v\n1,%s\n"),
        (rows_at(), b'[["id", "v"], [1, %s]]'),
        (keyed_at(), b'{"1": {"v": %s}}'),
        (records_at("a[].b[]", parents={"id": "a[].id"}), b'{"a": [{"id": 1, "b": [{"v": %s}]}]}'),
    ],
    ids=["list", "object", "lines", "arrays", "CSV", "rows", "by id", "lists in lists"],
)
def test_every_kind_of_body_keeps_the_digits(
    connection: Connection, query: Query, records: Any, body: bytes
) -> None:
    number = b"12345678901234567.8901"
    load_pages(connection, body % number, records=records, columns={"v": "numeric(30,4)"}, key=())
    assert query("select v from raw_shop.items") == [(Decimal(number.decode()),)]


def test_a_renamed_field_keeps_its_digits(connection: Connection, query: Query) -> None:
    page = b'[{"id": 1, "amount": 98765432109876543.21, "total": 1.50}]'
    load_pages(connection, page, names={"amount": "total"}, columns={"total": "numeric"})
    assert query("select total from raw_shop.items") == [(Decimal("98765432109876543.21"),)]


def test_a_column_that_was_altered_by_hand_keeps_digits_too(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": 1}])
    query("alter table raw_shop.items alter v type numeric, alter id type numeric")
    load_pages(connection, b'[{"id": 12345678901234567.8901, "v": 98765432109876543.21}]')
    found = query("select id, v from raw_shop.items order by id desc limit 1")
    assert found == [(Decimal("12345678901234567.8901"), Decimal("98765432109876543.21"))]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", ["19.999", '"19.999"', "0.001", "12345678901234567.891", "1e-3"])
def test_a_number_that_its_column_would_round_is_set_aside(
    connection: Connection, query: Query, way: str, value: str
) -> None:
    numbers = ["19.99", "20.0100", '"3.50"', value, "5"]
    said = r"decimals|has the number .* in the field 'v', whose column takes 2 decimals"
    with pytest.raises(BadPayloadError, match=said):
        load_pages(connection, page_of(numbers), records=WAYS[way], columns={"v": "numeric(30,2)"})
    found = [float(value) for (value,) in query("select v from raw_shop.items order by id")]
    assert found == [19.99, 20.01, 3.5, 5.0]
    [(record,)] = query("select record from elt.rejects")
    assert json.loads(record)["v"] == json.loads(value)


def test_a_reject_of_a_function_of_ones_own_keeps_its_digits_and_is_replayed_with_them(
    connection: Connection, query: Query, database: URL
) -> None:
    page = b'[{"id": 1, "v": 12345678901234567.8901, "w": "soon", "x": [1e400, 0.10]}]'
    pins = {"v": "numeric", "w": "date"}
    load_pages(connection, page, records=in_python, columns=pins, max_rejects=1)
    [(record,)] = query("select record from elt.rejects")
    assert '"v": 12345678901234567.8901' in record
    assert '"x": [1e400, 0.10]' in record
    query("update elt.rejects set record = replace(record, '1e400', '1')")
    resource = items(columns={"v": "numeric"}, records=in_python)
    replay(lambda: psycopg2.connect(libpq(database)), "shop", resource, Partition())
    assert query("select v from raw_shop.items") == [(Decimal("12345678901234567.8901"),)]


def test_what_is_nested_in_a_pinned_resource_is_stored_as_without_a_pin(
    connection: Connection, query: Query
) -> None:
    page = (
        b'[{"id": 1, "v": 1.50, "w": [1.50, {"a": 2e3}], "x": 0.10, "y": "2"},'
        b' {"id": 2, "y": 1.50}]'
    )
    load_pages(connection, page, columns={"v": "numeric"})
    assert query("select w::text, x, y from raw_shop.items order by id") == [
        ('[1.5, {"a": 2000.0}]', 0.1, "2"),
        (None, None, "1.5"),
    ]


def test_functions_of_ones_own_calculate_with_pinned_numbers(
    connection: Connection, query: Query
) -> None:
    def with_tax(page: Page) -> list[Any]:
        return [{**record, "tax": record["v"] * 0.5} for record in page.document]

    resource = items(records=with_tax, columns={"v": "numeric", "tax": "numeric"})
    load_api(connection, MemoryApi([b'[{"id": 1, "v": 3.10}]']), resource)
    assert query("select v::text, tax::text from raw_shop.items") == [("3.10", "1.55")]


def test_pinned_numbers_take_the_fast_way() -> None:
    resource = Resource("items", "items", records_at(), key=("id",), columns={"v": "numeric"})
    pins = Pins({"v": "numeric(30,4)"}, lambda fields: {field: field for field in fields})
    tables = TypedParser(resource, {}, pins)
    read = tables.read(Page(page_of(["1.50", "12345678901234567.8901"]), "page"))
    assert read is not None
    assert read[0].copy_source({"id": "bigint", "v": "numeric"})[1] == (
        b"0,1.50\n1,12345678901234567.8901\n"
    )
    assert tables.read(Page(page_of(["1.50", "1.00005"]), "page")) is None


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.decimals(-(10**40), 10**40, allow_nan=False, allow_infinity=False, places=12).map(str)
        | st.integers(-(10**50), 10**50).map(str)
        | st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(sorted(WAYS)),
)
def test_any_number_is_exact(
    connection: Connection, query: Query, numbers: list[str], way: str
) -> None:
    load_pages(
        connection,
        page_of(numbers),
        records=WAYS[way],
        columns={"v": "numeric"},
        disposition="replace",
        max_shrinkage=1,
    )
    found = [value for (value,) in query("select v from raw_shop.items order by id")]
    assert found == [Decimal(number) for number in numbers]
