"""Promises of column names: snake_case, short enough for Postgres, and never two fields in one."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from random import Random
from threading import Barrier
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import ConfigurationError
from flows.limits import SYSTEM_COLUMNS
from flows.load.column_names import OWN_COLUMNS, column_name, column_names
from flows.load.loader import load
from flows.page import Page, Resume
from flows.source import Partition, Window
from tests.load.memory_api import WAYS, MemoryApi, items, load_pages

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


@given(encodable)
def test_a_column_name_fits_postgres(field: str) -> None:
    assert 0 < len(column_name(field).encode()) <= 63


@given(st.text(st.characters(codec="ascii"), max_size=200))
def test_a_column_name_is_its_own_column_name(field: str) -> None:
    name = column_name(field)
    assert column_name(name) == name


def test_long_names_are_cut_but_stay_apart() -> None:
    names = {column_name("long" * 20 + end) for end in ("", "a", "b")}
    assert len(names) == 3
    assert column_name("long" * 20) == "long" * 13 + "lo_5aa1dce7"


# Postgres can't store NUL: records with such a field are rejected (test_rejects.py).
storable = encodable.filter(lambda field: "\0" not in field)

# Many of them compete for one column, or for one of the load's own.
fields = st.lists(
    storable
    | st.sampled_from(["id", "Id", "createdAt", "created_at", "Created At", "%", "", "_", "é", "É"])
    | st.sampled_from(["_loaded_at", "xmin", "1", "_1", "a" * 64, "A" * 64, "created_at_9e30d1d2"]),
    unique=True,
    max_size=8,
)


@given(fields, st.randoms())
def test_fields_of_one_page_have_the_same_columns_in_any_order(
    fields: list[str], random: Random
) -> None:
    names = column_names(fields, {})
    shuffled = random.sample(fields, len(fields))
    assert column_names(shuffled, {}) == names
    assert list(names) == fields
    assert len(set(names.values())) == len(fields)
    assert all(0 < len(name.encode()) <= 63 for name in names.values())
    for field, name in names.items():
        assert name == column_name(field) or name[:-9] == column_name(field).encode()[:54].decode(
            errors="ignore"
        )


SOURCES = (f"shop_{number}" for number in count())
MAPPING = "select field, column_name from elt.columns where table_schema = %s order by named_at"


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(fields, st.data())
def test_each_field_keeps_its_column_whatever_order_pages_and_loads_bring_it_in(
    connection: Connection, query: Query, fields: list[str], data: st.DataObject
) -> None:
    """Every value is in its field's own column, and no load moves a field that has one."""
    source = next(SOURCES)
    orders = st.lists(st.sampled_from(fields or ["id"]), unique=True)
    loads = data.draw(st.lists(st.lists(orders, min_size=1, max_size=2), min_size=1, max_size=3))
    number, known = 0, dict[str, str]()
    for pages in loads:
        bodies = [[{"key": number + n} | dict.fromkeys(page, "x")] for n, page in enumerate(pages)]
        resource = items(key=("key",), checkpoint_rows=data.draw(st.sampled_from([1, 9])))
        load(connection, source, resource, Partition(), MemoryApi(bodies))
        names = dict(query(MAPPING, f"raw_{source}"))
        assert known.items() <= names.items()
        assert len(set(names.values())) == len(names)
        for n, page in enumerate(pages):
            select = f"select to_jsonb(items) from raw_{source}.items where key = %s"  # noqa: S608
            [(row,)] = query(select, number + n)
            filled = {name for name, value in row.items() if value == "x"}
            assert filled == {names[field] for field in page}
        number, known = number + len(pages), names


@pytest.mark.parametrize("field", sorted({"_LoadID", "_present_at", *OWN_COLUMNS, *SYSTEM_COLUMNS}))
def test_names_that_are_taken_get_an_underscore(
    connection: Connection, query: Query, field: str
) -> None:
    load_pages(connection, [{"id": 1, field: 7}])
    [row] = query("select to_jsonb(items) ->> %s from raw_shop.items", column_name(field))
    assert row == ("7",)
    assert column_name(field).endswith("_")


def columns_of(query: Query) -> dict[str, str]:
    """Each field's column, as far as the newest load knows."""
    return dict(query("select field, column_name from elt.columns order by named_at"))


def stored(query: Query) -> list[dict[str, Any]]:
    """The values of each row that are not null, by the field whose column they are in."""
    fields = {column: field for field, column in columns_of(query).items()}
    rows = query("select to_jsonb(items) from raw_shop.items order by _load_id, 1")
    return [
        {
            fields[name]: value
            for name, value in row.items()
            if value is not None and name not in OWN_COLUMNS
        }
        for (row,) in rows
    ]


@pytest.mark.parametrize("way", WAYS)
def test_fields_that_differ_by_case_or_punctuation_have_columns_of_their_own(
    connection: Connection, query: Query, way: str
) -> None:
    record = {"id": 1, "Id": 2, "createdAt": "a", "created_at": "b", "%": 3, "😀": 4, "": 5}
    load_pages(
        connection, [record], [dict(reversed(record.items())) | {"id": 6}], records=WAYS[way]
    )
    assert stored(query) == [record, record | {"id": 6}]
    assert columns_of(query) == {
        "id": "id",
        "Id": "id_12156e92",
        "createdAt": "created_at_70c2c561",
        "created_at": "created_at",
        "%": "__bbf3f11c",
        "😀": "__f0443a34",
        "": "_",
    }


