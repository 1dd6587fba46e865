"""Promises of raw columns: their types, how they widen, and how the views on them survive."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError, ConfigurationError
from tests.load.memory_api import load_pages

Query = Callable[..., list[tuple[Any, ...]]]

TYPES = (
    "select column_name, data_type from information_schema.columns"
    " where table_schema = 'raw_shop' and table_name = 'items' order by ordinal_position"
)
CHANGES = "select column_name, old_type, new_type from elt.schema_changes order by 1, 3"
VALUES = "select v from raw_shop.items order by id"
FIRST_OF_BIG = 2**63


def type_of(query: Query, column: str = "v") -> str:
    return dict(query(TYPES))[column]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, -1], "bigint"),
        ([FIRST_OF_BIG - 1, -FIRST_OF_BIG], "bigint"),
        ([FIRST_OF_BIG], "text"),
        ([1.5], "double precision"),
        ([1, 1.5], "double precision"),
        ([2**53 + 1, 1.5], "text"),
        ([True, False], "boolean"),
        ([True, 1], "text"),
        (["2024-01-01"], "text"),
        (["1"], "text"),
        (["a", 1], "text"),
        ([{"a": 1}], "jsonb"),
        ([[1]], "jsonb"),
        (["a", [1]], "jsonb"),
        ([None], "text"),
        ([None, 1], "bigint"),
    ],
    ids=str,
)
def test_json_decides_the_type(
    connection: Connection, query: Query, values: list[Any], kind: str
) -> None:
    load_pages(connection, [{"id": n, "v": value} for n, value in enumerate(values)])
    assert type_of(query) == kind


def test_every_row_carries_its_load(connection: Connection, query: Query) -> None:
    entry = load_pages(connection, [{"id": 1, "v": 1}])
    assert [name for name, _ in query(TYPES)] == ["id", "v", "_loaded_at", "_load_id"]
    found = query("select _load_id, _loaded_at > now() - interval '1 minute' from raw_shop.items")
    assert found == [(entry.load_id, True)]


def test_pinned_numbers_are_exact(connection: Connection, query: Query) -> None:
    body = b'[{"id": 1, "v": 0.1}, {"id": 2, "v": 12345678901.2345}, {"id": 3, "v": 7}]'
    load_pages(connection, body, columns={"v": "numeric(15,4)"})
    values = [value for (value,) in query(VALUES)]
    assert values == [Decimal("0.1"), Decimal("12345678901.2345"), Decimal(7)]


@pytest.mark.parametrize("pin", ["timestamptz", "timestamp with time zone"])
def test_a_pin_is_no_schema_change_however_it_is_spelled(
    connection: Connection, query: Query, pin: str
) -> None:
    seen, null = [{"id": 1, "v": "2024-01-01"}], [{"id": 2, "v": None}]
    for _ in range(2):
        load_pages(connection, null, seen, null, columns={"v": pin})
    assert type_of(query) == "timestamp with time zone"
    assert query(CHANGES) == []


def test_a_pin_that_is_added_later_changes_the_column(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1, "v": 1.25}])
    load_pages(connection, [{"id": 2, "v": 1.5}], columns={"v": "numeric(8,2)"})
    assert query(VALUES) == [(Decimal("1.25"),), (Decimal("1.50"),)]
    assert query(CHANGES) == [("v", "double precision", "numeric(8,2)")]


@pytest.mark.parametrize(
    ("pin", "value"),
    [
        ("date", "soon"),
        ("numeric(3,0)", 1000),
        ("bigint", "5\n6\t7"),
        ("bigint", True),
        ("bigint", 2**63),
        ("varchar(1)", "ab"),
    ],
)
def test_a_record_that_does_not_fit_a_pinned_column_is_rejected(
    connection: Connection, query: Query, pin: str, value: Any
) -> None:
    """The line break would begin a row of its own if the value were not escaped."""
    load_pages(connection, [{"id": 1}])
    with pytest.raises(
        BadPayloadError,
        match=r"1 records could not be stored.*in the field 'v'(, whose| that Postgres refused)",
    ):
        load_pages(connection, [{"id": 4}, {"id": 5, "v": value}, {"id": 6}], columns={"v": pin})
    assert query("select id from raw_shop.items order by id") == [(1,), (4,), (6,)]
    assert query("select record::jsonb -> 'v' from elt.rejects") == [(value,)]


def test_a_pin_that_fits_no_record_is_a_configuration_error(
    connection: Connection, query: Query
) -> None:
    with pytest.raises(ConfigurationError, match="Correct the resource's `columns`"):
        load_pages(connection, [{"id": n, "v": "x"} for n in range(300)], columns={"v": "date"})
    assert query("select count(*) from elt.rejects") == [(0,)]


def test_an_unknown_pin_is_a_configuration_error(connection: Connection) -> None:
    with pytest.raises(ConfigurationError, match='type "money9" does not exist'):
        load_pages(connection, [{"id": 1, "v": 1}], columns={"v": "money9"})


WIDENINGS = [
    pytest.param([1, 1.5], "double precision", [1, 1.5], id="integer, then number"),
    pytest.param([1.5, 1], "double precision", [1.5, 1], id="number, then integer"),
    pytest.param([2**53 + 1, 1.5], "text", [str(2**53 + 1), "1.5"], id="exact, then number"),
    pytest.param([1, "a"], "text", ["1", "a"], id="integer, then string"),
    pytest.param([1.5, "a"], "text", ["1.5", "a"], id="number, then string"),
    pytest.param([True, 1], "text", ["true", "1"], id="boolean, then integer"),
    pytest.param(["a", 1, True], "text", ["a", "1", "true"], id="string, then others"),
    pytest.param([1, {"a": 1}], "jsonb", [1, {"a": 1}], id="integer, then object"),
    pytest.param(["a", [1]], "jsonb", ["a", [1]], id="string, then array"),
    pytest.param([[1], "a", 2], "jsonb", [[1], "a", 2], id="array, then others"),
    pytest.param([None, 1], "bigint", [None, 1], id="null, then integer"),
    pytest.param([None, {"a": 1}], "jsonb", [None, {"a": 1}], id="null, then object"),
    pytest.param([1, None], "bigint", [1, None], id="integer, then null"),
]


@pytest.mark.parametrize("loads", [1, 2], ids=["in one load", "in two loads"])
@pytest.mark.parametrize(("values", "kind", "stored"), WIDENINGS)
def test_a_column_widens_to_what_holds_all_its_values(
    connection: Connection,
    query: Query,
    values: list[Any],
    kind: str,
    stored: list[Any],
    loads: int,
) -> None:
    pages = [[{"id": n, "v": value}] for n, value in enumerate(values)]
    for part in [pages] if loads == 1 else [pages[:1], pages[1:]]:
        load_pages(connection, *part)
    assert type_of(query) == kind
    assert query(VALUES) == [(value,) for value in stored]


@pytest.mark.parametrize("loads", [1, 2], ids=["in one load", "in two loads"])
def test_an_integer_that_a_double_can_not_hold_stays_exact(
    connection: Connection, query: Query, loads: int
) -> None:
    pages = [[{"id": 1, "v": 1.5}], [{"id": 2, "v": 2**53 + 1}]]
    for part in [pages] if loads == 1 else [pages[:1], pages[1:]]:
        load_pages(connection, *part)
    assert query("select v::text from raw_shop.items where id = 2") == [(str(2**53 + 1),)]


def test_changes_of_shape_are_noted_with_their_load(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1, "v": 1}])
    assert query(CHANGES) == []
    entry = load_pages(connection, [{"id": 2, "v": "a", "w": 1}])
    assert query(CHANGES) == [("v", "bigint", "text"), ("w", None, "bigint")]
    noted = query("select distinct load_id, table_name from elt.schema_changes")
    assert noted == [(entry.load_id, "shop.items")]


def test_a_load_that_fails_leaves_the_shape_as_it_was(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1, "v": 1}])
    with pytest.raises(BadPayloadError):
        load_pages(connection, [{"id": 2, "v": "a", "d": "soon"}], columns={"d": "date"})
    assert type_of(query) == "bigint"
    assert query(CHANGES) == []


@pytest.fixture
def role(query: Query) -> str:
    """A role that exists for all databases of the server."""
    if not query("select 1 from pg_roles where rolname = 'reader'"):
        query("create role reader")
    return "reader"


def test_views_outlive_a_wider_column_with_their_grants_and_comments(
    connection: Connection, query: Query, role: str
) -> None:
    load_pages(connection, [{"id": 1, "v": 1}])
    query("create view public.direct as select id, v from raw_shop.items")
    query("create view public.indirect as select v as w from public.direct")
    query("create view public.both as select d.id, i.w from direct d, indirect i")
    query("comment on view public.indirect is 'It''s 100 % of them'")
    query("comment on column public.indirect.w is 'One of them'")
    query(f"grant select on public.direct, public.indirect to public, {role}")
    query("alter view public.direct set (security_barrier)")
    query(f"alter view public.indirect owner to {role}")
    load_pages(connection, [{"id": 2, "v": "a"}])
    assert query("select w from public.indirect order by w") == [("1",), ("a",)]
    assert query("select count(*) from public.both") == [(4,)]
    assert query(
        "select obj_description(oid), col_description(oid, 1), pg_get_userbyid(relowner)"
        " from pg_class where relname = 'indirect'"
    ) == [("It's 100 % of them", "One of them", role)]
    assert query("select reloptions from pg_class where relname = 'direct'") == [
        (["security_barrier=true"],)
    ]
    for grantee in ("public", role):
        granted = "select has_table_privilege(%s, 'public.direct', 'select')"
        assert query(granted, grantee) == [(True,)]


def test_a_materialized_view_is_not_dropped(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": 1, "v": 1}])
    query("create materialized view public.kept as select v from raw_shop.items")
    with pytest.raises(ConfigurationError, match=r'"public"\."kept" is a materialized view'):
        load_pages(connection, [{"id": 2, "v": "a"}])
    assert query("select v from public.kept") == [(1,)]


@pytest.mark.parametrize(
    ("values", "stored"),
    [
        pytest.param(["5", 6], "text", id="a text of digits, then a number"),
        pytest.param([2**53 + 1, 0.5], "text", id="an integer that a double would round"),
        pytest.param([7, 0.5], "double precision", id="one that it holds"),
        pytest.param([None, 6], "bigint", id="nothing, then a number"),
    ],
)
@pytest.mark.parametrize("checkpoint_rows", [1, 9])
def test_types_do_not_depend_on_where_checkpoints_lie(
    connection: Connection, query: Query, values: list[Any], stored: str, checkpoint_rows: int
) -> None:
    """Pages of one checkpoint are stored at once; their types widen as if one by one."""
    pages = [[{"id": number, "v": value}] for number, value in enumerate(values)]
    for key in (("id",), ()):
        query("drop table if exists raw_shop.items")
        load_pages(connection, *pages, key=key, checkpoint_rows=checkpoint_rows)
        assert query("select distinct pg_typeof(v)::text from raw_shop.items") == [(stored,)]
