"""A secret that an API repeats appears nowhere: not in errors, logs, pages' addresses or resumes.

The secret starts and ends with a word that no encoding changes; the tests search for it.
"""

import html
import json
import logging
import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, urlsplit

import pytest

from flows.errors import BadPayloadError, EltError, UnavailableError
from flows.extract.auth import ApiKey, Basic, Bearer, OAuth2
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import next_link, next_token, next_url
from flows.extract.selectors import records_at
from flows.load import checkpoints
from flows.page import Page
from flows.redaction import redact, remember
from flows.source import Partition, Resource, Source, Window
from tests.http_servers import Answer, Asked, Serve

WORD = "cAn4ryW0rd"
SECRET = f"{WORD} &+/=%?#\"'<>\\~{{}}\u00e9{WORD}"
USER = "us3r"
BASE64 = (b64encode(f"{USER}:{SECRET}".encode()).decode(),)

LOGINS: dict[str, Any] = {
    "header": ApiKey("shop-key", header="X-Key"),
    "param": ApiKey("shop-key", param="api_key"),
    "bearer": Bearer("shop-key"),
    "basic": Basic(USER, "shop-key"),
    "oauth2": OAuth2("", USER, "shop-key"),
}

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent-encoded": lambda secret: quote(secret, safe=""),
    "percent-encoded in part": quote,
    "as in a form": quote_plus,
    "encoded twice": lambda secret: quote(quote(secret, safe=""), safe=""),
    "in lower case": lambda secret: quote(secret, safe="").replace("%C3%A9", "%c3%a9"),
    "as Latin-1": lambda secret: quote(secret, safe="", encoding="latin-1"),
    "in JSON": json.dumps,
    "in JSON with letters": lambda secret: json.dumps(secret, ensure_ascii=False),
    "in JSON for HTML": lambda secret: (
        json.dumps(secret).replace("&", "\\u0026").replace("<", "\\u003c").replace("/", "\\/")
    ),
    "in JSON in JSON": lambda secret: json.dumps(json.dumps(secret)),
    "in HTML": html.escape,
    "in HTML by number": lambda secret: "".join(
        letter if letter.isalnum() and letter.isascii() else f"&#{ord(letter)};"
        for letter in secret
    ),
    "as Python shows it": repr,
}
every_login = pytest.mark.parametrize("login", LOGINS, ids=LOGINS)
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)

Echo = Callable[[Asked, str], Answer]


pytestmark = pytest.mark.usefixtures("slept")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[Any], str]:
    """All texts of an outcome and of the logs."""
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "flows"):
        caplog.set_level(logging.DEBUG, name)

    def everything(outcome: Any) -> str:
        logged = [f"{caplog.handler.format(record)} {record.args}" for record in caplog.records]
        assert logged
        return "\n".join([*logged, *texts_of(outcome)])

    return everything


def texts_of(outcome: Any) -> Iterator[str]:
    if isinstance(outcome, BaseException):
        yield from traceback.format_exception(outcome)
        linked: BaseException | None = outcome
        while linked is not None:
            yield f"{linked!r} {linked.args} {vars(linked)}"
            linked = linked.__cause__ or linked.__context__
    else:
        for page in outcome:
            yield f"{page.url} {page.request!r} {page.request} {page.resume!r}"
            if page.resume is not None:
                yield checkpoints.resume_json(page.resume)


def shown(asked: Asked) -> str:
    """The secret in a request."""
    query = parse_qs(urlsplit(asked).query)
    signed = asked.headers.get("X-Key") or asked.headers.get("Authorization", "").partition(" ")[2]
    return query["api_key"][0] if "api_key" in query else str(signed)


def outcome(serve: Serve, login: str, echo: Echo, **declared: Any) -> Any:
    """The pages of an API that echoes the secret, or the error that reading it ends with."""

    def answer(asked: Asked) -> Answer:
        if asked == "/token":
            return Answer(json.dumps({"access_token": f"{WORD}{SECRET}"}).encode())
        sent = shown(asked)
        assert WORD in sent or WORD in b64decode(sent).decode()
        return echo(asked, sent.encode("latin-1").decode("latin-1"))

    url = serve(answer).url
    orders = Resource("orders", "orders", records_at("items"), **declared)
    own = LOGINS[login] if login != "oauth2" else OAuth2(f"{url}token", USER, "shop-key")
    shop = Source("shop", url, (orders,), login=own, max_wait_seconds=3, max_body_bytes=100_000)
    with Client(shop, lambda _: SECRET) as client:
        try:
            return list(read_pages(client, shop, orders, Partition(), Window()))
        except EltError as error:
            return error


