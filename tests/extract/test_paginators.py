"""Promises of paging: every record is read once, in every style, even after a resume."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.errors import BadPayloadError, BadRequestError, ConfigurationError
from flows.extract.paginators import (
    COUNTED,
    keyset,
    next_link,
    next_token,
    next_url,
    offset,
    page_number,
    response_header,
    unless,
    value_at,
)
from flows.extract.selectors import records_at
from flows.page import HttpRequest, Page
from flows.source import Cursor, FullList, Resource, Rule
from tests.extract.reading import asked_params, read, rows, stored
from tests.extract.styles import STYLES, Record
from tests.http_servers import Answer, Asked, Serve

URL = "http://127.0.0.1/"

every_style = pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
texts = st.text(max_size=5)
sizes = st.lists(st.integers(1, 4), min_size=1, max_size=3)


def records(notes: list[str]) -> list[Record]:
    """Records whose `id` is their position."""
    return [{"id": number, "note": note} for number, note in enumerate(notes, start=1)]


def page(document: Any, request: HttpRequest | None = None, **headers: str) -> Page:
    """A page whose records are under `items`."""
    url = request.url if request else f"{URL}orders"
    found = Page(json.dumps(document).encode(), url, request=request, headers=headers)
    found.find = records_at("items")
    return found


@every_style
@settings(max_examples=25)
@given(notes=st.lists(texts, max_size=9), sizes=sizes)
def test_every_record_is_read_once_however_short_the_pages(
    style: Any, notes: list[str], sizes: list[int]
) -> None:
    """A short page is not the last one: servers cap each page as they like."""
    api = style.api(records(notes), sizes)
    assert rows(read(URL, style.resource, api)) == records(notes)


@every_style
@settings(max_examples=15)
@given(notes=st.lists(texts, min_size=1, max_size=9), sizes=sizes)
def test_going_on_after_any_page_reads_exactly_the_rest(
    style: Any, notes: list[str], sizes: list[int]
) -> None:
    api = style.api(records(notes), sizes)
    pages = read(URL, style.resource, api)
    for number, done in enumerate(pages[:-1], start=1):
        rest = read(URL, style.resource, api, stored(done.resume))
        assert [(p.body, p.resume) for p in rest] == [(p.body, p.resume) for p in pages[number:]]
    assert pages[-1].resume is None


@every_style
def test_a_server_is_read_in_order_and_to_its_end(serve: Serve, style: Any) -> None:
    wanted = records(["a", "ü", "", "d", "e"])
    server = serve(style.api(wanted, [2]))
    pages = read(server.url, style.resource)
    assert rows(pages) == wanted
    assert len(server.asked) == len(pages)
    assert {asked.method for asked in server.asked} == {style.resource.method}


LIMITED = {
    f"{name}, cursor" if cursor else name: (style, cursor)
    for name, style in STYLES.items()
    for cursor in (None, Cursor("updated_at"))
    if cursor is None or not isinstance(style.paging, COUNTED)
}


@pytest.mark.parametrize(("style", "cursor"), LIMITED.values(), ids=LIMITED)
def test_reading_ends_after_the_most_pages_that_are_declared(style: Any, cursor: Any) -> None:
    """With a cursor there is a point to read on from, so that it does not pass over the rest."""
    api = style.api(records(["a", "b", "c", "d", "e"]), [2])
    resource = replace(style.resource, max_pages=2, key=("id",), cursor=cursor)
    pages = read(URL, resource, api)
    assert rows(pages) == records(["a", "b", "c", "d"])
    assert (pages[-1].resume is None) == (cursor is None)
    if cursor:
        rest = read(URL, resource, api, stored(pages[-1].resume))
        assert rows(rest) == records(["a", "b", "c", "d", "e"])[4:]
        assert rest[-1].resume is None


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("http://other/x?y=1", "http://other/x?y=1"),
        ("orders?page=2", "http://api/v1/orders?page=2"),
        ("/orders?page=2", "http://api/orders?page=2"),
        ("?page=2", "http://api/v1/orders?page=2"),
    ],
)
@pytest.mark.parametrize("style", ["body", "header"])
def test_a_next_page_is_absolute_or_relative_to_the_page(style: str, link: str, url: str) -> None:
    request = HttpRequest("http://api/v1/orders?page=1")
    if style == "body":
        assert next_url("next")(page({"next": link}, request)) == url
    else:
        assert next_link()(page([], request, Link=f'<{link}>; rel="next"')) == url


def test_a_next_page_is_relative_to_where_the_page_was_found(serve: Serve) -> None:
    """After a redirect, that is another address (RFC 3986, 5.1.3)."""

    def answer(asked: Asked) -> Answer:
        if asked == "/orders":
            return Answer(status=302, headers={"Location": "/v2/all/orders"})
        following = "more" if asked == "/v2/all/orders" else None
        return Answer(json.dumps({"items": [asked], "next": following}).encode())

    server = serve(answer)
    pages = read(server.url, Resource("o", "orders", records_at("items"), paging=next_url("next")))
    assert rows(pages) == ["/v2/all/orders", "/v2/all/more"]


@pytest.mark.parametrize("document", [{}, {"next": None}, {"next": ""}, []])
def test_the_last_page_names_no_next_one(document: Any) -> None:
    assert next_url("next")(page(document)) is None


def test_a_next_page_that_is_no_address_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"http://\[ can't be requested"):
        next_url("next")(page({"next": "http://["}))
    with pytest.raises(ConfigurationError, match=r"http://\[ can't be requested"):
        next_link()(page([], Link='<http://[>; rel="next"'))


def test_a_next_page_that_is_no_text_is_an_error() -> None:
    with pytest.raises(BadPayloadError, match="has 2 as its next page under 'next'"):
        next_url("next")(page({"next": 2}))


@pytest.mark.parametrize(
    ("header", "url"),
    [
        ('<b>; rel="next"', "b"),
        ("<b>; rel=next", "b"),
        ('<b>; REL="Next"', "b"),
        ('<b> ;  rel = "next"', "b"),
        ('<a>; rel="prev", <b>; rel="next", <c>; rel="last"', "b"),
        ('<b>; rel="last next"', "b"),
        ('<b>; title="a=b"; rel="next"', "b"),
        ('<b>; title="x; rel=prev, <c>; rel=last"; rel="next"', "b"),
        ('<b>; title="\\"; rel=prev; \\""; rel="next"', "b"),
        ('<b?x=1,2;3>; rel="next"', "b?x=1,2;3"),
        ('<b>; rel="prev"; rel="next"', None),
        ('<b>; rel="nextish"', None),
        ('<b>; title="next"', None),
        ("<b>", None),
        ("", None),
        ('<caf\u00c3\u00a9>; rel="next"', "caf%C3%A9"),
    ],
    ids=[
        "quoted",
        "bare",
        "any case",
        "spaces",
        "several links",
        "several relations",
        "an equals sign in a title",
        "a link in a title",
        "escaped quotes in a title",
        "separators in the address",
        "only the first relation counts",
        "another relation",
        "no relation but a title",
        "no parameter",
        "no link",
        "UTF-8 in the address",
    ],
)
def test_the_next_link_is_told_from_all_others(header: str, url: str | None) -> None:
    found = next_link()(page([], HttpRequest("http://api/v1/a"), Link=header))
    assert found == (url and f"http://api/v1/{url}")


@pytest.mark.parametrize("token", [None, "", 0, False], ids=["null", "empty", "zero", "false"])
def test_a_token_that_is_none_ends_reading(token: Any) -> None:
    assert next_token("token", param="at")(page({"token": token})) is None
    assert next_token("token", param="at")(page({})) is None


def test_more_without_a_token_is_an_error() -> None:
    paging = next_token("token", param="at", more="more")
    with pytest.raises(BadPayloadError, match="no token in 'token'"):
        paging(page({"token": None, "more": True}))
    assert paging(page({"token": None})) is None


@pytest.mark.parametrize(
    ("token", "param"),
    [("a b&c=d/é", "a%20b%26c%3Dd%2F%C3%A9"), (12, "12"), (True, "true"), ({"a": 1}, "%7B%22a")],
    ids=["text", "number", "boolean", "object"],
)
def test_a_token_is_sent_back_as_it_came(token: Any, param: str) -> None:
    request = HttpRequest(f"{URL}orders?at=old&x=%2B+1", "POST", body={"a": {"keep": 1}})
    found = page({"token": token}, request)
    in_query = next_token("token", param="at")(found)
    assert isinstance(in_query, HttpRequest)
    assert in_query.url.startswith(f"{URL}orders?x=%2B+1&at={param}")
    in_body = next_token("token", body_field="a.at")(found)
    assert isinstance(in_body, HttpRequest)
    assert in_body.body == {"a": {"keep": 1, "at": token}}
    assert request.body == {"a": {"keep": 1}}


@pytest.mark.parametrize(
    "value",
    ["a&b c", "", 7, 2**70, -1, 1.5, 1e-9, True, False, ["a", 1], {"a": None}],
    ids=repr,
)
def test_a_key_of_any_type_asks_for_what_comes_after_it(value: Any) -> None:
    found = page({"items": [{"id": "first"}, {"id": value}]})
    in_query = keyset("id", param="after")(found)
    assert isinstance(in_query, HttpRequest)
    asked = asked_params(Asked(in_query.url))["after"]
    assert (asked if isinstance(value, str) else json.loads(asked)) == value
    in_body = keyset("id", body_field="after")(found)
    assert isinstance(in_body, HttpRequest)
    assert in_body.body == {"after": value}


@pytest.mark.parametrize("last", [{"id": None}, {"name": "a"}, "a"])
def test_a_last_record_without_its_key_is_an_error(last: Any) -> None:
    with pytest.raises(BadPayloadError, match="last record without 'id'"):
        keyset("id", param="after")(page({"items": [{"id": 1}, last]}))


@pytest.mark.parametrize("more", [False, "false", "False", 0, "0"], ids=repr)
def test_no_more_ends_reading_in_every_style(more: Any) -> None:
    document = {"items": [{"id": 1}], "token": "t", "more": more}
    assert next_token("token", param="at", more="more")(page(document)) is None
    assert offset(more="more")(page(document)) is None
    assert page_number(more="more")(page(document)) is None
    assert keyset("id", param="after", more="more")(page(document)) is None


@pytest.mark.parametrize("more", [True, "true", None, {"a": 1}, [1]], ids=repr)
def test_anything_else_as_more_does_not_end_it(more: Any) -> None:
    document = {"items": [{"id": 1}], "token": "t", "more": more}
    assert next_token("token", param="at", more="more")(page(document)) is not None
    assert offset(more="more")(page(document)) is not None
    assert page_number(more="more")(page(document)) is not None
    assert keyset("id", param="after", more="more")(page(document)) is not None


@pytest.mark.parametrize(
    ("total", "goes_on"),
    [(2, False), (1, True), ("2", False), (3, True), (None, True), (-1, True)],
    ids=["reached", "less than was read", "as text", "more", "null", "-1 for unknown"],
)
def test_a_total_ends_reading_where_it_is_known(total: Any, goes_on: bool) -> None:
    items = [{"id": 1}, {"id": 2}]
    found = offset(total="total")(page({"items": items, "total": total}))
    assert (found is not None) == goes_on
    on_page_two = HttpRequest(f"{URL}?page=2")
    document = {"items": items, "total": total}
    found = page_number(total_pages="total")(page(document, on_page_two))
    assert (found is not None) == goes_on


@pytest.mark.parametrize("total", ["many", {"value": 2}, [2]], ids=repr)
def test_a_total_that_is_no_number_is_an_error(total: Any) -> None:
    with pytest.raises(BadPayloadError, match="as its 'total', which is not a number"):
        offset(total="total")(page({"items": [{"id": 1}], "total": total}))


def test_a_total_that_is_less_than_what_was_read_does_not_end_the_reading() -> None:
    """As a count of pages declared as a count of records, or a count that the API kept too long."""
    api = STYLES["offset"].api(records(["a", "b", "c", "d", "e"]), [2])

    def with_wrong_total(asked: Asked) -> Answer:
        answer = api(asked)
        return Answer(json.dumps({**json.loads(answer.body), "total": 1}).encode())

    assert rows(read(URL, orders(offset(total="total")), with_wrong_total)) == rows(
        read(URL, orders(offset()), api)
    )


SCIM = {"params": {"startIndex": 1, "count": 10}}


def scim(asked: Asked) -> Answer:
    """21 users in pages of 10, counted from 1 (RFC 7644, 3.4.2.4)."""
    start = int(asked_params(asked).get("startIndex", 1))
    items = [{"id": number} for number in range(start, min(start + 10, 22))]
    return Answer(json.dumps({"items": items, "totalResults": 21}).encode())


def test_offsets_that_are_counted_from_1_read_the_last_record() -> None:
    paging = offset("startIndex", first=1, total="totalResults")
    for declared in (SCIM, {}):
        pages = read(URL, orders(paging, **declared), scim)
        assert [row["id"] for row in rows(pages)] == list(range(1, 22))


@pytest.mark.parametrize(
    ("paging", "params", "says"),
    [
        (
            offset("startIndex", total="totalResults"),
            {"startIndex": 1},
            r"startIndex=1, .* counts from 0\. Declare offset\('startIndex', first=1\)",
        ),
        (
            offset("at", first=1),
            {"at": 0},
            r"at=0, .* Declare offset\('at', first=0",
        ),
        (page_number(first=0), {"page": 1}, r"page=1, .* Declare page_number\('page', first=1\)"),
        (page_number(), {"page": 0}, r"page=0, .* Declare page_number\('page', first=0\)"),
    ],
    ids=["offset 1 of 0", "offset 0 of 1", "page 1 of 0", "page 0 of 1"],
)
def test_a_first_request_that_counts_from_another_number_is_refused(
    paging: Any, params: Any, says: str
) -> None:
    """Reading would end one record or one page too early, or read one twice."""
    with pytest.raises(ConfigurationError, match=says):
        read(URL, orders(paging, params=params), scim)


def test_reading_may_begin_in_the_middle() -> None:
    found = rows(read(URL, orders(offset("startIndex", first=1), params={"startIndex": 15}), scim))
    assert [row["id"] for row in found] == list(range(15, 22))


def wordpress(asked: Asked) -> Answer:
    """Two pages of posts, the totals in headers only, and an error behind the last one."""
    number = int(asked_params(asked).get("page", 1))
    if number > 2:
        return Answer(b'{"code": "rest_post_invalid_page_number"}', status=400)
    totals = {"X-WP-Total": "3", "X-WP-TotalPages": "2"}
    return Answer(b'{"items": [{"id": %d}]}' % number, headers=totals)


@pytest.mark.parametrize(
    ("declared", "pages"),
    [
        ({"paging": page_number(total_pages=response_header("X-WP-TotalPages"))}, 2),
        ({"paging": page_number(), "rules": (Rule("end", status=400),)}, 3),
        ({"paging": page_number(), "rules": (Rule("end", body="invalid_page_number"),)}, 3),
    ],
    ids=["totals in headers", "a status", "a body"],
)
def test_the_page_after_the_last_may_be_an_error(declared: Any, pages: int) -> None:
    found = read(URL, Resource("posts", "posts", records_at("items"), **declared), wordpress)
    assert rows(found[:2]) == [{"id": 1}, {"id": 2}]
    assert (len(found), found[-1].resume) == (pages, None)


def test_the_status_of_the_end_is_an_error_on_the_first_page() -> None:
    """It means a wrong request there, not that there are no records."""
    resource = orders(page_number(), rules=(Rule("end", status=400),))
    with pytest.raises(BadRequestError, match="answered 400"):
        read(URL, resource, lambda _: Answer(b"{}", status=400))


@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        ({"isLast": [False, True]}, [0, 1]),
        ({"isLast": ["false", "true"]}, [0, 1]),
        ({"isLast": [None, None]}, [0, 1, 2]),
        ({}, [0, 1, 2]),
    ],
    ids=str,
)
def test_a_flag_may_say_that_it_is_over(flags: dict[str, list[Any]], numbers: list[int]) -> None:
    """Without a value it says nothing, and an empty page ends the reading."""

    def answer(path: Asked) -> Answer:
        number = int(path.partition("page=")[2] or 0)
        rows = [{"id": number}] if number < 2 else []
        flag = {name: (*values, True)[number] for name, values in flags.items()}
        return Answer(json.dumps({"items": rows, **flag}).encode())

    resource = orders(page_number("page", first=0, more=unless("isLast")))
    pages = read(URL, resource, answer)
    assert [int(page.url.partition("page=")[2] or 0) for page in pages] == numbers


def test_an_empty_page_that_is_not_the_last_by_its_flag_is_an_error() -> None:
    resource = orders(offset(more=unless("isLast")))
    with pytest.raises(BadPayloadError, match=r"no records, but its unless\('isLast'\) is True"):
        read(URL, resource, lambda _: Answer(b'{"items": [], "isLast": false}'))


def test_only_the_first_page_of_a_full_list_may_be_ignored() -> None:
    """The rest of the list would be marked as deleted."""
    resource = orders(
        page_number(), key=("id",), rules=(Rule("ignore", status=400),), deletes=FullList()
    )
    [page] = read(URL, resource, lambda _: Answer(b"{}", status=400))
    assert page.is_empty
    with pytest.raises(BadRequestError, match="answered 400"):
        read(URL, resource, wordpress)


def test_a_reading_may_resume_at_the_page_after_the_last() -> None:
    resource = orders(page_number(), rules=(Rule("end", status=400),))
    pages = read(URL, resource, wordpress)
    [end] = read(URL, resource, wordpress, stored(pages[1].resume))
    assert end.is_empty
    assert end.resume is None


def test_more_without_a_next_url_is_an_error() -> None:
    paging = next_url("next", more="more")
    with pytest.raises(BadPayloadError, match="no URL in 'next'"):
        paging(page({"next": None, "more": True}))
    assert paging(page({"next": "/b", "more": False})) is None


def test_a_first_number_that_is_none_is_a_configuration_error() -> None:
    wrong = page({"items": [1]}, HttpRequest(f"{URL}orders?page=first"))
    with pytest.raises(ConfigurationError, match="requested with 'first' as its 'page'"):
        page_number()(wrong)


@pytest.mark.parametrize(
    "declare",
    [
        lambda: next_token("token"),
        lambda: next_token("token", param="at", header="X-At"),
        lambda: next_token(param="at"),
        lambda: next_token("token", response_header="X-Next", param="at"),
        lambda: keyset("id"),
        lambda: offset(""),
        lambda: next_url(""),
    ],
    ids=[
        "a token sent nowhere",
        "a token sent twice",
        "a token from nowhere",
        "a token from two places",
        "a key sent nowhere",
        "an offset sent nowhere",
        "a link from nowhere",
    ],
)
def test_paging_that_could_not_work_is_refused_when_it_is_declared(declare: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"needs (one|either|the name)"):
        declare()


@pytest.mark.parametrize(
    ("document", "field", "value"),
    [
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"@odata.nextLink": "x"}, "@odata.nextLink", "x"),
        ({"a": {"b": None}}, "a.b", None),
        ({"a": [1]}, "a.b", None),
        ([{"a": 1}], "a", None),
        ({"a": {"b": {"c": [1, {"d": 2}]}}}, "a.b", {"c": [1, {"d": 2}]}),
    ],
)
def test_dots_name_a_nested_field_unless_a_field_has_exactly_that_name(
    document: Any, field: str, value: Any
) -> None:
    assert value_at(page(document), field) == value


@pytest.mark.parametrize("field", ["next", "data.next", "data.page.next"])
def test_a_field_is_found_without_parsing_the_records_beside_it(field: str) -> None:
    """They are by far the most of a page; these ones Python could not even parse."""
    records = "[%s]" % ("9" * 5000)
    text = '{"next": 1, "data": {"next": 1, "rows": R, "page": {"next": 1, "rows": R}}, "rows": R}'
    assert value_at(Page(text.replace("R", records).encode(), URL), field) == 1


CIRCLES = {
    "to itself": ({"/orders": "/orders"}, "/orders leads back to"),
    "of two": ({"/orders": "/b", "/b": "/orders"}, "/b leads back to"),
    "of three, not to the first": (
        {"/orders": "/b", "/b": "/c", "/c": "/b"},
        "/c leads back to",
    ),
}


@pytest.mark.parametrize(("links", "said"), CIRCLES.values(), ids=CIRCLES)
def test_a_loop_is_an_error_that_names_both_requests(
    serve: Serve, links: dict[str, str], said: str
) -> None:
    server = serve(
        lambda asked: Answer(json.dumps({"items": [asked], "next": links[asked]}).encode())
    )
    orders = Resource("orders", "orders", records_at("items"), paging=next_url("next"))
    with pytest.raises(BadPayloadError) as failure:
        read(server.url, orders)
    base = server.url.rstrip("/")
    back = list(links.values())[-1]
    assert f"paging loops: {base}{said} {base}{back}." in str(failure.value)
    assert server.asked == list(links)


@pytest.mark.parametrize(
    "declared",
    [
        {"paging": offset()},
        {"paging": page_number()},
        {"paging": keyset("id", param="after")},
        {"paging": offset(body_field="offset"), "method": "POST", "body": {"limit": 1}},
    ],
    ids=["offset", "page number", "keyset", "offset in the body"],
)
def test_a_server_that_ignores_the_requested_position_is_a_loop(
    serve: Serve, declared: dict[str, Any]
) -> None:
    server = serve(lambda _: Answer(b'[{"id": 1}]'))
    with pytest.raises(BadPayloadError, match="loops") as failure:
        read(server.url, Resource("orders", "orders", records_at(), **declared))
    assert len(server.asked) <= 3
    assert str(failure.value).count(f"{server.url}orders") == 2


@pytest.mark.parametrize("key", [(), ("id",)], ids=["no key", "key"])
@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
@pytest.mark.parametrize(
    "paging",
    [offset(), page_number(), offset(counts="items"), next_token("at", param="token")],
    ids=["offset", "page number", "counts", "token"],
)
def test_a_loop_of_pages_of_any_size_is_found_by_their_records(
    paging: Any, size: int, key: Any
) -> None:
    """Everything else on a page may differ each time, such as a time or a token."""
    sent: list[str] = []

    def answer(asked: Asked) -> Answer:
        sent.append(asked)
        assert len(sent) < 10
        items = [{"id": 1, "note": "x" * size}]
        return Answer(json.dumps({"items": items, "at": f"{len(sent)} o'clock"}).encode())

    with pytest.raises(BadPayloadError, match="loops"):
        read(URL, orders(paging, key=key, max_empty_pages=5), answer)


def test_large_pages_without_records_are_no_loop() -> None:
    """The API counts what `records` leaves out."""

    def answer(asked: Asked) -> Answer:
        start = int(asked_params(asked).get("offset", 0))
        sent = [{"id": start, "note": "x" * 100_000}] if start < 4 else []
        return Answer(json.dumps({"sent": sent}).encode())

    def odd(page: Page) -> list[Any]:
        return [item for item in page.document["sent"] if item["id"] % 4 == 3]

    resource = replace(orders(offset(counts="sent"), key=("id",)), records=odd)
    assert [row["id"] for row in rows(read(URL, resource, answer))] == [3]


def zeros(total: int, size: int = 2) -> Any:
    """An API of equal records without a key, by `offset` or `page`."""

    def answer(asked: Asked) -> Answer:
        params = asked_params(asked)
        start = int(params.get("offset", 0)) + size * (int(params.get("page", 1)) - 1)
        items = [{"celsius": 0}] * max(0, min(size, total - start))
        return Answer(json.dumps({"items": items, "total": total}).encode())

    return answer


@pytest.mark.parametrize("total", [4, 5, 8])
@pytest.mark.parametrize(
    "paging", [offset(), offset(total="total"), page_number()], ids=["offset", "total", "page"]
)
def test_equal_records_without_a_key_are_no_loop(paging: Any, total: int) -> None:
    assert len(rows(read(URL, orders(paging), zeros(total)))) == total
    with pytest.raises(BadPayloadError, match="loops"):
        read(URL, orders(paging, key=("celsius",)), zeros(total))


def test_equal_pages_by_link_are_no_loop() -> None:
    """Which request is next is in the response: only a repeated request is a loop."""

    def answer(asked: Asked) -> Answer:
        number = int(asked_params(asked).get("at", 0))
        link = {"Link": f'<?at={number + 1}>; rel="next"'} if number < 3 else {}
        return Answer(b'{"items": [{"celsius": 0}]}', headers=link)

    assert len(rows(read(URL, orders(next_link()), answer))) == 4


def test_the_same_records_under_ever_new_tokens_are_a_loop() -> None:
    """The API ignores the token, because its parameter has another name."""
    sent = []

    def answer(asked: Asked) -> Answer:
        sent.append(asked)
        return Answer(json.dumps({"items": [{"id": 1}], "next": f"t{len(sent)}"}).encode())

    with pytest.raises(BadPayloadError, match="loops"):
        read(URL, orders(next_token("next", param="token"), max_empty_pages=5), answer)
    assert len(sent) == 6


@pytest.mark.parametrize(
    "answer_far",
    [
        pytest.param(lambda _: Answer(b'{"items": []}'), id="no records"),
        pytest.param(lambda _: Answer(b"{}", status=400), id="a refusal"),
        pytest.param(lambda _: Answer(b"{}", status=404), id="not found"),
    ],
)
def test_an_api_that_heeds_the_position_is_believed(answer_far: Any) -> None:
    api = zeros(8)

    def answer(asked: Asked) -> Answer:
        is_far = int(asked_params(asked).get("offset", 0)) > 100
        return answer_far(asked) if is_far else api(asked)

    assert len(rows(read(URL, orders(offset()), answer))) == 8


def test_an_api_that_sends_its_last_page_for_ever_is_a_loop() -> None:
    """Its first two pages are equal as well, but not a loop."""

    def answer(asked: Asked) -> Answer:
        number = min(3, int(asked_params(asked).get("page", 1)))
        return Answer(json.dumps({"items": [{"celsius": max(2, number)}]}).encode())

    with pytest.raises(BadPayloadError, match=r"page=4 has the same response as .*page=3"):
        read(URL, orders(page_number()), answer)


def test_pages_without_records_may_come_again(serve: Serve) -> None:
    """APIs that filter after they have cut pages send such."""
    pages = {"/orders": 1, "/orders?at=1": 2, "/orders?at=2": 3, "/orders?at=3": None}

    def answer(asked: Asked) -> Answer:
        headers = {"X-Next": str(pages[asked])} if pages[asked] else {}
        items = b"[]" if asked != "/orders?at=3" else b"[1]"
        return Answer(b'{"items": %s}' % items, headers=headers)

    server = serve(answer)
    paging = next_token(response_header="X-Next", param="at")
    found = read(server.url, Resource("orders", "orders", records_at("items"), paging=paging))
    assert (rows(found), len(found)) == ([1], 4)


def sparse(documents: dict[str, Any]) -> Any:
    """An API with these responses by the value of its query parameter; then an empty list."""

    def answer(asked: Asked) -> Answer:
        [value] = [*asked_params(asked).values()] or [""]
        return Answer(json.dumps(documents.get(value, {"items": []})).encode())

    return answer


def orders(paging: Any, **declared: Any) -> Resource:
    return Resource("orders", "orders", records_at("items"), paging=paging, **declared)


MORE = {"items": [], "has_more": True}
DONE = {"items": [{"id": 9}], "has_more": False}


@pytest.mark.parametrize("field", ["has_more", "pages"])
def test_page_numbers_continue_after_an_empty_page_that_reports_more(
    field: str,
) -> None:
    between = {"items": [], "has_more": True, "pages": 4}
    first = {**between, "items": [{"id": 1}]}
    api = sparse({"": first, "2": between, "3": between, "4": {**DONE, "pages": 4}})
    declared = {"more": field} if field == "has_more" else {"total_pages": field}
    pages = read(URL, orders(page_number("page", **declared)), api)
    assert rows(pages) == [{"id": 1}, {"id": 9}]


@pytest.mark.parametrize(
    ("paging", "said"),
    [
        (offset("at", more="has_more"), "'has_more' is True"),
        (offset("at", total="total"), "'total' is 30"),
        (keyset("id", param="after", more="has_more"), "'has_more' is True"),
    ],
    ids=["offset and more", "offset and total", "keyset and more"],
)
def test_an_empty_page_that_reports_more_is_an_error(paging: Any, said: str) -> None:
    """The next position is unknown, and ending would lose what follows."""
    empty = {"items": [], "has_more": True, "total": 30}
    api = sparse({"": {**empty, "items": [{"id": 1}]}, "1": empty})
    with pytest.raises(BadPayloadError, match=f"no records, but its {said}"):
        read(URL, orders(paging), api)


@pytest.mark.parametrize("total", [0, -1, None])
def test_an_empty_page_that_reports_nothing_more_ends_the_reading(total: Any) -> None:
    api = sparse({"": {"items": [], "total": total, "has_more": None}})
    for paging in (offset("at", total="total", more="has_more"), page_number(total_pages="total")):
        assert rows(read(URL, orders(paging), api)) == []


def test_a_link_may_say_that_nothing_follows(serve: Serve) -> None:
    """As Sentry's do (https://docs.sentry.io/api/pagination/): there is a next link for ever."""

    def answer(asked: Asked) -> Answer:
        number = int(asked_params(asked).get("cursor", 0))
        more = "true" if number < 2 else "false"
        link = f'<{URL}orders?cursor={number + 1}>; rel="next"; results="{more}"'
        return Answer(b'[{"id": %d}]' % number, headers={"Link": link})

    resource = Resource("orders", "orders", records_at(), paging=next_link(more="results"))
    assert rows(read(URL, resource, answer)) == [{"id": 0}, {"id": 1}, {"id": 2}]


