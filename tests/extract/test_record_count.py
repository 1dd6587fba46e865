"""Promises of paging by count: a source's own `records` function can't make it end too early."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract.fetch import read_pages
from flows.extract.paginators import keyset, next_url, offset, page_number
from flows.extract.selectors import csv_rows, records_at
from flows.load.loader import load
from flows.page import Page
from flows.source import Partition, Resource, Source
from tests.extract.reading import MemoryClient, asked_params, read, rows
from tests.http_servers import Answer, Asked

URL = "http://127.0.0.1/"
SIZE = 2
COUNTED = {
    "offset": offset("offset"),
    "page number": page_number("page"),
    "keyset": keyset("id", param="after"),
}

counted_ways = pytest.mark.parametrize("paging", COUNTED.values(), ids=COUNTED)


def api(
    ids: list[int], wrap: Callable[[list[Any]], Any], record: Callable[[int], Any] = lambda n: n
) -> Callable[[Asked], Answer]:
    """Pages of two, by offset, page number or last id, each in the document that `wrap` makes."""

    def answer(asked: Asked) -> Answer:
        params = asked_params(asked)
        start = int(params.get("offset", 0)) + SIZE * (int(params.get("page", 1)) - 1)
        if after := params.get("after"):
            start = ids.index(int(after)) + 1
        return Answer(json.dumps(wrap([record(n) for n in ids[start:][:SIZE]])).encode())

    return answer


def as_object(number: int) -> dict[str, Any]:
    return {"id": number, "tags": [], "lines": [1, 2, 3]}


def over_three(page: Page) -> list[Any]:
    """A filter in the wrong place."""
    return [record for record in page.document["items"] if record["id"] > 3]


@counted_ways
@pytest.mark.parametrize(
    "wrap",
    [
        lambda items: {"items": items},
        lambda items: {"items": items, "errors": []},
        lambda items: {"items": items, "meta": {"tags": [1]}, "included": {}},
    ],
    ids=["alone", "beside an empty list", "beside a list of one"],
)
def test_a_filter_in_records_is_refused_where_paging_counts(paging: Any, wrap: Any) -> None:
    resource = Resource("orders", "orders", over_three, paging=paging)
    with pytest.raises(ConfigurationError, match=rf"orders: .*{URL}orders.*map_record"):
        read(URL, resource, api([1, 2, 3, 4, 5, 6], wrap, as_object))


@counted_ways
def test_flattened_records_are_refused_where_paging_counts(paging: Any) -> None:
    def lines(page: Page) -> list[Any]:
        return [
            {"id": order["id"], "line": line}
            for order in page.document["items"]
            for line in order["lines"]
        ]

    resource = Resource("lines", "orders", lines, paging=paging)
    with pytest.raises(ConfigurationError, match=r"returned 6 records.*sent 2 under 'items'"):
        read(URL, resource, api([1, 2, 3, 4], lambda items: {"items": items}, as_object))


@pytest.mark.parametrize(
    "paging",
    [
        offset("offset", counts="items"),
        page_number("page", counts="items"),
        keyset("id", param="after", counts="items"),
    ],
    ids=COUNTED,
)
@pytest.mark.parametrize("size", [2, 3], ids=["even", "a number of other things on the page"])
def test_flattened_records_are_read_if_paging_counts_what_the_api_sent(
    paging: Any, size: int
) -> None:
    """The second page has as many lines as the API sends tags, which would look complete."""

    def lines(page: Page) -> list[Any]:
        return [
            {"id": order["id"], "line": line}
            for order in page.document["items"]
            for line in order["lines"]
        ]

    def wrap(items: list[Any]) -> Any:
        return {"items": items, "tags": list(range(size * len(items)))}

    resource = Resource("lines", "orders", lines, paging=paging)
    found = rows(read(URL, resource, api([1, 2, 3, 4, 5], wrap, as_object)))
    assert [(row["id"], row["line"]) for row in found] == [
        (number, line) for number in range(1, 6) for line in (1, 2, 3)
    ]


@pytest.mark.parametrize("beside", ["included", "tags"])
def test_flattened_records_never_pass_for_another_list_of_the_page(beside: str) -> None:
    """Two orders with three lines each: to move on by six would skip four orders."""

    def lines(page: Page) -> list[Any]:
        return [{"line": line} for order in page.document["items"] for line in order["lines"]]

    def wrap(items: list[Any]) -> Any:
        others = range(3 * len(items))
        return {"items": items, beside: [{"id": n} if beside == "included" else n for n in others]}

    resource = Resource("lines", "orders", lines, paging=offset())
    says = r"returned 6 records .* sent 2 under 'items', 6 under '.*offset\(counts="
    with pytest.raises(ConfigurationError, match=says):
        read(URL, resource, api([1, 2, 3, 4, 5], wrap, as_object))


def test_what_is_counted_has_to_be_a_list() -> None:
    resource = Resource("orders", "orders", over_three, paging=offset(counts="count"))
    with pytest.raises(BadPayloadError, match="has 2 under 'count', not the list"):
        read(URL, resource, api([1, 2], lambda items: {"items": items, "count": 2}, as_object))


SHAPES: dict[str, tuple[Any, Any]] = {
    "nodes of edges": (
        lambda items: {"data": {"items": {"edges": [{"node": item} for item in items]}}},
        lambda page: [edge["node"] for edge in page.document["data"]["items"]["edges"]],
    ),
    "an object by id": (
        lambda items: {"items": {str(item["id"]): item for item in items}},
        lambda page: list(page.document["items"].values()),
    ),
    "an array of each field": (
        lambda items: {"items": {"id": [item["id"] for item in items]}},
        lambda page: [{"id": number} for number in page.document["items"]["id"]],
    ),
    "the document": (lambda items: items, lambda page: list(page.document)),
    "changed records": (
        lambda items: {"items": items},
        lambda page: [{**item, "new": 1} for item in page.document["items"]],
    ),
    "beside links": (
        lambda items: {"items": items, "links": [{"rel": "self", "href": "/orders"}]},
        lambda page: page.document["items"],
    ),
    "null at the end": (
        lambda items: {"items": items or None},
        lambda page: page.document["items"] or [],
    ),
    "nothing at the end": (
        lambda items: {"items": items} if items else {},
        lambda page: page.document.get("items", []),
    ),
}


@counted_ways
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_all_records_are_counted_wherever_the_api_puts_them(paging: Any, shape: Any) -> None:
    wrap, find = shape
    resource = Resource("orders", "orders", find, paging=paging)
    pages = read(URL, resource, api([1, 2, 3, 4, 5], wrap, as_object))
    assert [row["id"] for row in rows(pages)] == [1, 2, 3, 4, 5]


def test_own_paging_that_counts_records_is_checked() -> None:
    def by_count(page: Page) -> str | None:
        return f"{URL}orders?offset={len(page.rows)}" if page.rows else None

    resource = Resource("orders", "orders", over_three, paging=by_count)
    with pytest.raises(ConfigurationError, match="map_record"):
        read(URL, resource, api([1, 2, 3, 4], lambda items: {"items": items}, as_object))


def test_paging_that_does_not_count_may_have_records_left_out(
    connection: Connection, query: Callable[..., list[tuple[Any, ...]]]
) -> None:
    """Also where a page without records comes a second time, and as far as the raw table."""
    pages = {"/orders": "/orders?at=1", "/orders?at=1": "/orders?at=2", "/orders?at=2": None}

    def answer(asked: Asked) -> Answer:
        number = 4 if asked == "/orders?at=2" else 1
        body = {"items": [{"id": number}], "next": pages[asked]}
        return Answer(json.dumps(body).encode())

    resource = Resource("orders", "orders", over_three, paging=next_url("next"))
    assert [rows([page]) for page in read(URL, resource, answer)] == [[], [], [{"id": 4}]]
    source = Source("shop", URL, (resource,))
    with MemoryClient(source, answer) as client:
        pages_of = partial(read_pages, client, source, resource, Partition())
        load(connection, source.name, resource, Partition(), pages_of)
    assert query("select id from raw_shop.orders") == [(4,)]


def test_own_records_of_a_body_that_is_no_json_are_not_compared() -> None:
    def words(page: Page) -> list[Any]:
        return [{"id": int(word)} for word in page.body.decode().split()]

    def answer(asked: Asked) -> Answer:
        start = int(asked_params(asked).get("offset", 0))
        return Answer(
            " ".join(["1", "2", "3"][start:][:SIZE]).encode(), headers={"Content-Type": "x/y"}
        )

    resource = Resource("orders", "orders", words, paging=offset("offset"))
    assert rows(read(URL, resource, answer)) == [{"id": 1}, {"id": 2}, {"id": 3}]


@pytest.mark.parametrize("records", [records_at("items"), csv_rows()], ids=repr)
def test_the_projects_own_functions_are_not_compared(records: Any) -> None:
    """They return every record, so a list with an unknown name is not an error."""
    body = b'{"items": [], "other": [{"id": 1}]}' if records == records_at("items") else b"id\n"
    kind = "application/json" if body.startswith(b"{") else "text/csv"
    resource = Resource("orders", "orders", records, paging=offset("offset"))
    [page] = read(URL, resource, lambda asked: Answer(body, headers={"Content-Type": kind}))
    assert page.rows == []
