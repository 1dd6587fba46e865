"""What `make dbt-diff` reports about two versions of a relation."""

from collections.abc import Callable

import pytest
from psycopg2.extensions import connection as Connection

from commands.dbt_diff.compare import compare, key_of
from flows.dbt_build.publish import RelationName

Query = Callable[..., list[tuple]]

OLD, NEW = RelationName("marts", "Items"), RelationName("marts__trial", "Items")


@pytest.fixture
def published(query: Query) -> None:
    query("create schema marts; create schema marts__trial")
    query(
        'create table marts."Items" as'
        " select id, 'shop' as shop, id * 1.10 as price, null::text as note"
        " from generate_series(1, 1200) as id"
    )


def said(connection: Connection, *key: str) -> list[str]:
    with connection, connection.cursor() as cursor:
        return compare(cursor, OLD, NEW, key)


@pytest.mark.usefixtures("published")
def test_what_is_the_same_is_one_line(connection: Connection, query: Query) -> None:
    query('create view marts__trial."Items" as select * from marts."Items"')
    assert said(connection, "id") == ["marts.Items: 1,200 rows, the same"]


@pytest.mark.usefixtures("published")
def test_keys_that_came_and_went_and_values_that_changed(
    connection: Connection, query: Query
) -> None:
    """With the first three rows of each; null to a value is a change, another order is not."""
    query(
        'create table marts__trial."Items" as select shop, id, price, note from marts."Items"'
        " where id > 2 order by id desc"
    )
    query("""insert into marts__trial."Items" values ('shop', 2000, 0.10, 'x')""")
    query("""update marts__trial."Items" set price = price + 0.01 where id % 100 = 0""")
    query("""update marts__trial."Items" set note = 'now' where id = 3""")
    assert said(connection, "id", "shop") == [
        "marts.Items: 1,200 → 1,199 rows",
        "  key id, shop: 1 new, 2 gone, 13 changed",
        "    + id 2000, shop shop: price 0.11, note x",
        "    - id 1, shop shop: price 1.10, note None",
        "    - id 2, shop shop: price 2.20, note None",
        "    ~ id 3, shop shop: note None → now",
        "    ~ id 100, shop shop: price 110.00 → 110.01",
        "    ~ id 200, shop shop: price 220.00 → 220.01",
    ]


@pytest.mark.usefixtures("published")
def test_columns_that_came_went_or_changed_their_type(connection: Connection, query: Query) -> None:
    query(
        'create table marts__trial."Items" as'
        ' select id, price::numeric(12, 2) as price, note, true as is_new from marts."Items"'
    )
    assert said(connection, "id") == [
        "marts.Items: 1,200 → 1,200 rows",
        "  columns: + is_new boolean, - shop text, price numeric → numeric(12,2)",
        "  key id: 0 new, 0 gone, 0 changed",
    ]


@pytest.mark.usefixtures("published")
def test_a_new_relation_has_rows_only(connection: Connection, query: Query) -> None:
    query('alter table marts."Items" set schema marts__trial')
    assert said(connection, "id") == ["marts.Items: new, 1,200 rows"]


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("key", [[], ["gone"]], ids=["none", "of one version only"])
def test_without_a_key_only_rows_are_counted(
    connection: Connection, query: Query, key: list[str]
) -> None:
    query('create table marts__trial."Items" as select * from marts."Items" limit 7')
    assert said(connection, *key) == [
        "marts.Items: 1,200 → 7 rows",
        "  no tested key in both versions: values not compared",
    ]


def test_the_key_is_what_a_test_says_is_unique() -> None:
    def tested(model: str, name: str, **arguments: object) -> dict[str, object]:
        return {"attached_node": model, "test_metadata": {"name": name, "kwargs": arguments}}

    nodes = {
        "1": {"name": "a model has no test of its own"},
        "2": tested("model.lines", "not_null", column_name="order_id"),
        "3": tested("model.orders", "unique", column_name="order_id"),
        "4": tested("model.lines", "unique_combination", columns=["order_id", "product_id"]),
    }
    assert key_of({"nodes": nodes}, "model.orders") == ["order_id"]
    assert key_of({"nodes": nodes}, "model.lines") == ["order_id", "product_id"]
    assert key_of({"nodes": nodes}, "model.other") == []
