"""Promises of records in lists in lists, in objects by their id, and in arrays of values."""

import io
import json
import zipfile
from typing import Any

import pytest

from flows.errors import BadPayloadError, ConfigurationError, PayloadTooLargeError
from flows.extract.paginators import keyset, next_link, offset, page_number
from flows.extract.seen_pages import SMALL_BYTES
from flows.extract.selectors import keyed_at, records_at, rows_at, xml_at, zipped
from flows.page import Page
from flows.source import Resource
from tests.extract.reading import read, rows
from tests.http_servers import Answer, Asked, Serve

LINES = {
    "currency": "EUR",
    "orders": [
        {"id": 7, "lines": [{"n": 1}, {"n": 2}]},
        {"id": 8, "lines": []},
        {"id": 9, "lines": [{"n": 1}]},
    ],
}


def page(document: Any) -> Page:
    return Page(json.dumps(document).encode(), "http://api/orders")


def found(records: Any, document: Any) -> list[Any]:
    """The records as Python objects, which are those that are cut out of the body as well."""
    cut = records.raw(page(document))
    parsed = records(page(document))
    assert cut is not None
    assert json.loads(cut) == parsed
    return parsed


def refused(records: Any, document: Any) -> str:
    """What is said of a body that is refused, read either way."""
    assert records.raw(page(document)) is None
    with pytest.raises(BadPayloadError) as failure:
        records(page(document))
    return str(failure.value)


def test_each_element_of_a_list_has_a_record() -> None:
    document = {"data": {"items": [{"node": {"id": 1}}, {"node": {"id": 2}}]}}
    assert found(records_at("data.items[].node"), document) == [{"id": 1}, {"id": 2}]


def test_lists_in_lists_are_one_list_with_fields_from_above() -> None:
    parents = {"order_id": "orders[].id", "currency": "currency"}
    assert found(records_at("orders[].lines[]", parents=parents), LINES) == [
        {"currency": "EUR", "order_id": 7, "n": 1},
        {"currency": "EUR", "order_id": 7, "n": 2},
        {"currency": "EUR", "order_id": 9, "n": 1},
    ]
    assert found(records_at("orders[].lines[]"), LINES) == [{"n": 1}, {"n": 2}, {"n": 1}]


def test_the_outermost_list_may_be_the_document() -> None:
    selector = records_at("[].lines[]", parents={"order_id": "[].id"})
    assert [line["order_id"] for line in found(selector, LINES["orders"])] == [7, 7, 9]


@pytest.mark.parametrize(
    ("path", "document", "said"),
    [
        ("orders[].lines[]", {"orders": {"id": 7}}, "a list at 'orders', but there is ['id']"),
        ("orders[].lines[]", {"orders": [{"lines": None}]}, "a list at 'orders[].lines'"),
        ("orders[].lines[]", {"orders": [{"id": 7}]}, "the field 'lines'"),
        ("orders[].lines[]", {"error": "busy"}, "the field 'orders'"),
        ("items[].node", {"items": [{"id": 1}]}, "the field 'node'"),
    ],
)
def test_another_document_is_an_error_that_shows_what_is_there(
    path: str, document: Any, said: str
) -> None:
    assert said in refused(records_at(path), document)


@pytest.mark.parametrize("orders", [None, [], [{"lines": None}, {}]])
def test_lists_that_are_optional_may_be_null_or_missing(orders: Any) -> None:
    assert found(records_at("orders[].lines[]", optional=True), {"orders": orders}) == []


def test_a_record_that_is_null_stays_to_be_rejected() -> None:
    assert found(records_at("items[].node"), {"items": [{"node": None}]}) == [None]


def test_a_field_from_above_never_replaces_the_records_own() -> None:
    selector = records_at("orders[].lines[]", parents={"n": "orders[].id"})
    for way in (selector, selector.raw):
        with pytest.raises(ConfigurationError, match="a parent's field 'n', but the records"):
            way(page(LINES))


@pytest.mark.parametrize("parent", ["items[].id", "orders[]", "orders[].lines[].n[].m", ""])
def test_fields_that_are_not_above_the_records_are_refused(parent: str) -> None:
    with pytest.raises(ConfigurationError, match="which is no field above the records"):
        records_at("orders[].lines[]", parents={"x": parent})


def test_fields_from_above_need_a_path_through_a_list() -> None:
    with pytest.raises(ConfigurationError, match=r"write 'orders\[\]'"):
        records_at("orders", parents={"x": "id"})


@pytest.mark.parametrize(
    "selector", [records_at("orders[].lines[]"), records_at("items[].node", optional=True)]
)
@pytest.mark.parametrize("paging", [offset(), page_number(), keyset("id", param="after")])
def test_paging_that_counts_has_to_name_what_the_api_counts(selector: Any, paging: Any) -> None:
    with pytest.raises(ConfigurationError, match="Name that list"):
        Resource("lines", "orders", selector, paging=paging)
    Resource("lines", "orders", selector, paging=offset(counts="orders"))
    Resource("lines", "orders", records_at("items[].node"), paging=paging)


