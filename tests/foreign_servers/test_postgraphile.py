"""Promises of extract and load together, kept with PostGraphile: GraphQL, by Relay's cursors.

It serves tables of the test's own database, with which the raw tables are compared.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import BadPayloadError, BadRequestError
from flows.source import Source
from tests.foreign_servers import postgraphile, services
from tests.foreign_servers.loading import Query, changed, load_resource, stored, whole_rows

pytestmark = pytest.mark.long

TABLES = """
create schema shop
create table orders (
    id int primary key,
    customer int not null,
    note text,
    ship_to jsonb not null,
    is_paid boolean not null,
    freight numeric(30, 4) not null,
    changed_at timestamptz not null
);
insert into shop.orders
select
    n, n % 3, case when n % 5 > 0 then format('Größe %s “✓” \t\\', n) end,
    jsonb_build_object('city', 'London', 'lines', jsonb_build_array(n, null)),
    n % 2 = 0, 12345678901234567 + n / 8.0, timestamptz '2024-03-01 08:00+00' + n * interval '1 h'
from generate_series(1, 24) as n;
create function shop.orders_risk(o shop.orders) returns int language sql stable as
$$ select case when o.customer = 2 then 1 / (o.customer - 2) else 7 end $$;
"""
# A number of arbitrary precision is text to GraphQL.
SERVED = """
select jsonb_build_object(
    'id', id, 'customer', customer, 'note', note, 'ship_to', ship_to, 'is_paid', is_paid,
    'freight', freight::text, 'changed_at', changed_at
)
from shop.orders order by id
"""


@pytest.fixture
def shop(database: URL, tmp_path: Path, query: Query) -> Iterator[Source]:
    """The source, its PostGraphile running on tables of the test's own."""
    query(TABLES)
    with services.postgraphile(tmp_path, libpq(database), "shop") as url:
        yield replace(postgraphile.SOURCE, base_url=url)


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """PostGraphile and Postgres write the same time in two ways."""
    return [{k: v for k, v in record.items() if k != "changed_at"} for record in records]


def assert_exact(query: Query, shop: Source) -> None:
    served = [record for (record,) in query(SERVED)]
    assert without_times(stored(query, shop, "orders")) == without_times(served)
    times = "select id, changed_at::timestamptz from {} order by id"
    assert query(times.format("raw_postgraphile.orders")) == query(times.format("shop.orders"))


def test_every_node_arrives_and_later_what_changed(
    shop: Source, connection: Connection, query: Query
) -> None:
    (first,) = load_resource(connection, shop, "orders")
    assert (first.pages, first.inserted) == (3, 24)
    assert_exact(query, shop)
    before = whole_rows(query, shop, "orders")
    assert changed(load_resource(connection, shop, "orders")) == (0, 0, 0)
    assert whole_rows(query, shop, "orders") == before
    query("update shop.orders set note = 'late', freight = 0.1 where id = 17")
    query("insert into shop.orders select 25, 1, null, '[]', true, 1, '2024-04-01 08:00+02'")
    assert changed(load_resource(connection, shop, "orders")) == (1, 1, 0)
    assert_exact(query, shop)


def test_a_field_that_is_not_there_is_an_error_that_names_it(
    shop: Source, connection: Connection
) -> None:
    with pytest.raises(BadRequestError, match=r"Cannot query field .*fright"):
        load_resource(connection, shop, "misspelt")


def test_errors_beside_data_fail_the_load(shop: Source, connection: Connection) -> None:
    """The answer is a success, with null for what could not be computed."""
    with pytest.raises(BadPayloadError, match="division by zero"):
        load_resource(connection, shop, "risks")
