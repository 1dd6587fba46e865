"""A login that an API repeats is in no error, no log record and no table of the ledger.

Each row of `ECHOES` is an answer that repeats it, and the error that it ends with. The secret
begins and ends with a word that no encoding changes, which is then looked for.
"""

import html
import inspect
import json
import os
import re
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import ensure_database, libpq
from flows import errors
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
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import next_token, next_url, offset
from flows.extract.selectors import columns_at, csv_rows, ndjson, record_at, records_at
from flows.load.loader import load
from flows.page import Page
from flows.source import Cursor, Partition, Resource, Source
from tests.http_servers import Answer, Asked, Serve

WORD = "cAn4ryW0rd"
SECRET = f"{WORD} &+/=%?#\"'<>\\~{{}}\u00e9{WORD}"
USER = "us3r"
BASE64 = b64encode(f"{USER}:{SECRET}".encode()).decode()

LOGINS: Mapping[str, Any] = {
    "header": ApiKey("shop-key", header="X-Key"),
    "param": ApiKey("shop-key", param="api_key"),
    "bearer": Bearer("shop-key"),
    "basic": Basic(USER, "shop-key"),
    "oauth2": OAuth2("", USER, "shop-key"),
}
ERRORS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, EltError)
]
JSON = "application/json"


@dataclass(frozen=True)
class Echo:
    """An answer that repeats what was sent, and what the load of it ends with.

    Attributes:
        kind: None where the load succeeds.
        say: the body, made of what was sent, or the whole answer.
        before: records of an earlier load that succeeds.
        between: SQL between the two loads.
    """

    kind: type[EltError] | None
    say: Callable[[str], Any]
    type: str = JSON
    status: int = 200
    declared: Mapping[str, Any] = field(default_factory=dict)
    partition: Partition = field(default_factory=Partition)
    before: list[Any] | None = None
    between: str = ""

    def answer(self, sent: str) -> Answer:
        said = self.say(sent)
        if isinstance(said, Answer):
            return said
        text = said if isinstance(said, str) else json.dumps(said)
        return Answer(text.encode(), self.status, {"Content-Type": self.type})


