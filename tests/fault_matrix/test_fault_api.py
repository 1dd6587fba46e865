"""Each fault of `tests.fault_api` strikes as its name says: the fault matrix relies on it."""

import contextlib
import gzip
import io
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import requests

from tests.fault_api.catalogue import logins
from tests.fault_api.catalogue.items import items
from tests.fault_api.catalogue.styles import STYLES
from tests.fault_api.server import FAULTS, misbehaving
from tests.fault_api.wire import LINGER_NOT

ROWS = [dict(row) for row in items()]
IDS = list(range(1, 26))
NOT_PAGED = {"none", "windows"}

Plan = Callable[..., None]
Get = Callable[..., requests.Response]
Row = dict[str, Any]
Seen = Callable[[], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that can misbehave, without a slash at its end."""
    with misbehaving() as started:
        yield started


@pytest.fixture
def plan(url: str) -> Iterator[Plan]:
    """Plan faults in place of those before."""

    def replace(*faults: dict[str, Any]) -> None:
        response = requests.post(f"{url}/_faults", json=faults, timeout=10)
        assert response.status_code == 200, response.text

    replace()
    yield replace
    requests.delete(f"{url}/_faults", timeout=10)


@pytest.fixture
def get(url: str, plan: Plan) -> Get:
    """GET below the server's URL; redirects are not followed."""

    def ask(target: str, allow_redirects: bool = False, **options: Any) -> requests.Response:
        target = urljoin(url, target)
        return requests.get(target, timeout=10, allow_redirects=allow_redirects, **options)

    return ask


@pytest.fixture
def seen(url: str) -> Seen:
    """The requests that the server has logged."""
    return lambda: requests.get(f"{url}/_requests", timeout=10).json()


def rows_of(response: requests.Response) -> list[Row]:
    """The rows of a page whose body is a list, or an object with `items`."""
    assert response.status_code == 200, response.text
    body = response.json()
    return body["items"] if isinstance(body, dict) else body


def ids_of(response: requests.Response) -> list[int]:
    return [row["id"] for row in rows_of(response)]


def links(get: Get, target: str, **options: Any) -> Iterator[requests.Response]:
    """The pages that follow one another by the URL in the body."""
    following: str | None = target
    while following:
        page = get(following, **options)
        yield page
        following = page.json()["next"]


def flagged_links(get: Get) -> Iterator[requests.Response]:
    following, has_more = "/styles/flagged_url", True
    while has_more:
        page = get(following)
        yield page
        following, has_more = page.json()["next"], page.json()["more"]


def link_headers(get: Get) -> Iterator[requests.Response]:
    following: str | None = "/styles/link_header"
    while following:
        page = get(following)
        yield page
        following = page.links.get("next", {}).get("url")


def body_tokens(get: Get) -> Iterator[requests.Response]:
    token = ""
    while token is not None:
        page = get("/styles/token_body", params={"token": token})
        yield page
        token = page.json()["next_token"]


def header_tokens(get: Get) -> Iterator[requests.Response]:
    token: str | None = ""
    while token is not None:
        page = get("/styles/token_header", headers={"X-Page-Token": token})
        yield page
        token = page.headers.get("X-Next-Token")


def offsets(get: Get) -> Iterator[requests.Response]:
    start, total = 0, 1
    while start < total:
        page = get("/styles/offset", params={"offset": start})
        yield page
        total = page.json()["total"]
        start += len(page.json()["items"])


def offsets_from_1(get: Get) -> Iterator[requests.Response]:
    start, total = 1, 1
    while start <= total:
        page = get("/styles/offset_from_1", params={"startIndex": start})
        yield page
        total = page.json()["totalResults"]
        start += len(page.json()["items"])


def header_totals(get: Get) -> Iterator[requests.Response]:
    number, last = 1, 1
    while number <= last:
        page = get("/styles/page_headers", params={"page": number})
        yield page
        last = int(page.headers["X-WP-TotalPages"])
        number += 1
    assert get("/styles/page_headers", params={"page": number}).status_code == 400


def numbers(get: Get) -> Iterator[requests.Response]:
    number, has_more = 1, True
    while has_more:
        page = get("/styles/page", params={"page": number, "per_page": 7})
        yield page
        has_more = page.json()["has_more"]
        assert has_more == (number < page.json()["total_pages"])
        number += 1


def keys(get: Get) -> Iterator[requests.Response]:
    after: int | None = None
    has_more = True
    while has_more:
        page = get("/styles/keyset", params={"after_id": after})
        yield page
        has_more = page.json()["has_more"]
        after = page.json()["items"][-1]["id"]


def weeks(get: Get) -> Iterator[requests.Response]:
    bounds = ["2024-01-01", "2024-01-08", "2024-01-15T00:00:00Z", "2024-01-22", "2024-01-29"]
    for since, until in pairwise(bounds):
        yield get("/styles/windows", params={"since": since, "until": until})


WALKS: dict[str, Callable[[Get], Iterator[requests.Response]]] = {
    "next_url": lambda get: links(get, "/styles/next_url"),
    "flagged_url": flagged_links,
    "next_path": lambda get: links(get, "/styles/next_path"),
    "link_header": link_headers,
    "token_body": body_tokens,
    "token_header": header_tokens,
    "offset": offsets,
    "offset_from_1": offsets_from_1,
    "page": numbers,
    "page_headers": header_totals,
    "keyset": keys,
    "windows": weeks,
    "none": lambda get: iter([get("/styles/none")]),
}


def graphql(url: str, after: str | None) -> dict[str, Any]:
    query = "query($first: Int, $after: String) { items { nodes { id } } }"
    document = {"query": query, "variables": {"first": 10, "after": after}}
    response = requests.post(f"{url}/styles/graphql", json=document, timeout=10)
    return response.json()["data"]["items"]


def test_every_style_is_followed_here() -> None:
    assert {*WALKS, "graphql"} == set(STYLES)


LOGINS: dict[str, dict[str, Any]] = {
    "header_key": {"headers": {"X-Api-Key": "sample-api-key"}},
    "query_key": {"params": {"api_key": "sample-api-key"}},
    "bearer": {"headers": {"Authorization": "Bearer sample-bearer-token"}},
    "basic": {"auth": ("sample-user", "sample-password")},
}


def token(url: str, **options: Any) -> requests.Response:
    form = {"grant_type": "client_credentials"}
    options = {"auth": (logins.CLIENT_ID, logins.CLIENT_SECRET), "data": form, **options}
    return requests.post(f"{url}/oauth/token", timeout=10, **options)


def bearer(response: requests.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


def test_tokens_expire_when_they_are_told_to(get: Get, url: str, plan: Plan) -> None:
    plan({"path": "/login/oauth2", "fault": "expired_tokens", "skip": 1})
    old = bearer(token(url))
    assert [get("/login/oauth2", headers=old).status_code for _ in range(3)] == [200, 401, 401]
    assert get("/login/oauth2", headers=bearer(token(url))).status_code == 200


def test_a_short_token_is_good_for_so_many_requests(get: Get, url: str, plan: Plan) -> None:
    plan({"path": "/oauth/token", "fault": "short_token", "requests": 2, "expires_in": 7})
    short = token(url)
    assert short.json()["expires_in"] == 7
    codes = [get("/login/oauth2", headers=bearer(short)).status_code for _ in range(4)]
    assert codes == [200, 200, 401, 401]
    usual = bearer(token(url))
    assert [get("/login/oauth2", headers=usual).status_code for _ in range(4)] == [200] * 4


def test_every_matching_request_takes_one_of_the_times(get: Get, plan: Plan, seen: Seen) -> None:
    """The first fault that is due, and one fault a request."""
    plan(
        {"path": "/styles/offset", "fault": "503", "times": 2},
        {"path": "/styles/offset", "fault": "429", "skip": 1},
        {"path": "/styles/page", "fault": "500"},
    )
    codes = [get("/styles/offset").status_code for _ in range(5)]
    assert codes == [503, 503, 200, 429, 200]
    assert [request["fault"] for request in seen()] == ["503", "503", None, "429", None]
    left = get("/_faults").json()
    assert [(fault["times"], fault["skip"]) for fault in left] == [(0, 0), (0, 0), (1, 0)]


def test_times_are_exact_when_requests_come_at_once(get: Get, plan: Plan) -> None:
    plan({"path": "/styles/none", "fault": "500", "times": 7})
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda _: get("/styles/none").status_code, range(48)))
    assert (codes.count(500), codes.count(200)) == (7, 41)


