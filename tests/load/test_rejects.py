"""Promises about records that Postgres can't store: rejected, with the reason."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError
from flows.source import Cursor
from tests.load.memory_api import WAYS, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

NUL = "has a NUL character in the field 'v"
HALF = "has half a surrogate pair in the field 'v'"
BEYOND = "has a number beyond double precision in the field 'v"
NUMBERS = (
    "select state, extracted, inserted, updated, unchanged, rejected from elt.loads"
    " order by load_id desc limit 1"
)


def body(record: str, encoding: str = "utf-8") -> bytes:
    return f'[{{"id": 1}}, {record}, {{"id": 3}}]'.encode(encoding, "surrogatepass")


BAD_BODIES = [
    pytest.param(
        body('{"id": null}'), "has null in the field 'id', which is part of", id="null key"
    ),
    pytest.param(body('{"v": 2}'), "has no field 'id', which is part of", id="no key"),
    pytest.param(body("{}"), "is an empty object", id="empty"),
    pytest.param(body('"two"'), 'is "two", not an object', id="string"),
    pytest.param(body("null"), "is null, not an object", id="null"),
    pytest.param(body("[2]"), "is [2], not an object", id="array"),
    pytest.param(body(r'{"id": 2, "v": "\u0000"}'), NUL, id="NUL"),
    pytest.param(
        body(r'{"id": 2, "\u0000": 2}'), "in the name of the field '\\x00'", id="NUL in a name"
    ),
    pytest.param(
        body(r'{"id": 2, "v": [{"a": "\u0000"}]}'),
        "NUL character in the field 'v[0].a'",
        id="NUL within",
    ),
    pytest.param(body(r'{"id": 2, "v": "\ud800"}'), HALF, id="half a pair"),
    pytest.param(body(r'{"id": 2, "v": "\uDC00x"}'), HALF, id="other half"),
    pytest.param(body('{"id": 2, "v": "\ud800"}'), HALF, id="half a pair as bytes"),
    pytest.param(body('{"id": 2, "v": 1e999}'), BEYOND, id="beyond double"),
    pytest.param(
        body('{"id": 2, "v": {"a": [-1E+999]}}'),
        "precision in the field 'v.a[0]'",
        id="beyond double within",
    ),
    pytest.param(body(f'{{"id": 2, "v": 1{"0" * 250}e99}}'), BEYOND, id="long beyond double"),
    pytest.param(body(r'{"id": 2, "v": "\u0000"}', "utf-16"), NUL, id="NUL in UTF-16"),
    pytest.param(body('{"id": 2, "v": 1e999}', "utf-32"), BEYOND, id="UTF-32"),
]


@pytest.mark.parametrize(("page", "reason"), BAD_BODIES)
def test_a_record_that_can_not_be_stored_is_rejected_and_all_others_are_loaded(
    connection: Connection, query: Query, page: bytes, reason: str
) -> None:
    with pytest.raises(BadPayloadError, match="1 records could not be stored") as failure:
        load_pages(connection, page, [{"id": 4}])
    assert query("select id from raw_shop.items order by id") == [(1,), (3,), (4,)]
    assert query(NUMBERS) == [("failed", 4, 3, 0, 0, 1)]
    [(load_id, kept, record)] = query("select load_id, reason, record from elt.rejects")
    assert load_id == 1
    assert reason in kept
    assert reason in str(failure.value)
    assert json.loads(record) == json.loads(page)[1]


@pytest.mark.parametrize(
    "value", [r"\ud83d\ude00", r"\\u0000", "1e999", "\ue000", "e" * 400, "7" * 400]
)
def test_a_value_that_only_looks_unstorable_is_stored(
    connection: Connection, query: Query, value: str
) -> None:
    page = f'[{{"id": 1, "v": "{value}"}}]'.encode()
    assert load_pages(connection, page).state == "succeeded"
    assert query("select v from raw_shop.items") == [(json.loads(page)[0]["v"],)]


def test_records_without_a_declared_key_need_none(connection: Connection, query: Query) -> None:
    load_pages(connection, [{"id": None, "v": 1}], key=())
    assert query("select id, v from raw_shop.items") == [(None, 1)]


def test_rejects_up_to_the_limit_let_the_load_succeed(connection: Connection, query: Query) -> None:
    page = [{"id": 1}, "a", "b"]
    assert load_pages(connection, page, max_rejects=2).state == "succeeded"
    with pytest.raises(BadPayloadError, match="2 records could not be stored"):
        load_pages(connection, page, max_rejects=1)
    assert query(NUMBERS) == [("failed", 3, 0, 0, 1, 2)]


def test_too_many_rejects_leave_the_cursor_where_it_was(
    connection: Connection, query: Query
) -> None:
    """The next load requests them again, and stores them once the API has fixed them."""
    dated = {"cursor": Cursor("at")}
    load_pages(connection, [{"id": 1, "at": "2024-01-01"}], **dated)
    with pytest.raises(BadPayloadError):
        load_pages(connection, [{"id": 2, "at": "2024-02-01"}, {"at": "2024-03-01"}], **dated)
    [(cursor_at,)] = query("select cursor_at at time zone 'UTC' from elt.checkpoints")
    assert f"{cursor_at:%F}" == "2024-01-01"


def reason_of(connection: Connection, *records: Any, **changes: Any) -> str:
    """A load's error message, with the first rejected record."""
    with pytest.raises(BadPayloadError) as failure:
        load_pages(connection, list(records), **changes)
    return str(failure.value)


def test_a_record_without_its_key_is_shown_with_the_fields_it_has(connection: Connection) -> None:
    said = reason_of(connection, {"id;name": "1;Eve"})
    assert "no field 'id', which is part of its key; it has the fields 'id;name': {" in said
    many = {f"field_{n}": n for n in range(9)}
    assert "'field_4', …: {" in reason_of(connection, many)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        ({"when": "soon"}, '"when"', "in the field 'when', whose column (date) takes"),
        ({"Due Date": "later"}, '"Due Date"', "in the field 'Due Date', whose column (date) takes"),
        ({"v": {"deep": ["\0"]}}, '"deep"', "a NUL character in the field 'v.deep[0]'"),
        ({"x\0": 1}, r'"x\u0000"', r"in the name of the field 'x\x00'"),
    ],
)
def test_an_error_shows_the_part_of_the_record_that_its_reason_is_about(
    connection: Connection, query: Query, way: str, bad: Any, field: str, reason: str
) -> None:
    record = {"id": 1, "before": "b" * 5000} | bad | {"after": "a" * 5000}
    pins = {"columns": {"when": "date", "due_date": "date"}}
    said = reason_of(connection, record, records=WAYS[way], **pins)
    assert reason in said
    shown = said.split(": …b")[1].split("a…. All others")[0]
    assert field in shown
    assert len(shown) < 250
    assert [json.loads(kept) for (kept,) in query("select record from elt.rejects")] == [record]


def test_a_refusal_of_postgres_is_cut(connection: Connection, query: Query) -> None:
    said = reason_of(connection, {"id": 1, "v": "x" * 100_000}, columns={"v": "date"})
    assert len(said) < 1000
    assert len(query("select reason from elt.rejects")[0][0]) < 500