def test_too_many_pages_without_records_in_a_row_are_an_error(serve: Serve) -> None:
    def answer(asked: Asked) -> Answer:
        number = int(asked_params(asked).get("token", 0))
        items = [{"id": number}] if number % 4 == 0 and number < 12 else []
        return Answer(json.dumps({"items": items, "next": str(number + 1)}).encode())

    server = serve(answer)
    paging = next_token("next", param="token")
    with pytest.raises(BadPayloadError, match=r"token=13 .* 5 pages in a row without records"):
        read(server.url, orders(paging, max_empty_pages=5))
    assert len(server.asked) == 14


@pytest.mark.parametrize(
    "paging",
    [next_url("next"), next_token("token", param="at")],
    ids=["link", "token"],
)
@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
def test_a_page_without_records_that_leads_to_itself_is_the_last(paging: Any, size: int) -> None:
    """As Stellar's Horizon has it: the last page's next link is its own address."""
    last = {"items": [], "next": f"{URL}orders?at=2", "token": "2", "note": "x" * size}
    api = sparse({"": {**last, "items": [{"id": 1}]}, "2": last})
    assert rows(read(URL, orders(paging), api)) == [{"id": 1}]


def test_a_page_with_records_that_leads_to_itself_is_a_loop() -> None:
    same = {"items": [{"id": 1}], "next": f"{URL}orders?at=2"}
    with pytest.raises(BadPayloadError, match="loops"):
        read(URL, orders(next_url("next")), sparse({"": {"items": [], **same}, "2": same}))
