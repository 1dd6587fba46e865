"""Promises of extract and load together, kept with httpbin: logins, redirects, odd and slow bodies.

httpbin echoes each request, so the rows in Postgres also show what was sent.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest
import requests
from psycopg2.extensions import connection as Connection

from flows.errors import (
    BadPayloadError,
    BadRequestError,
    ConfigurationError,
    EltError,
    NotFoundError,
    PayloadTooLargeError,
    RefusedLoginError,
    UnavailableError,
)
from flows.extract.auth import ApiKey, Basic, Bearer, OAuth2
from flows.extract.selectors import record_at
from flows.source import Login, Resource, Source
from tests.foreign_servers import httpbin_org, services
from tests.foreign_servers.loading import (
    Query,
    changed,
    extracted,
    load_resource,
    stored,
    whole_rows,
)

CANARY = "s3cr&t+of=httpbin"
LONGEST_SECONDS = 5

Record = dict[str, Any]


@pytest.fixture(scope="module")
def httpbin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """The source, its httpbin running for all tests: it keeps nothing."""
    with services.httpbin(tmp_path_factory.mktemp("httpbin")) as url:
        yield replace(httpbin_org.SOURCE, base_url=url)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret that logins name, kept in the environment."""
    monkeypatch.setenv("HTTPBIN_TOKEN", CANARY)


def asking(httpbin: Source, path: str, *key: str, records: str = "", **changes: Any) -> Source:
    """The source with one resource, `answer`: the record at the path."""
    answer = Resource("answer", path, record_at(records), key=key)
    return replace(httpbin, resources=(answer,), **changes)


def without_headers(records: list[Record]) -> list[Record]:
    """Records without the echo of the request's headers, which differ from client to client."""
    return [{name: value for name, value in one.items() if name != "headers"} for one in records]


def held(httpbin: Source) -> dict[str, list[Record]]:
    """The rows of the source's resources, by name."""
    url = httpbin.base_url
    echo = {"args": {}, "origin": "127.0.0.1"}
    more = {"data": "", "files": {}, "form": {}}
    body = httpbin.resource("posted").body
    posted = {"data": json.dumps(body), "json": body, "method": "POST"}
    slides = requests.get(f"{url}json", timeout=10).json()["slideshow"]["slides"]
    return {
        "slides": [{"items": None, **slide} for slide in slides],
        "lines": [{"id": line, **echo, "url": f"{url}stream/25"} for line in range(25)],
        "gzipped": [{"gzipped": True, "method": "GET", "origin": "127.0.0.1"}],
        "deflated": [{"deflated": True, "method": "GET", "origin": "127.0.0.1"}],
        "redirected": [{**echo, "url": f"{url}get"}],
        "redirected_by_full_address": [{**echo, "url": f"{url}get"}],
        "delayed": [{**echo, **more, "url": f"{url}delay/0.3"}],
        "posted": [{**echo, **more, **posted, "url": f"{url}anything/orders"}],
        "dripped": [{"path": f"{url}drip", "size_bytes": 6}],
    }


@pytest.mark.parametrize("name", [resource.name for resource in httpbin_org.SOURCE.resources])
def test_every_kind_of_response_arrives_and_a_second_load_changes_nothing(
    name: str, httpbin: Source, connection: Connection, query: Query
) -> None:
    (key,) = httpbin.resource(name).key
    expected = sorted(held(httpbin)[name], key=lambda record: record[key])
    (entry,) = load_resource(connection, httpbin, name)
    assert (entry.state, entry.inserted) == ("succeeded", len(expected))
    assert without_headers(stored(query, httpbin, name, key)) == expected
    before = whole_rows(query, httpbin, name)
    again = load_resource(connection, httpbin, name)
    assert (extracted(again), changed(again)) == (len(expected), (0, 0, 0))
    assert whole_rows(query, httpbin, name) == before