def test_lists_in_lists_are_paged_by_the_list_that_the_api_counts(serve: Serve) -> None:
    orders = LINES["orders"] * 2

    def answer(asked: str) -> Answer:
        start = int(asked.partition("offset=")[2] or 0)
        return Answer(json.dumps({"orders": orders[start : start + 2]}).encode())

    paging = offset(counts="orders")
    resource = Resource("lines", "orders", records_at("orders[].lines[]"), paging=paging)
    assert [row["n"] for row in rows(read(serve(answer).url, resource))] == [1, 2, 1, 1, 2, 1]


def test_records_by_id_get_their_id() -> None:
    document = {"items": {"17": {"n": 1}, "18": {"id": 18, "n": 2}}}
    assert found(keyed_at("items"), document) == [{"id": "17", "n": 1}, {"id": 18, "n": 2}]
    assert found(keyed_at("items", "key"), document)[1] == {"key": "18", "id": 18, "n": 2}


@pytest.mark.parametrize("empty", [{}, []], ids=["as it should be", "as PHP writes it"])
def test_an_object_without_records(empty: Any) -> None:
    assert found(keyed_at("items"), {"items": empty}) == []


def test_what_is_no_object_stays_to_be_rejected() -> None:
    assert found(keyed_at(), {"17": None, "18": 5}) == [None, 5]


def test_an_id_that_differs_from_the_records_own_is_an_error() -> None:
    assert "under '17' whose own 'id' is 3" in refused(keyed_at(), {"17": {"id": 3}})


@pytest.mark.parametrize("document", [[{"id": 1}], None, "busy"])
def test_another_document_than_an_object_of_records_is_an_error(document: Any) -> None:
    assert "should have an object of records" in refused(keyed_at(), document)


def test_the_first_array_has_the_names() -> None:
    document = [["id", "name"], [1, "Lamp"], [2, None]]
    assert found(rows_at(), document) == [{"id": 1, "name": "Lamp"}, {"id": 2, "name": None}]
    assert found(rows_at(), [["id", "name"]]) == found(rows_at(), []) == []


def test_arrays_may_have_declared_names() -> None:
    selector = rows_at("values", names=("id", "name"))
    assert found(selector, {"values": [[1, "Lamp"]]}) == [{"id": 1, "name": "Lamp"}]


@pytest.mark.parametrize(
    ("names", "document", "said"),
    [
        ((), [["id", "name"], [1]], "row 1 is 1 values for 2 names"),
        ((), [["id"], {"id": 1}], "row 1 is no array for 1 names"),
        ((), [["id", "id"], [1, 2]], "the first row has no names, each of them once"),
        ((), [[1, 2], [3, 4]], "the first row has no names"),
        ((), [{"id": 1}], "a list of arrays at 'its root', but there is ['id']"),
        ((), {"error": "busy"}, "a list of arrays"),
        (("id",), [["id"], [1]], "the first row has the declared names"),
        (("id",), [[1, 2]], "row 1 is 2 values for 1 names"),
    ],
)
def test_arrays_that_can_shift_are_an_error(
    names: tuple[str, ...], document: Any, said: str
) -> None:
    assert said in refused(rows_at(names=names), document)


def test_one_name_for_the_columns_and_no_name_for_the_ids_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="a tuple of different names"):
        rows_at(names="id")
    with pytest.raises(ConfigurationError, match="needs the name of the field"):
        keyed_at("items", "")


def test_fields_from_above_fill_no_memory() -> None:
    """A field of the parent is in each of its records."""
    document = {"orders": [{"id": "x" * 10_000, "lines": [{"n": n} for n in range(1000)]}]}
    large = page(document)
    large.max_bytes = 1 << 20
    records = records_at("orders[].lines[]", parents={"order_id": "orders[].id"})
    with pytest.raises(PayloadTooLargeError, match="records have more than 1,048,576 bytes"):
        records.raw(large)


def test_long_names_fill_no_memory() -> None:
    large = page([["x" * 10_000], *([n] for n in range(1000))])
    large.max_bytes = 1 << 20
    with pytest.raises(PayloadTooLargeError, match="records have more than 1,048,576 bytes"):
        rows_at().raw(large)


NOTE = "x" * (SMALL_BYTES + 1)


@pytest.mark.parametrize(
    ("records", "body", "kind"),
    [
        (records_at("orders[].lines[]"), {"orders": [{"note": NOTE, "lines": []}]}, "json"),
        (keyed_at("items"), {"items": {}, "note": NOTE}, "json"),
        (rows_at("items"), {"items": [["id"]], "note": NOTE}, "json"),
        (xml_at("r.i.e", optional=True), f"<r><n>{NOTE}</n><i/></r>".encode(), "xml"),
        (zipped(records_at("items")), {"items": [], "note": NOTE}, "zip"),
    ],
    ids=["nested", "keyed", "rows", "XML", "ZIP"],
)
def test_large_pages_without_records_end_some_time(
    serve: Serve, records: Any, body: Any, kind: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if kind == "zip":
        with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
            archive.writestr("orders.json", content)
        content = packed.getvalue()
    numbers = iter(range(20))

    def answer(_: Asked) -> Answer:
        number = next(numbers)
        following = {"Link": f'</?page={number}>; rel="next"'} if number < 10 else {}
        return Answer(content, 200, {"Content-Type": f"application/{kind}", **following})

    orders = Resource("orders", "", records, paging=next_link(), max_empty_pages=3)
    with pytest.raises(BadPayloadError, match="last of 3 pages in a row without records"):
        read(serve(answer).url, orders)
