"""Promises about records that Postgres can't hold: set aside, with the reason."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from memory_api import load_pages
from psycopg2.extensions import connection as Connection

from flows.declaration import Cursor
from flows.errors import BadPayloadError

Query = Callable[..., list[tuple[Any, ...]]]

UNSTORABLE = "NUL character"
NUMBERS = (
    "select state, extracted, inserted, updated, unchanged, rejected from elt.loads"
    " order by load_id desc limit 1"
)


def body(record: str, encoding: str = "utf-8") -> bytes:
    return f'[{{"id": 1}}, {record}, {{"id": 3}}]'.encode(encoding, "surrogatepass")


BAD_BODIES = [
    pytest.param(body('{"id": null}'), "has no id, which is its key", id="null key"),
    pytest.param(body('{"v": 2}'), "has no id, which is its key", id="no key"),
    pytest.param(body("{}"), "is an empty object", id="empty"),
    pytest.param(body('"two"'), 'is "two", not an object', id="string"),
    pytest.param(body("null"), "is null, not an object", id="null"),
    pytest.param(body("[2]"), "is [2], not an object", id="array"),
    pytest.param(body(r'{"id": 2, "v": "\u0000"}'), UNSTORABLE, id="NUL"),
    pytest.param(body(r'{"id": 2, "\u0000": 2}'), UNSTORABLE, id="NUL in a name"),
    pytest.param(body(r'{"id": 2, "v": [{"a": "\u0000"}]}'), UNSTORABLE, id="NUL within"),
    pytest.param(body(r'{"id": 2, "v": "\ud800"}'), UNSTORABLE, id="half a pair"),
    pytest.param(body(r'{"id": 2, "v": "\uDC00x"}'), UNSTORABLE, id="other half"),
    pytest.param(body('{"id": 2, "v": "\ud800"}'), UNSTORABLE, id="half a pair as bytes"),
    pytest.param(body('{"id": 2, "v": 1e999}'), UNSTORABLE, id="beyond double"),
    pytest.param(body('{"id": 2, "v": {"a": [-1E+999]}}'), UNSTORABLE, id="beyond double within"),
    pytest.param(body(f'{{"id": 2, "v": 1{"0" * 250}e99}}'), UNSTORABLE, id="long beyond double"),
    pytest.param(body(r'{"id": 2, "v": "\u0000"}', "utf-16"), UNSTORABLE, id="NUL in UTF-16"),
    pytest.param(body('{"id": 2, "v": 1e999}', "utf-32"), UNSTORABLE, id="UTF-32"),
]


@pytest.mark.parametrize(("page", "reason"), BAD_BODIES)
def test_a_record_that_can_not_be_stored_is_set_aside_and_all_others_are_loaded(
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
    """The next load asks for them again, and stores them when the API has mended them."""
    dated = {"cursor": Cursor("at")}
    load_pages(connection, [{"id": 1, "at": "2024-01-01"}], **dated)
    with pytest.raises(BadPayloadError):
        load_pages(connection, [{"id": 2, "at": "2024-02-01"}, {"at": "2024-03-01"}], **dated)
    [(cursor_at,)] = query("select cursor_at at time zone 'UTC' from elt.checkpoints")
    assert f"{cursor_at:%F}" == "2024-01-01"