def is_hidden(text: str) -> bool:
    return WORD not in text and not any(encoded in text for encoded in BASE64)


def web_page(status: int, form: Callable[[str], str] = str) -> Echo:
    """An error with that body, or a web page where records should be."""
    headers = {"Content-Type": "text/html"}
    return lambda _, sent: Answer(f"<p>no: {form(sent)}</p>".encode(), status, headers)


@every_login
@pytest.mark.parametrize("status", [200, 400, 401, 404, 503])
def test_a_body_that_repeats_the_secret(
    serve: Serve, said: Callable[[Any], str], login: str, status: int
) -> None:
    failure = outcome(serve, login, web_page(status))
    assert "<p>no: ***</p>" in str(failure)
    assert is_hidden(said(failure))


@every_form
def test_a_body_that_repeats_the_secret_in_another_form(
    serve: Serve, said: Callable[[Any], str], form: Callable[[str], str]
) -> None:
    failure = outcome(serve, "header", web_page(400, form))
    assert "***" in str(failure)
    assert is_hidden(said(failure))


@every_login
@pytest.mark.parametrize("before", [0, 150, 185, 195, 8150, 8185])
def test_a_body_that_repeats_the_secret_where_it_is_cut(
    serve: Serve, said: Callable[[Any], str], login: str, before: int
) -> None:
    failure = outcome(
        serve, login, lambda _, sent: Answer(b"x" * before + sent.encode() * 9, status=400)
    )
    assert is_hidden(said(failure))


def head(*lines: str) -> Answer:
    """A response whose headers are these lines, unchanged."""
    start = "\r\n".join(["HTTP/1.1 200 OK", *lines, "Content-Length: 2", "", "[]"])
    return Answer(wire=[start.encode("latin-1")])


HEADS: dict[str, Echo] = {
    "in its type": lambda _, sent: head(f"Content-Type: text/html; {sent}"),
    "in its reason": lambda _, sent: Answer(
        wire=[f"HTTP/1.1 400 {sent}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")]
    ),
    "in its coding": lambda _, sent: head(f"Content-Encoding: {sent}"),
    "in what asks to wait": lambda _, sent: Answer(b"", 503, {"Retry-After": quote(sent)}),
    "in a header that is none": lambda _, sent: head("no header", f"X-Key: {sent}"),
    "in no header at all": lambda _, sent: head("Content-Type: text/html", sent),
}


@every_login
@pytest.mark.parametrize("echo", HEADS.values(), ids=HEADS)
def test_headers_that_repeat_the_secret(
    serve: Serve, said: Callable[[Any], str], login: str, echo: Echo
) -> None:
    assert is_hidden(said(outcome(serve, login, echo)))


ADDRESSES: dict[str, Callable[[str], str]] = {
    "by its name": lambda sent: f"/there?a=1&api_key={quote(sent, safe='')}",
    "by another name": lambda sent: f"/there?access_token={quote_plus(sent)}&a=1",
    "by two names": lambda sent: f"/there?api_key={quote(sent)}&a=1&key={quote(sent, safe='')}",
    "in its path": lambda sent: f"/there/{quote(sent, safe='')}?a=1",
    "in another parameter": lambda sent: f"/there?a=1&back={quote(f'/?k={quote(sent)}', safe='')}",
    "in its fragment": lambda sent: f"/there?a=1#{quote(sent, safe='')}",
    "on another host": lambda sent: f"http://other.invalid/there?a=1&key={quote(sent)}",
    "in no address": lambda sent: f"http://[{quote(sent)}",
    "as a user": lambda sent: f"http://{quote(sent, safe='')}@127.0.0.1:1/there?a=1",
}
CAN_BE_TAKEN_OUT = ("by its name", "by another name", "by two names")


def redirect(address: Callable[[str], str]) -> Echo:
    def echo(asked: Asked, sent: str) -> Answer:
        if asked.startswith("/there"):
            return Answer(b'{"items": [1]}')
        return Answer(b"", 302, {"Location": address(sent)})

    return echo