def items(*records: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda sent: {"items": [record(sent) for record in records]}


def raising(kind: type[Exception]) -> Callable[[Page], Any]:
    """A function of a source's own that quotes the whole body."""

    def own(page: Page) -> Any:
        raise kind(page.body.decode())

    return own


def chained(page: Page) -> Any:
    try:
        raise KeyError(page.body.decode())
    except KeyError as error:
        raise ValueError(f"no items in {page.body.decode()}") from error


def not_ascii(page: Page) -> Any:
    return page.body.decode("ascii")


def quoting(*_: object) -> Any:
    raise KeyError(SECRET)


def head(line: str) -> Answer:
    start = f"HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 2\r\n\r\n[]"
    return Answer(wire=[start.encode("latin-1")])


KEY = {"key": ("id",)}
CSV = {"records": csv_rows()}
ECHOES: Mapping[str, Echo] = {
    "stored as data": Echo(None, items(lambda sent: {"id": 1, "v": sent}), declared=KEY),
    "instead of JSON": Echo(BadPayloadError, str),
    "instead of JSON, paged": Echo(BadPayloadError, str, declared={"paging": next_url("next")}),
    "percent-encoded": Echo(BadPayloadError, partial(quote, safe="")),
    "in JSON": Echo(BadPayloadError, json.dumps),
    "in JSON in JSON": Echo(BadPayloadError, lambda sent: json.dumps(json.dumps(sent))[1:]),
    "as it is and percent-encoded": Echo(
        BadRequestError, lambda sent: f"{sent} {quote(sent)}", status=422
    ),
    "in HTML": Echo(BadPayloadError, lambda sent: f"<p>{html.escape(sent)}</p>", type="text/html"),
    "as HTML instead of JSON": Echo(BadPayloadError, html.escape),
    "far behind": Echo(BadPayloadError, lambda sent: "x" * 190 + sent),
    "in a key": Echo(BadPayloadError, lambda sent: {f"err {sent}": 1}),
    "instead of a list": Echo(BadPayloadError, lambda sent: {"items": sent}),
    "instead of an object": Echo(
        BadPayloadError, lambda sent: {sent: 1}, declared={"records": record_at("item")}
    ),
    "in arrays": Echo(
        BadPayloadError,
        lambda sent: {"items": {sent: [1], "b": []}},
        declared={"records": columns_at("items")},
    ),
    "bad request": Echo(BadRequestError, str, status=400),
    "refused login": Echo(RefusedLoginError, str, status=401),
    "not found": Echo(NotFoundError, str, status=404),
    "away": Echo(UnavailableError, str, status=503),
    "cut short": Echo(UnavailableError, lambda sent: Answer(sent.encode(), declared_length=999)),
    "too large": Echo(PayloadTooLargeError, lambda sent: sent * 9999),
    "reason": Echo(
        BadRequestError,
        lambda sent: Answer(
            wire=[f"HTTP/1.1 400 {sent}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")]
        ),
    ),
    "content type": Echo(BadPayloadError, lambda sent: head(f"Content-Type: text/html; {sent}")),
    "charset": Echo(
        BadPayloadError,
        lambda sent: head(f"Content-Type: text/csv; charset={quote(sent, safe='')}"),
        declared=CSV,
    ),
    "coding": Echo(BadPayloadError, lambda sent: head(f"Content-Encoding: {sent}")),
    "redirect": Echo(
        BadPayloadError, lambda sent: Answer(b"", 302, {"Location": f"/there/{quote(sent)}/"})
    ),
    "redirect of a POST": Echo(
        ConfigurationError,
        lambda sent: Answer(b"", 302, {"Location": f"/there/{quote(sent)}/"}),
        declared={"method": "POST"},
    ),
    "next page": Echo(
        BadPayloadError,
        lambda sent: {"items": [], "next": [sent]},
        declared={"paging": next_url("next")},
    ),
    "next token": Echo(
        BadPayloadError,
        lambda sent: {"items": [{"id": 1}], "next": sent},
        declared={"paging": next_token("next", param="at")},
    ),
    "total": Echo(
        BadPayloadError,
        lambda sent: {"items": [{"id": 1}], "total": sent},
        declared={"paging": offset(total="total")},
    ),
    "first request": Echo(
        ConfigurationError,
        lambda _: {"items": [{"id": 1}], "next": "/there"},
        declared={"params": {"k": SECRET}, "paging": next_url("next"), "checkpoint_rows": 1},
    ),
    "CSV as HTML": Echo(BadPayloadError, lambda s: f"<html>{s}", type="text/csv", declared=CSV),
    "CSV of uneven rows": Echo(
        BadPayloadError, lambda s: f"a,{quote(s)}\n1,2,{quote(s)}\n", type="text/csv", declared=CSV
    ),
    "CSV with a name twice": Echo(
        BadPayloadError, lambda s: f"a,a,{quote(s)}\n1,2,3\n", type="text/csv", declared=CSV
    ),
    "CSV with a quote": Echo(
        BadPayloadError, lambda s: f'a,b\n"{quote(s)}"x,2\n', type="text/csv", declared=CSV
    ),
    "CSV with another delimiter": Echo(
        BadPayloadError, lambda s: f"a;{quote(s)}\n1;2\n", type="text/csv", declared=CSV
    ),
    "line of NDJSON": Echo(
        BadPayloadError, lambda sent: f'{{"a": 1}}\n{sent}', declared={"records": ndjson()}
    ),
    "record without its key": Echo(BadPayloadError, items(lambda sent: {"v": sent}), declared=KEY),
    "record that is text": Echo(BadPayloadError, items(str), declared=KEY),
    "record that is cut": Echo(BadPayloadError, items(lambda sent: "x" * 40 + sent), declared=KEY),
    "long key": Echo(BadPayloadError, items(lambda sent: {"id": sent * 300}), declared=KEY),
    "cursor": Echo(
        BadPayloadError,
        items(lambda sent: {"id": 1, "at": sent}),
        declared={**KEY, "cursor": Cursor("at")},
    ),
    "pinned column": Echo(
        BadPayloadError,
        items(lambda sent: {"id": 1, "v": sent}),
        declared={**KEY, "columns": {"v": "integer"}},
    ),
    "pinned column of jsonb": Echo(
        BadPayloadError,
        items(lambda sent: {"id": 1, "v": {"a": sent}}),
        declared={**KEY, "columns": {"v": "integer"}},
    ),
    "many misfits": Echo(
        ConfigurationError,
        lambda sent: {"items": [{"id": n, "v": f"{sent}{n}"} for n in range(150)]},
        declared={**KEY, "columns": {"v": "integer"}},
    ),
    "field": Echo(BadPayloadError, items(lambda sent: {"id": 1, sent: 1}), declared=KEY),
    "two fields of one name": Echo(
        BadPayloadError,
        items(lambda sent: {"id": 1, sent: 1, sent.lower(): 2}),
        declared=KEY,
    ),
    "field of a frozen table": Echo(
        BadPayloadError,
        items(lambda sent: {"id": 1, sent: 1}),
        declared={**KEY, "contract": "freeze"},
        before=[{"id": 1}],
    ),
    "value of a frozen table": Echo(
        BadPayloadError,
        items(lambda sent: {"id": 1, "v": sent}),
        declared={**KEY, "contract": "freeze"},
        before=[{"id": 1, "v": 1}],
    ),
    "value in quarantine": Echo(
        BadPayloadError,
        items(lambda sent: {"id": 1, "v": sent}),
        declared={**KEY, "contract": "quarantine"},
        before=[{"id": 1, "v": 1}],
    ),
    "row that a constraint refuses": Echo(
        ConfigurationError,
        items(lambda sent: {"id": 2, "v": "x" * 50 + sent}),
        declared=KEY,
        before=[{"id": 1, "v": "ok"}],
        between="alter table raw_shop.items add check (v = 'ok')",
    ),
    "partition": Echo(
        ConfigurationError, items(), declared=KEY, partition=Partition(SECRET), before=[{"id": 1}]
    ),
    "own records": Echo(ConfigurationError, str, declared={"records": raising(KeyError)}),
    "own records with a cause": Echo(ConfigurationError, str, declared={"records": chained}),
    "own records in ASCII": Echo(
        ConfigurationError, lambda s: f"\u00e9{s}", declared={"records": not_ascii}
    ),
    "own paging": Echo(ConfigurationError, str, declared={"paging": raising(KeyError)}),
    "own params": Echo(ConfigurationError, str, declared={"params": quoting}),
    "own body": Echo(ConfigurationError, str, declared={"body": quoting, "method": "POST"}),
    **{
        f"own records with {kind.__name__}": Echo(kind, str, declared={"records": raising(kind)})
        for kind in ERRORS
    },
}