def test_what_is_declared_is_sent_and_only_gzip_is_asked_for(
    httpbin: Source, connection: Connection, query: Query
) -> None:
    """The tests have brotli installed; supported encodings must not depend on that."""
    load_resource(connection, httpbin, "posted")
    (posted,) = stored(query, httpbin, "posted", "url")
    assert posted["headers"]["X-Shop"] == "north"
    assert posted["headers"]["Content-Type"] == "application/json"
    assert posted["headers"]["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("login", "path", "records", "key", "expected"),
    [
        (Bearer("httpbin-token"), "bearer", "", "token", {"token": CANARY}),
        (Basic("anna", "httpbin-token"), f"basic-auth/anna/{CANARY}", "", "user", {"user": "anna"}),
        (
            ApiKey("httpbin-token", header="X-Api-Key"),
            "headers",
            "headers",
            "Host",
            {"x_api_key": CANARY},
        ),
        (ApiKey("httpbin-token", param="api_key"), "get", "args", "api_key", {"api_key": CANARY}),
    ],
    ids=["bearer", "basic", "header", "param"],
)
def test_a_login_is_understood(
    login: Login,
    path: str,
    records: str,
    key: str,
    expected: Record,
    httpbin: Source,
    connection: Connection,
    query: Query,
) -> None:
    source = asking(httpbin, path, key, records=records, login=login)
    (entry,) = load_resource(connection, source, "answer")
    assert (entry.state, entry.inserted) == ("succeeded", 1)
    (found,) = stored(query, source, "answer", *expected)
    assert expected.items() <= found.items()
    assert changed(load_resource(connection, source, "answer")) == (0, 0, 0)


def test_a_token_is_fetched_first_and_then_sent(
    httpbin: Source, connection: Connection, query: Query
) -> None:
    """It issues no tokens, but responds to a POST with the JSON given in the query."""
    login = OAuth2(f"{httpbin.base_url}response-headers?access_token=given", "elt", "httpbin-token")
    source = asking(httpbin, "bearer", "token", login=login)
    load_resource(connection, source, "answer")
    assert stored(query, source, "answer", "token") == [{"authenticated": True, "token": "given"}]


@pytest.mark.parametrize(
    ("login", "path", "kind"),
    [
        (None, "bearer", RefusedLoginError),
        (Basic("bob", "httpbin-token"), f"basic-auth/anna/{CANARY}", RefusedLoginError),
        (Basic("bob", "httpbin-token"), f"hidden-basic-auth/anna/{CANARY}", NotFoundError),
        (Basic("bob", "httpbin-token"), "digest-auth/auth/bob/any", RefusedLoginError),
    ],
    ids=["none", "wrong user", "hidden", "another kind"],
)
def test_a_refused_login_is_sent_once_and_reported_without_its_secret(
    login: Login | None,
    path: str,
    kind: type[EltError],
    httpbin: Source,
    connection: Connection,
    query: Query,
) -> None:
    with pytest.raises(kind) as raised:
        load_resource(
            connection, asking(httpbin, path, login=login, max_wait_seconds=0.4), "answer"
        )
    assert raised.value.answer is not None
    assert raised.value.answer.attempts == 1
    ((state, error),) = query("select state, error from elt.loads")
    assert (state, CANARY in f"{error} {raised.value}") == ("failed", False)


def test_a_redirect_takes_the_login_along_on_its_host_only(
    httpbin: Source, connection: Connection, query: Query
) -> None:
    """127.0.0.1 and localhost are two hosts; the source may allow the other one."""
    elsewhere = httpbin.base_url.replace("127.0.0.1", "localhost")
    declared: Record = {"records": "headers", "login": Bearer("httpbin-token")}
    here = asking(httpbin, "redirect-to?url=/headers", "Host", **declared)
    there = asking(httpbin, f"redirect-to?url={elsewhere}headers", "Host", **declared)

    with pytest.raises(ConfigurationError, match="add 'localhost' to the source's `hosts`"):
        load_resource(connection, there, "answer")
    load_resource(connection, here, "answer")
    load_resource(connection, replace(there, hosts=("localhost",)), "answer")

    shown = [
        (row["host"].partition(":")[0], row["authorization"])
        for row in stored(query, here, "answer", "host")
    ]
    assert shown == [("127.0.0.1", f"Bearer {CANARY}"), ("localhost", f"Bearer {CANARY}")]