def link(address: Callable[[str], str]) -> Echo:
    def echo(asked: Asked, sent: str) -> Answer:
        following = None if asked.startswith("/there") else address(sent)
        headers = {"Content-Type": "application/json"}
        if following:
            headers["Link"] = f'<{following}>; rel="next"'
        body = json.dumps({"items": [asked[:6]], "next": following}).encode()
        return Answer(body, headers=headers)

    return echo


WAYS: dict[str, tuple[Callable[[Callable[[str], str]], Echo], dict[str, Any]]] = {
    "redirect": (redirect, {}),
    "next URL": (link, {"paging": next_url("next")}),
    "next link": (link, {"paging": next_link()}),
}


@every_login
@pytest.mark.parametrize("where", ADDRESSES)
@pytest.mark.parametrize("way", WAYS)
def test_an_address_that_repeats_the_secret(
    serve: Serve, said: Callable[[Any], str], login: str, where: str, way: str
) -> None:
    """It is followed without; where that can't be, it is refused."""
    echo, declared = WAYS[way][0](ADDRESSES[where]), WAYS[way][1]
    found = outcome(serve, login, echo, **declared)
    assert is_hidden(said(found))
    if where in CAN_BE_TAKEN_OUT:
        assert [page.url.rpartition("/")[2] for page in found][-1] == "there?a=1"
    else:
        assert isinstance(found, EltError)


PAGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "as a list": ({"next": ["SECRET"]}, {"paging": next_url("next")}),
    "as a token": ({"next": "x SECRET"}, {"paging": next_token("next", param="at")}),
    "as a token in a header": ({"next": "SECRET"}, {"paging": next_token("next", header="X-At")}),
    "as a token in the body": (
        {"next": {"at": "SECRET"}},
        {"paging": next_token("next", body_field="at"), "method": "POST", "is_repeatable": True},
    ),
}


@every_login
@pytest.mark.parametrize(("document", "declared"), PAGES.values(), ids=PAGES)
def test_a_page_that_repeats_the_secret(
    serve: Serve, said: Callable[[Any], str], login: str, document: Any, declared: dict[str, Any]
) -> None:
    """In the next request, which would be stored."""

    def echo(_: Asked, sent: str) -> Answer:
        text = json.dumps({"items": [1], **document})
        return Answer(text.replace("SECRET", json.dumps(sent)[1:-1]).encode())

    failure = outcome(serve, login, echo, **declared)
    assert isinstance(failure, BadPayloadError)
    assert is_hidden(said(failure))


@every_login
def test_a_connection_that_fails(serve: Serve, said: Callable[[Any], str], login: str) -> None:
    """The error of requests quotes the address with its query."""
    failure = outcome(serve, login, lambda _, __: Answer(b"x", declared_length=99))
    assert isinstance(failure, UnavailableError)
    assert is_hidden(said(failure))


def test_a_token_server_that_repeats_the_clients_secret(
    serve: Serve, said: Callable[[Any], str]
) -> None:
    def answer(asked: Asked) -> Answer:
        sent = asked.headers["Authorization"]
        both = f"{sent} {b64decode(sent.removeprefix('Basic ')).decode()}"
        return Answer(f"who? {both}".encode(), 400)

    url = serve(answer).url
    shop = Source("shop", url, (), login=OAuth2(f"{url}token", USER, "shop-key"))
    with Client(shop, lambda _: SECRET) as client, pytest.raises(EltError) as failure:
        client.get(url)
    assert "who? Basic *** us3r:***" in str(failure.value)
    assert is_hidden(said(failure.value))


def test_what_is_not_secret_is_not_hidden() -> None:
    remember("abc")
    remember("abcd efgh")
    assert redact("abc abcd efg http://host/?a@b") == "abc abcd efg http://host/?a@b"
    assert redact("abcd efgh abcd+efgh ABCD%20EFGH") == "*** *** ***"
    assert redact("postgresql://me:pw@host/db") == "postgresql://***@host/db"


def test_pages_of_an_api_that_repeats_nothing_are_as_they_are(serve: Serve) -> None:
    pages: list[Page] = outcome(
        serve, "param", link(lambda _: "/there?a=1&b="), paging=next_url("next")
    )
    assert [urlsplit(page.url).query for page in pages] == ["", "a=1&b="]