def test_a_fault_without_times_has_no_end(get: Get, plan: Plan) -> None:
    plan({"path": "/styles/none", "fault": "500", "times": None})
    assert [get("/styles/none").status_code for _ in range(5)] == [500] * 5


def test_the_log_tells_what_was_asked(url: str, plan: Plan, seen: Seen) -> None:
    requests.post(
        f"{url}/styles/offset?limit=3", json={"offset": 1}, headers={"X-Trace": "7"}, timeout=10
    )
    (request,) = seen()
    assert (request["method"], request["path"]) == ("POST", "/styles/offset?limit=3")
    assert json.loads(request["body"]) == {"offset": 1}
    assert request["headers"]["x-trace"] == "7"
    assert request["headers"]["host"] == urlsplit(url).netloc
    plan()
    assert seen() == []


def test_faults_befall_what_is_beside_the_catalogue_too(get: Get, plan: Plan) -> None:
    """Without a fault they respond as they do without this mode."""
    plan({"path": "/Shippers", "fault": "503"}, {"path": "/archive", "fault": "cut_json"})
    assert get("/Shippers").status_code == 503
    answer = get("/Shippers")
    assert len(answer.json()["value"]) == 3
    days = {"start_date": "1997-01-01", "end_date": "1997-01-02"}
    with pytest.raises(requests.JSONDecodeError):
        get("/archive", params=days).json()
    assert len(get("/archive", params=days).json()["daily"]["time"]) == 2
    assert get("/nowhere").status_code == 404