pytestmark = pytest.mark.usefixtures("slept")


@pytest.fixture(scope="module")
def warehouse(postgres_server: URL) -> Iterator[Connection]:
    """One database for all these tests: a new one each would take most of their time."""
    url = ensure_database(postgres_server, f"test_secrets_{os.getpid()}")
    with closing(psycopg2.connect(libpq(url))) as opened:
        yield opened


@pytest.fixture
def connection(warehouse: Connection) -> Iterator[Connection]:
    """A connection to an empty database."""
    yield warehouse
    with warehouse, warehouse.cursor() as cursor:
        cursor.execute("drop schema if exists elt, raw_shop cascade")
        cursor.execute("drop table if exists pg_temp.stage")


def test_every_error_is_what_some_echo_ends_with() -> None:
    assert len(ERRORS) >= 9
    assert {echo.kind for echo in ECHOES.values()} >= set(ERRORS)


def sent_in(asked: Asked) -> str:
    """The secret in a request, as text of Latin-1, which is what a header holds."""
    query = parse_qs(urlsplit(asked).query)
    signed = asked.headers.get("X-Key") or asked.headers.get("Authorization", "").partition(" ")[2]
    text = query["api_key"][0] if "api_key" in query else str(signed)
    return text.encode("latin-1").decode("latin-1")


def said_by(error: BaseException) -> Iterator[str]:
    yield f"{error} {error!r}"
    yield from traceback.format_exception(error)
    left: list[BaseException | None] = [error]
    while left:
        linked = left.pop()
        if linked is not None:
            yield f"{linked} {linked!r} {linked.args} {vars(linked)}"
            left += [linked.__cause__, linked.__context__]


def ledger_of(connection: Connection) -> Iterator[str]:
    """Every value that the schema `elt` holds, as text."""
    with connection, connection.cursor() as cursor:
        cursor.execute("select tablename from pg_tables where schemaname = 'elt'")
        tables = [name for (name,) in cursor.fetchall()]
        assert {"loads", "rejects", "checkpoints", "schema_changes", "columns"} <= set(tables)
        for name in tables:
            cursor.execute(sql.SQL("select t::text from {} t").format(sql.Identifier("elt", name)))
            yield from (f"{name}: {row}" for (row,) in cursor)


def leaks(text: str) -> bool:
    """Whether a text contains the secret or its beginning, even as a column's name."""
    plain = re.sub("[^a-z0-9]", "", text.lower())
    return WORD[:8].lower() in plain or BASE64[:20] in text


@pytest.mark.sampled(8)
@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize("name", ECHOES)
def test_a_login_that_is_repeated_is_nowhere(
    serve: Serve, connection: Connection, logged: Callable[[], str], name: str, login: str
) -> None:
    echo = ECHOES[name]
    answers = [Answer(json.dumps({"items": echo.before}).encode())] if echo.before else []

    def answer(asked: Asked) -> Answer:
        if asked == "/token":
            return Answer(json.dumps({"access_token": f"{WORD}{SECRET}"}).encode())
        sent = sent_in(asked)
        assert leaks(sent) or leaks(quote(sent))
        return answers.pop() if answers else echo.answer(sent)

    url = serve(answer).url
    own = LOGINS[login] if login != "oauth2" else OAuth2(f"{url}token", USER, "shop-key")
    resource = Resource("items", "items", **{"records": records_at("items"), **echo.declared})
    shop = Source("shop", url, (resource,), login=own, max_wait_seconds=3, max_body_bytes=100_000)
    with Client(shop, lambda _: SECRET) as client:

        def run(partition: Partition) -> BaseException | None:
            pages = partial(read_pages, client, shop, resource, partition)
            try:
                load(connection, "shop", resource, partition, pages)
            except BaseException as error:
                return error
            return None

        if echo.before:
            assert run(Partition()) is None
        if echo.between:
            with connection, connection.cursor() as cursor:
                cursor.execute(echo.between)
        failure = run(echo.partition)

    texts = [logged(), *ledger_of(connection), *(said_by(failure) if failure else ())]
    assert [text for text in texts if leaks(text)] == []
    assert type(failure) is (echo.kind or type(None))