def test_the_field_that_came_first_keeps_its_column(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1, "createdAt": "a"}])
    load_pages(connection, [{"id": 2, "created_at": "b"}, {"id": 3, "createdAt": "c"}])
    assert columns_of(query)["createdAt"] == "created_at"
    assert stored(query) == [
        {"id": 1, "createdAt": "a"},
        {"id": 2, "created_at": "b"},
        {"id": 3, "createdAt": "c"},
    ]


def test_columns_from_before_belong_to_the_fields_that_come_first(
    connection: Connection, query: Query
) -> None:
    """Before, no load noted which field a column is of."""
    load_pages(connection, [{"Id": 1, "createdAt": "a"}], key=("Id",))
    query("delete from elt.columns")
    load_pages(connection, [{"Id": 1, "createdAt": "b"}], key=("Id",))
    load_pages(connection, [{"Id": 1, "id": 7, "createdAt": "c", "created_at": 8}], key=("Id",))
    assert query("select id, created_at from raw_shop.items") == [(1, "c")]


def test_the_key_and_the_partitions_fields_choose_before_those_of_records(
    connection: Connection, query: Query
) -> None:
    city = Partition("Bonn", {"City": "Bonn"})
    declared: dict[str, Any] = {
        "key": ("City", "ID"),
        "partitions": (city,),
        "partition_columns": ("City",),
        "disposition": "replace",
        "partition": city,
    }
    for value in (5, 6):
        load_pages(connection, [{"id": value, "city": "elsewhere", "ID": 1}], **declared)
    names = columns_of(query)
    assert (names["ID"], names["City"]) == ("id", "city")
    assert stored(query) == [{"City": "Bonn", "id": 6, "city": "elsewhere", "ID": 1}]


def test_a_declared_name_is_the_fields_column(connection: Connection, query: Query) -> None:
    declared: dict[str, Any] = {
        "key": ("ID",),
        "names": {"ID": "item", "createdAt": "made_at", "gone": "id"},
        "columns": {"made_at": "date"},
    }
    load_pages(connection, [{"ID": 1, "createdAt": "2024-01-02", "made_at": 3}], **declared)
    assert columns_of(query)["made_at"].startswith("made_at_")
    assert stored(query) == [{"ID": 1, "createdAt": "2024-01-02", "made_at": 3}]
    assert query("select item, made_at::text from raw_shop.items") == [(1, "2024-01-02")]


def test_a_name_that_is_declared_later_counts_from_then_on(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "createdAt": "a"}])
    load_pages(connection, [{"id": 2, "createdAt": "b"}], names={"createdAt": "made_at"})
    load_pages(connection, [{"id": 3, "createdAt": "c"}])
    load_pages(connection, [{"id": 4, "created_at": "d"}])
    assert columns_of(query)["created_at"].startswith("created_at_")
    assert query("select id, created_at, made_at from raw_shop.items order by id") == [
        (1, "a", None),
        (2, None, "b"),
        (3, None, "c"),
        (4, None, None),
    ]


def test_a_declared_name_can_not_take_another_fields_column(connection: Connection) -> None:
    load_pages(connection, [{"id": 1, "price": 5}])
    with pytest.raises(ConfigurationError, match=r"raw_shop.items.*'price'.*'cost'.*of 'price'"):
        load_pages(connection, [{"id": 1, "cost": 5}], names={"cost": "price"})


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"a": "Made At"}, "is not a valid column name"),
        ({"a": ""}, "is not a valid column name"),
        ({"a": "a" * 64}, "is not a valid column name"),
        ({"a": "_load_id"}, "is not a valid column name"),
        ({"a": "xmin"}, "is not a valid column name"),
        ({"a": "made_at", "b": "made_at"}, "is used twice"),
        ({"a": "id"}, "belongs to another field"),
    ],
)
def test_a_declared_name_that_no_column_can_have_is_refused(
    names: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        items(names=names)


def test_loads_at_the_same_time_agree_on_the_columns_of_new_fields(
    database: URL, query: Query
) -> None:
    """Both have read what is known before either of them meets its fields."""
    begun = Barrier(2)

    def load_partition(name: str) -> None:
        record: dict[str, Any] = {"id": 1, "createdAt": name, "created_at": name, "x y": name}
        fields = record if name == "a" else dict(reversed(record.items()))

        def pages(window: Window, resume: Resume | None) -> Iterator[Page]:
            begun.wait(timeout=20)
            yield from MemoryApi([[fields | {f"Only {name}": 1}], [fields | {"X Y": name}]])(
                window, resume
            )

        partition = Partition(name, {"part": name})
        resource = items(
            key=("part", "id"),
            partitions=(partition,),
            partition_columns=("part",),
        )
        with closing(psycopg2.connect(libpq(database))) as own:
            load(own, "shop", resource, partition, pages)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(load_partition, "ab"))
    assert len(set(columns_of(query).values())) == 8
    wanted = ("createdAt", "created_at", "x y", "X Y")
    assert sorted([row[field] for field in wanted] for row in stored(query) if "X Y" in row) == [
        ["a"] * 4,
        ["b"] * 4,
    ]


def test_any_name_that_postgres_quotes_is_stored(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1, "Größe": 1, "select": 2, "a" * 70: 3, "": 4, "1%s{}": 5}])
    found = query('select größe, "select", _, _1_s from raw_shop.items')
    assert found == [(1, 2, 4, 5)]