@pytest.mark.parametrize(
    "status", [400, 401, 403, 404, 408, 410, 413, 422, 425, 429, 500, 502, 503, 504]
)
def test_a_status_is_sent(get: Get, plan: Plan, status: int) -> None:
    plan({"path": "/styles/none", "fault": status})
    refused = get("/styles/none")
    assert (refused.status_code, refused.json()["status"]) == (status, status)
    assert ("WWW-Authenticate" in refused.headers) == (status == 401)
    assert "Retry-After" not in refused.headers
    assert get("/styles/none").status_code == 200


def test_429_says_how_long_to_wait_in_each_way(get: Get, plan: Plan) -> None:
    names = ["retry_after", "retry_after_date", "ratelimit_reset", "x_ratelimit_reset", "none"]
    plan(*({"path": "/", "fault": "429", "header": name, "seconds": 30} for name in names))
    before = time.time()
    found = [get("/styles/none").headers for _ in names]
    after = time.time()
    date = parsedate_to_datetime(found[1]["Retry-After"]).timestamp()
    assert found[0]["Retry-After"] == "30"
    assert before + 30 <= date <= after + 31
    assert found[2]["RateLimit-Reset"] == "30"
    assert before + 30 <= int(found[3]["X-RateLimit-Reset"]) <= after + 31
    waits = ("retry-after", "ratelimit-reset", "x-ratelimit-reset")
    counts = [sum(name in headers for name in waits) for headers in found]
    assert counts == [1, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("way", "header", "form"),
    [
        ("retry_after_decimal", "Retry-After", r"30\.0"),
        ("retry_after_unit", "Retry-After", "30s"),
        ("retry_after_twice", "Retry-After", "30, 30"),
        ("retry_after_iso", "Retry-After", r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"),
        ("retry_after_moment", "Retry-After", r"\d{10}"),
        ("ratelimit", "RateLimit", '"default";r=0;t=30'),
        ("ratelimit_old", "RateLimit", "limit=100, remaining=0, reset=30"),
        ("x_rate_limit_reset", "X-Rate-Limit-Reset", r"\d{10}"),
        ("x_ratelimit_reset_ms", "X-RateLimit-Reset", r"\d{10}000"),
    ],
)
def test_429_says_how_long_to_wait_in_odd_ways(
    get: Get, plan: Plan, way: str, header: str, form: str
) -> None:
    plan({"path": "/", "fault": "429", "header": way, "seconds": 30})
    assert re.fullmatch(form, get("/styles/none").headers[header])


def test_an_answer_of_any_kind(get: Get, plan: Plan) -> None:
    plan(
        {"path": "/", "fault": "answer", "status": 207, "body": {"error": "busy"}},
        {"path": "/", "fault": "answer", "body": "so", "headers": {"Content-Type": "text/plain"}},
    )
    first, second = get("/styles/none"), get("/styles/none")
    assert (first.status_code, first.json()) == (207, {"error": "busy"})
    assert (second.status_code, second.text) == (200, "so")
    assert second.headers["Content-Type"] == "text/plain"


def test_an_empty_body_and_no_content(get: Get, plan: Plan) -> None:
    plan({"path": "/", "fault": "empty"}, {"path": "/", "fault": "204"})
    empty, nothing = get("/styles/none"), get("/styles/none")
    assert (empty.status_code, empty.content) == (200, b"")
    assert (empty.headers["Content-Length"], nothing.status_code) == ("0", 204)
    assert "Content-Length" not in nothing.headers
    assert "Content-Type" not in nothing.headers


def test_html_with_status_200(get: Get, plan: Plan) -> None:
    plan({"path": "/", "fault": "html"}, {"path": "/", "fault": "html_as_json"})
    honest, lying = get("/styles/none"), get("/styles/none")
    assert honest.status_code == lying.status_code == 200
    assert honest.text == lying.text
    assert "<html>" in honest.text
    assert honest.headers["Content-Type"].startswith("text/html")
    assert lying.headers["Content-Type"] == "application/json"


def test_the_right_body_under_another_type(get: Get, plan: Plan) -> None:
    plan({"path": "/", "fault": "wrong_type"})
    wrong, right = get("/styles/none"), get("/styles/none")
    assert wrong.content == right.content
    assert wrong.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_half_a_json_text_announced_as_whole(get: Get, plan: Plan) -> None:
    plan({"path": "/", "fault": "cut_json"})
    half, whole = get("/styles/none"), get("/styles/none")
    assert half.content == whole.content[: len(whole.content) // 2]
    assert int(half.headers["Content-Length"]) == len(half.content)


@pytest.mark.parametrize(
    ("to", "location"),
    [
        ("same_host", "/styles/none?limit=3"),
        ("other_host", "http://localhost:{port}/styles/none?limit=3"),
        ("file", "file:///etc/passwd"),
        ("link_local", "http://169.254.169.254/latest/meta-data/"),
        ("endless", "/styles/none?limit=3&hop=1"),
    ],
)
def test_a_redirect_leads_anywhere(get: Get, plan: Plan, url: str, to: str, location: str) -> None:
    plan({"path": "/", "fault": "redirect", "to": to})
    response = get("/styles/none?limit=3")
    assert response.status_code == 302
    assert response.headers["Location"] == location.format(port=urlsplit(url).port)


def test_a_redirect_leads_to_another_server(get: Get, plan: Plan) -> None:
    with misbehaving() as other:
        location = f"{other}/styles/none"
        plan({"path": "/", "fault": "redirect", "location": location, "status": 307})
        response = get("/styles/offset", allow_redirects=True)
        assert response.history[0].status_code == 307
        assert len(requests.get(f"{other}/_requests", timeout=10).json()) == 1
    assert len(rows_of(response)) == 25


def test_an_endless_redirect_never_repeats_a_url(get: Get, plan: Plan, seen: Seen) -> None:
    plan({"path": "/", "fault": "redirect", "to": "endless", "times": None})
    with pytest.raises(requests.TooManyRedirects):
        get("/styles/none", allow_redirects=True)
    paths = [request["path"] for request in seen()]
    assert len(set(paths)) == len(paths) > 20


COUNTED = {"page", "page_headers", "offset", "offset_from_1", "keyset"}


def first_ids(pages: Iterator[requests.Response], count: int) -> list[int]:
    """The first id of each of so many pages."""
    return [ids_of(next(pages))[0] for _ in range(count)]


@pytest.mark.parametrize(("pages", "expected"), [(1, [1, 1, 1, 1]), (2, [1, 11, 1, 11])])
@pytest.mark.parametrize("style", sorted(WALKS.keys() - NOT_PAGED - COUNTED))
def test_a_next_link_leads_back(
    get: Get, plan: Plan, style: str, pages: int, expected: list[int]
) -> None:
    plan({"path": "/styles", "fault": "loop", "pages": pages, "times": None})
    assert first_ids(WALKS[style](get), 4) == expected


def test_graphql_leads_back(url: str, plan: Plan) -> None:
    plan({"path": "/styles", "fault": "loop", "pages": 2, "times": None})
    first = graphql(url, None)
    second = graphql(url, first["pageInfo"]["endCursor"])
    again = graphql(url, second["pageInfo"]["endCursor"])
    assert [page["nodes"][0]["id"] for page in (first, second, again)] == [1, 11, 1]


@pytest.mark.parametrize(("pages", "expected"), [(1, [1, 1, 1, 1]), (2, [1, 11, 1, 11])])
@pytest.mark.parametrize(
    "targets",
    [
        [f"/styles/offset?offset={start}" for start in (0, 10, 20, 30)],
        [f"/styles/offset_from_1?startIndex={start}" for start in (1, 11, 21, 31)],
        [f"/styles/page?page={number}" for number in (1, 2, 3, 4)],
        [f"/styles/page_headers?page={number}" for number in (1, 2, 3, 4)],
        [f"/styles/keyset?after_id={row_id}" for row_id in (0, 10, 20, 10)],
    ],
)
def test_a_client_that_counts_gets_the_same_rows_again(
    get: Get, plan: Plan, targets: list[str], pages: int, expected: list[int]
) -> None:
    plan({"path": "/styles", "fault": "loop", "pages": pages, "times": None})
    found = [get(target) for target in targets]
    assert [ids_of(page)[0] for page in found] == expected
    documents = [page.json() for page in found if "X-WP-Total" not in page.headers]
    assert all(document.get("has_more", True) for document in documents)


@pytest.mark.parametrize("style", ["next_url", "next_path", "link_header"])
def test_a_next_link_leads_to_another_host(get: Get, plan: Plan, url: str, style: str) -> None:
    other = f"http://localhost:{urlsplit(url).port}/styles/{style}?position=10"
    expected = {"other_host": other, "file": "file:///etc/passwd"}
    for to, link in expected.items():
        plan({"path": "/styles", "fault": "next_link", "to": to})
        page = get(f"/styles/{style}")
        following = page.links["next"]["url"] if page.links else page.json()["next"]
        assert (following, ids_of(page)) == (link, IDS[:10])


def test_late_rows_turn_up_at_the_end(get: Get, plan: Plan) -> None:
    for style in sorted(WALKS.keys() - {"keyset"}):
        plan({"path": "/styles", "fault": "late"})
        found = [ids_of(page) for page in WALKS[style](get)]
        assert [row_id for page in found for row_id in page] == [*IDS[2:], 1, 2]
    plan({"path": "/styles", "fault": "late"})
    assert ids_of(get("/styles/keyset?after_id=22")) == [23, 24, 25, 1, 2]


def test_duplicate_rows_come_again_on_the_next_page(get: Get, plan: Plan) -> None:
    for style in sorted(WALKS.keys() - {"windows", "page", "none"}):
        plan({"path": "/styles", "fault": "duplicate", "skip": 1})
        found = [ids_of(page) for page in WALKS[style](get)]
        assert found == [IDS[:10], [9, 10, *range(11, 19)], [17, 18, *range(19, 26)]]
    plan({"path": "/styles", "fault": "duplicate"})
    assert ids_of(get("/styles/windows?since=2024-01-11&until=2024-01-12")) == [11]
    assert ids_of(get("/styles/windows?since=2024-01-10&until=2024-01-11")) == [10, 9, 10]


def test_rows_move_between_pages_during_reading(get: Get, plan: Plan) -> None:
    """A row comes in before page 2 is read, and once more before page 3: 10 and 20 come twice."""
    plan({"path": "/styles", "fault": "moving", "skip": 1, "times": 2})
    found = [ids_of(page) for page in offsets(get)]
    assert found == [IDS[:10], IDS[9:19], IDS[18:25]]
    assert ids_of(get("/styles/none")) == [-1, 0, *IDS]


def test_rows_go_away_during_reading(get: Get, plan: Plan) -> None:
    """Row 11 moves to a page that was read already."""
    plan({"path": "/styles", "fault": "moving", "rows": -1, "skip": 1})
    found = [ids_of(page) for page in offsets(get)]
    assert found == [IDS[:10], IDS[11:21], IDS[21:]]


def test_moving_rows_do_not_disturb_a_keyset(get: Get, plan: Plan) -> None:
    plan({"path": "/styles", "fault": "moving", "skip": 1})
    assert [row_id for page in keys(get) for row_id in ids_of(page)] == IDS


def test_the_schema_changes_between_pages(get: Get, plan: Plan) -> None:
    plan({"path": "/styles/offset?offset=10", "fault": "changed_schema"})
    first, second, third = (rows_of(page) for page in offsets(get))
    assert first == ROWS[:10]
    assert {frozenset(row) for row in second + third} == {
        frozenset({"id", "price", "updated_at", "currency"})
    }
    assert second[0]["price"] == "13.75"


def test_the_schema_changes_in_one_way_within_a_page(get: Get, plan: Plan) -> None:
    only = {"new_field": True, "other_type": False, "field_gone": False}
    plan({"path": "/formats", "fault": "changed_schema", "from_id": 25, **only})
    assert get("/formats/list").json() == [*ROWS[:24], {**ROWS[24], "currency": "EUR"}]


def connected(url: str) -> socket.socket:
    host, port = urlsplit(url).netloc.split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def converse(url: str, target: str) -> tuple[bytes, bytes, str]:
    """Head and body as they came, and how the server ended: with FIN or RST."""
    with connected(url) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        received, end = b"", "FIN"
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionResetError:
            end = "RST"
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body, end


@pytest.mark.parametrize(("fault", "end"), [("cut", "FIN"), ("reset", "RST")])
def test_a_connection_breaks_in_the_middle_of_the_body(
    get: Get, plan: Plan, url: str, fault: str, end: str
) -> None:
    whole = get("/styles/none").content
    plan({"path": "/", "fault": fault}, {"path": "/", "fault": fault, "sent_bytes": 5})
    for expected in (whole[: len(whole) // 2], whole[:5]):
        head, body, ended = converse(url, "/styles/none")
        assert f"Content-Length: {len(whole)}".encode() in head
        assert (body, ended) == (expected, end)


@pytest.mark.parametrize(("fault", "end"), [("hang_up", "FIN"), ("reset_at_once", "RST")])
def test_a_connection_breaks_before_any_answer(plan: Plan, url: str, fault: str, end: str) -> None:
    plan({"path": "/", "fault": fault})
    assert converse(url, "/styles/none") == (b"", b"", end)


def test_a_chunked_body_lacks_its_end(get: Get, plan: Plan, url: str) -> None:
    whole = get("/styles/none").content
    plan({"path": "/", "fault": "cut_chunked", "times": 2})
    head, body, end = converse(url, "/styles/none")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    size, _, rest = body.partition(b"\r\n")
    assert (int(size, 16), rest, end) == (
        len(whole) // 2,
        whole[: len(whole) // 2] + b"\r\n",
        "FIN",
    )
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        get("/styles/none")


@pytest.mark.parametrize("fault", ["cut", "cut_chunked", "reset", "reset_at_once", "hang_up"])
def test_a_broken_connection_is_mended_by_the_next_request(
    plan: Plan, url: str, fault: str
) -> None:
    plan({"path": "/", "fault": fault})
    with requests.Session() as session:
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            session.get(f"{url}/styles/none", timeout=10)
        assert session.get(f"{url}/styles/none", timeout=10).status_code == 200


def test_an_answer_comes_later(get: Get, plan: Plan) -> None:
    plan({"path": "/", "fault": "latency", "seconds": 0.3})
    before = time.monotonic()
    assert ids_of(get("/styles/none")) == IDS
    assert time.monotonic() - before >= 0.3


def test_a_server_that_waits_can_be_stopped_at_once() -> None:
    """Its connections end with it, even idle ones."""
    before = time.monotonic()
    with ThreadPoolExecutor() as pool, contextlib.ExitStack() as stack:
        with misbehaving() as url:
            idle = stack.enter_context(connected(url))
            wanted = [{"path": "/styles/offset", "fault": "latency", "seconds": 60}]
            requests.post(f"{url}/_faults", json=wanted, timeout=10)
            waiting = pool.submit(requests.get, f"{url}/styles/offset", timeout=30)
            while not requests.get(f"{url}/_requests", timeout=10).json():
                assert not waiting.done()
        assert isinstance(waiting.exception(10), requests.ConnectionError)
        assert idle.recv(1) == b""
    assert time.monotonic() - before < 10


def arrivals(url: str, target: str) -> tuple[list[tuple[float, int]], bytes]:
    """When so many bytes were there, and all of them; until the announced body is complete."""
    with connected(url) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        received, times = b"", []
        while not is_complete(received):
            received += connection.recv(65536)
            times.append((time.monotonic(), len(received)))
    return times, received


def is_complete(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    lengths = re.findall(rb"Content-Length: (\d+)", head)
    return bool(end) and len(body) == int(lengths[0])


@pytest.mark.parametrize("fault", ["drip", "drip_headers"])
def test_bytes_drip(get: Get, plan: Plan, url: str, fault: str) -> None:
    body_size = len(get("/formats/object").content)
    plan({"path": "/", "fault": fault, "seconds": 0.002})
    before = time.monotonic()
    times, received = arrivals(url, "/formats/object")
    head_size = len(received) - body_size
    assert json.loads(received[head_size:]) == ROWS[0]
    in_head = [at for at, size in times if size <= head_size]
    in_body = [at for at, size in times if size > head_size]
    dripping, at_once = (in_body, in_head) if fault == "drip" else (in_head, in_body)
    size = body_size if fault == "drip" else head_size
    assert len(dripping) > 10
    assert len(at_once) <= 1
    assert dripping[-1] - before >= 0.002 * (size - 1)


def test_some_kilobytes_become_200_megabytes(get: Get, plan: Plan) -> None:
    plan({"path": "/", "fault": "gzip_bomb"})
    response = get("/styles/none", stream=True)
    assert response.headers["Content-Encoding"] == "gzip"
    packed = response.raw.read(decode_content=False)
    with gzip.open(io.BytesIO(packed)) as body:
        unpacked = sum(len(part) for part in iter(lambda: body.read(1 << 20), b""))
    assert (len(packed) < 300_000, unpacked) == (True, 200_000_000)


def test_a_bomb_is_json_and_may_be_a_file(get: Get, plan: Plan) -> None:
    size = {"size_bytes": 3_000_000}
    plan({"path": "/", "fault": "gzip_bomb", **size, "is_file": True})
    response = get("/styles/none")
    assert "Content-Encoding" not in response.headers
    assert response.headers["Content-Type"] == "application/gzip"
    unpacked = gzip.decompress(response.content)
    assert (len(unpacked), json.loads(unpacked)["items"]) == (3_000_000, [])


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_body_is_huge(get: Get, plan: Plan, is_declared: bool) -> None:
    size = {"size_bytes": 3_000_000, "is_declared": is_declared}
    plan({"path": "/", "fault": "huge", **size})
    response = get("/styles/none")
    assert (len(response.content), response.json()["items"]) == (3_000_000, [])
    assert ("Content-Length" in response.headers) == is_declared


def test_a_client_that_goes_away_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    """In the middle of a body, or between two requests."""
    with misbehaving() as url:
        wanted = [{"path": "/", "fault": "huge"}, {"path": "/", "fault": "gzip_bomb"}]
        requests.post(f"{url}/_faults", json=wanted, timeout=10)
        for _ in wanted:
            requests.get(f"{url}/styles/none", stream=True, timeout=10).close()
        with connected(url) as idle:
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        assert ids_of(requests.get(f"{url}/styles/none", timeout=10)) == IDS
    assert capfd.readouterr().err == ""


def test_every_fault_is_tested_here() -> None:
    source = Path(__file__).read_text()
    assert len(FAULTS) > 30
    assert [name for name in FAULTS if f'"{name}"' not in source and not name.isdigit()] == []


def test_a_longer_list_can_be_served() -> None:
    with misbehaving(item_count=1000) as url:
        body = requests.get(f"{url}/styles/offset?offset=995", timeout=10).json()
    assert ([row["id"] for row in body["items"]], body["total"]) == (list(range(996, 1001)), 1000)