def test_a_redirect_takes_a_key_in_the_query_along(
    httpbin: Source, connection: Connection, query: Query
) -> None:
    """Once: where the server repeats a key in the address it sends us to, ours takes its place."""
    login = ApiKey("httpbin-token", param="api_key")
    source = asking(
        httpbin, "redirect-to?url=/get?a=1%26api_key=old", "a", records="args", login=login
    )
    load_resource(connection, source, "answer")
    assert stored(query, source, "answer", "a") == [{"a": "1", "api_key": CANARY}]


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("status/400", BadRequestError, "400 BAD REQUEST"),
        ("status/403", RefusedLoginError, "Correct the credentials"),
        ("status/404", NotFoundError, "Correct the base URL or path"),
        ("status/410", NotFoundError, "Correct the base URL or path"),
        ("status/418", BadRequestError, "teapot"),
        ("redirect/11", ConfigurationError, "redirected more than 10 times"),
        ("redirect-to?url=file:///etc/passwd", ConfigurationError, "not an HTTP address"),
        ("redirect-to?url=http://169.254.169.254/", ConfigurationError, "169.254.169.254"),
        ("html", BadPayloadError, "text/html.* where the source declares json.*Moby-Dick"),
        ("xml", BadPayloadError, "application/xml where the source declares json"),
        ("image/png", BadPayloadError, "image/png where the source declares json"),
        ("status/200", BadPayloadError, "text/html.* where the source declares json"),
        ("deny", BadPayloadError, "not JSON.*they begin"),
        ("brotli", BadPayloadError, "compressed as 'br'"),
        ("bytes/1024?seed=1", BadPayloadError, "application/octet-stream that is not utf-8"),
        ("stream-bytes/60000?seed=1", PayloadTooLargeError, "more than 50,000 bytes"),
    ],
)
def test_what_is_no_page_ends_in_the_error_that_says_what_to_do(
    path: str,
    kind: type[EltError],
    said: str,
    httpbin: Source,
    connection: Connection,
    query: Query,
) -> None:
    source = asking(httpbin, path, max_body_bytes=50_000)
    with pytest.raises(kind, match=f"(?s){said}") as raised:
        load_resource(connection, source, "answer")
    assert type(raised.value) is kind
    assert query("select state, extracted, error from elt.loads") == [
        ("failed", 0, str(raised.value))
    ]


@pytest.mark.parametrize(
    ("path", "limit", "said"),
    [
        ("status/429", {}, "answered 429"),
        ("status/500", {}, "answered 500"),
        ("status/503", {}, "answered 503"),
        ("drip?duration=0&numbytes=3&code=502", {}, "answered 502"),
        ("drip?duration=30&numbytes=300", {"answer_timeout_seconds": 0.6}, "no response in time"),
        ("delay/9", {"read_timeout_seconds": 0.3}, "no response in time"),
    ],
)
def test_an_api_that_is_busy_down_or_slow_is_given_up_in_time(
    path: str,
    limit: dict[str, Any],
    said: str,
    httpbin: Source,
    connection: Connection,
    query: Query,
) -> None:
    """With 0.4 s to wait between all attempts; without their limit, the slow ones would be read."""
    source = asking(httpbin, path, max_wait_seconds=0.4, **limit)
    began_at = monotonic()
    with pytest.raises(UnavailableError, match=said):
        load_resource(connection, source, "answer")
    assert monotonic() - began_at < LONGEST_SECONDS
    assert query("select state, extracted from elt.loads") == [("failed", 0)]


def test_no_content_is_no_records(httpbin: Source, connection: Connection) -> None:
    (entry,) = load_resource(connection, asking(httpbin, "status/204"), "answer")
    assert (entry.state, entry.pages, entry.extracted) == ("succeeded", 1, 0)
