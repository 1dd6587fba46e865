"""Promises of logins: how requests are signed, when a token is renewed, what is refused."""

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from requests import PreparedRequest

from flows.errors import (
    BadRequestError,
    ConfigurationError,
    PayloadTooLargeError,
    RefusedLoginError,
    UnavailableError,
)
from flows.extract.auth import (
    ApiKey,
    Basic,
    Bearer,
    OAuth2,
    ServiceAccount,
    SessionCookie,
    Signed,
    secret_from_environment,
)
from flows.extract.client import Client
from flows.page import HttpRequest, Page
from flows.redaction import redact
from flows.source import Source
from tests.http_servers import Answer, Asked, Serve, Server

GOOD = Answer(b'[{"id": 1}]')
SECRET = "p\xe4ss w:rd&+/=%\u20ac"  # noqa: S105 (made up)
PLAIN = "s3cret-k3y/+="
TOKEN = "t0ken-"  # noqa: S105 (made up)
Tokens = Callable[..., Server]


pytestmark = pytest.mark.usefixtures("slept")


def client(url: str, login: Any, secret: str = PLAIN, **changes: Any) -> Client:
    return Client(Source("shop", url, (), login=login, **changes), lambda _: secret)


def get(url: str, login: Any, secret: str = PLAIN, **changes: Any) -> Page:
    with client(url, login, secret, **changes) as opened:
        return opened.get(url)


def header(serve: Serve, login: Any, secret: str = PLAIN, name: str = "Authorization") -> str:
    """The header that a login sends."""
    server = serve(lambda _: GOOD)
    get(server.url, login, secret)
    return str(server.asked[0].headers[name])


def test_a_key_is_sent_in_its_header(serve: Serve) -> None:
    assert header(serve, ApiKey("shop-key", header="X-Api-Key"), name="x-api-key") == PLAIN


@pytest.mark.parametrize("secret", [PLAIN, SECRET], ids=["plain", "any letters"])
@pytest.mark.parametrize("path", ["orders", "orders?a=1&a=2%20", "orders?key=wrong&a=1"])
def test_a_key_is_sent_in_its_parameter_once(serve: Serve, secret: str, path: str) -> None:
    server = serve(lambda _: GOOD)
    with client(server.url, ApiKey("shop-key", param="key"), secret) as opened:
        page = opened.get(f"{server.url}{path}")
    assert parse_qs(urlsplit(server.asked[0]).query)["key"] == [secret]
    others = [pair for pair in parse_qsl(urlsplit(server.asked[0]).query) if pair[0] == "a"]
    assert others == [pair for pair in parse_qsl(urlsplit(path).query) if pair[0] == "a"]
    assert page.url == f"{server.url}{path}"


def test_a_bearer_token_is_sent_with_its_scheme(serve: Serve) -> None:
    assert header(serve, Bearer("shop-token")) == f"Bearer {PLAIN}"
    assert header(serve, Bearer("shop-token", scheme="Token")) == f"Token {PLAIN}"


def test_a_user_and_a_password_are_sent_in_utf_8(serve: Serve) -> None:
    scheme, _, sent = header(serve, Basic("j\xf6rg", "shop-password"), SECRET).partition(" ")
    assert (scheme, b64decode(sent).decode()) == ("Basic", f"j\xf6rg:{SECRET}")


def test_a_login_of_ones_own_signs_each_request(serve: Serve) -> None:
    class Signed:
        secret, param = "shop-key", ""

        def sign(self, request: PreparedRequest, value: str) -> None:
            request.headers["X-Signature"] = f"{value}:{len(str(request.url))}"

    server = serve(lambda _: GOOD)
    with client(server.url, Signed()) as opened:
        opened.get(server.url)
        opened.get(f"{server.url}abc")
    signatures = [asked.headers["X-Signature"] for asked in server.asked]
    assert signatures == [f"{PLAIN}:{len(server.url)}", f"{PLAIN}:{len(server.url) + 3}"]


def hmac_of(request: PreparedRequest, secret: str) -> None:
    told = f"{request.method} {request.path_url} ".encode() + (request.body or b"")
    request.headers["X-Signature"] = hmac.digest(secret.encode(), told, "sha256").hex()


def test_a_function_signs_each_request_as_it_is_sent(serve: Serve, slept: list[float]) -> None:
    """Also a repeated one; and the signatures, of which there are many, are not remembered."""
    said = [Answer(status=503)]
    server = serve(lambda _: said.pop() if said else GOOD)
    with client(server.url, Signed("shop-key", hmac_of)) as opened:
        opened.get(f"{server.url}a?b=1")
        opened.get(HttpRequest(f"{server.url}c", "POST", body={"d": 2}))
    told = [b"GET /a?b=1 ", b"GET /a?b=1 ", b'POST /c {"d": 2}']
    wanted = [hmac.digest(PLAIN.encode(), each, "sha256").hex() for each in told]
    sent = [asked.headers["X-Signature"] for asked in server.asked]
    assert (sent, len(slept)) == (wanted, 1)
    assert redact(f"{PLAIN} {sent[0]}") == f"*** {sent[0]}"


def test_what_a_function_writes_of_the_secret_is_hidden(serve: Serve) -> None:
    def in_base64(request: PreparedRequest, secret: str) -> None:
        request.headers["Authorization"] = f"Own {b64encode(f'me:{secret}'.encode()).decode()}"

    server = serve(lambda asked: Answer(asked.headers["Authorization"].encode(), 400))
    with pytest.raises(BadRequestError, match=r"Own \*\*\*"):
        get(server.url, Signed("shop-key", in_base64))


def test_a_function_that_fails_is_named_and_shows_no_secret(serve: Serve) -> None:
    def quoting(request: PreparedRequest, secret: str) -> None:
        raise ValueError(f"no {secret}")

    server = serve(lambda _: GOOD)
    with pytest.raises(ConfigurationError, match="`function` function failed in quoting") as said:
        get(server.url, Signed("shop-key", quoting))
    assert "no ***" in str(said.value)
    assert (said.value.__context__, server.asked) == (None, [])


@pytest.mark.parametrize("secret", ["two\nlines", "end\n", "end ", "\u20ac", "nul\0"], ids=repr)
@pytest.mark.parametrize("login", [Bearer("shop-key"), ApiKey("shop-key", header="X-Key")])
def test_a_secret_that_no_header_can_hold_is_named_and_not_shown(
    serve: Serve, login: Any, secret: str
) -> None:
    server = serve(lambda _: GOOD)
    with pytest.raises(
        RefusedLoginError, match="'shop-key' contains a line break or a letter"
    ) as failure:
        get(server.url, login, secret)
    assert secret not in str(failure.value)
    assert server.asked == []


@pytest.mark.parametrize("login", [{}, {"header": "X-Key", "param": "key"}], ids=["none", "two"])
def test_a_key_has_one_place(login: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="either a header or a param"):
        ApiKey("shop-key", **login)


def test_several_logins_sign_a_request_together(serve: Serve, tokens: Tokens) -> None:
    """And one of them renews its token."""
    login, allowed = tokens(), [1]
    api = serve(lambda asked: accepts(*allowed)(asked))
    both = (ApiKey("first-key", header="X-One"), oauth2(login), ApiKey("third-key", param="key"))
    with Client(Source("shop", api.url, (), login=both), lambda name: f"the {name}") as opened:
        opened.get(f"{api.url}a")
        allowed[0] = 2
        opened.get(f"{api.url}b")
    assert [asked.headers["X-One"] for asked in api.asked] == ["the first-key"] * 3
    shown = [asked.headers["Authorization"] for asked in api.asked]
    assert shown == [f"Bearer {TOKEN}{number}" for number in (1, 1, 2)]
    assert api.asked == [f"/{path}?key=the%20third-key" for path in "abb"]


def test_a_secret_is_read_when_it_is_needed_and_once(serve: Serve) -> None:
    read: list[str] = []

    def read_secret(name: str) -> str:
        read.append(name)
        return PLAIN

    server = serve(lambda _: GOOD)
    with Client(Source("shop", server.url, (), login=Bearer("shop-token")), read_secret) as opened:
        assert read == []
        opened.get(server.url)
        opened.get(server.url)
    assert read == ["shop-token"]


def test_a_secret_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", PLAIN)
    assert secret_from_environment("shop-token") == PLAIN
    monkeypatch.setenv("SHOP_TOKEN", "")
    with pytest.raises(RefusedLoginError, match="'shop-token' is missing: set SHOP_TOKEN"):
        secret_from_environment("shop-token")


def test_a_missing_secret_is_a_refused_login(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_TOKEN", raising=False)
    server = serve(lambda _: GOOD)
    source = Source("shop", server.url, (), login=Bearer("shop-token"))
    with pytest.raises(RefusedLoginError, match="set SHOP_TOKEN"), Client(source) as opened:
        opened.get(server.url)
    assert server.asked == []


@pytest.fixture
def tokens(serve: Serve) -> Tokens:
    """A server that issues t0ken-1, t0ken-2, …; or sends these responses instead, in order."""

    def start(*said: Answer) -> Server:
        left = [*said]

        def answer(_: Asked) -> Answer:
            if left:
                return left.pop(0)
            given = f"{TOKEN}{len(server.asked)}"
            return Answer(json.dumps({"access_token": given, "expires_in": 60}).encode())

        server = serve(answer)
        return server

    return start


def oauth2(server: Server, **changes: Any) -> OAuth2:
    return OAuth2(f"{server.url}token", "shop client", "shop-client-secret", **changes)


def accepts(*numbers: int) -> Callable[[Asked], Answer]:
    """An API that lets these tokens in."""
    known = [f"Bearer {TOKEN}{number}" for number in numbers]
    return lambda asked: GOOD if asked.headers["Authorization"] in known else Answer(status=401)


def test_a_token_is_fetched_once_for_all_requests(serve: Serve, tokens: Tokens) -> None:
    api, login = serve(accepts(1)), tokens()
    with client(api.url, oauth2(login, scope="orders read")) as opened:
        for _ in range(3):
            opened.get(api.url)
    (asked,) = login.asked
    assert (asked, asked.method) == ("/token", "POST")
    assert dict(parse_qsl(asked.body.decode())) == {
        "grant_type": "client_credentials",
        "scope": "orders read",
    }
    user = b64decode(asked.headers["Authorization"].removeprefix("Basic ")).decode()
    assert user == f"shop client:{PLAIN}"


def test_a_client_secret_may_have_any_letters(serve: Serve, tokens: Tokens) -> None:
    api, login = serve(accepts(1)), tokens()
    get(api.url, oauth2(login), SECRET)
    sent = login.asked[0].headers["Authorization"].removeprefix("Basic ")
    assert b64decode(sent).decode() == f"shop client:{SECRET}"
    assert dict(parse_qsl(login.asked[0].body.decode())) == {"grant_type": "client_credentials"}


@pytest.mark.parametrize("sends", ["form", "json"])
def test_a_client_secret_is_sent_in_the_body_where_that_is_declared(
    serve: Serve, tokens: Tokens, sends: Any
) -> None:
    api, login = serve(accepts(1)), tokens()
    get(api.url, oauth2(login, sends=sends, scope="read"), SECRET)
    (asked,) = login.asked
    read = {"form": lambda body: dict(parse_qsl(body)), "json": json.loads}[sends]
    assert read(asked.body.decode()) == {
        "grant_type": "client_credentials",
        "scope": "read",
        "client_id": "shop client",
        "client_secret": SECRET,
    }
    types = {"form": "application/x-www-form-urlencoded", "json": "application/json"}
    assert asked.headers["Content-Type"] == types[sends]
    assert "Authorization" not in asked.headers


@pytest.mark.parametrize("sends", ["header", "form", "json"])
def test_a_token_request_has_the_fields_that_are_declared(
    serve: Serve, tokens: Tokens, sends: Any
) -> None:
    """They come before our own: some APIs have a grant type of their own."""
    api, login = serve(accepts(1)), tokens()
    fields = {"audience": "https://api.test/", "grant_type": "account_credentials"}
    get(api.url, oauth2(login, sends=sends, fields=fields))
    body = login.asked[0].body.decode()
    sent = json.loads(body) if sends == "json" else dict(parse_qsl(body))
    assert {name: sent[name] for name in fields} == fields


@pytest.mark.parametrize("name", ["client_secret", "refresh_token", "password"])
def test_a_field_that_is_a_secret_is_refused_when_declared(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`fields` has {name}, which is a secret") as said:
        OAuth2("https://api.test/token", "client", "shop-secret", fields={name: "cAn4ry"})
    assert "cAn4ry" not in str(said.value)


def test_an_expired_token_is_renewed_and_the_request_repeated(
    serve: Serve, tokens: Tokens, slept: list[float]
) -> None:
    login = tokens()
    allowed = [1]
    api = serve(lambda asked: accepts(*allowed)(asked))
    with client(api.url, oauth2(login)) as opened:
        opened.get(api.url)
        allowed[0] = 2
        assert opened.get(f"{api.url}b").body == GOOD.body
        opened.get(f"{api.url}c")
    assert api.asked == ["/", "/b", "/b", "/c"]
    assert (len(login.asked), slept) == (2, [])


def test_a_new_token_that_is_refused_is_a_refused_login(serve: Serve, tokens: Tokens) -> None:
    api, login = serve(accepts()), tokens()
    with pytest.raises(RefusedLoginError, match="answered 401"):
        get(api.url, oauth2(login))
    assert (len(api.asked), len(login.asked)) == (2, 2)


REFUSALS: dict[str, Answer] = {
    "403, in the header": Answer(b"", 403, {"WWW-Authenticate": 'Bearer error="invalid_token"'}),
    "400, in the header": Answer(b"", 400, {"WWW-Authenticate": 'Bearer error="invalid_token"'}),
    "403, in the body": Answer(b'{"error": "invalid_token"}', 403),
    "400, in the body": Answer(b'{"error": {"code": "INVALID_TOKEN"}}', 400),
    "in words": Answer(b'{"message": "Error validating: the access token has expired."}', 400),
    "in AWS' words": Answer(b'{"__type": "ExpiredTokenException"}', 403),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_token_refused_without_a_401_is_renewed_once(
    serve: Serve, tokens: Tokens, slept: list[float], refusal: Answer
) -> None:
    login = tokens()
    said = [GOOD, refusal, GOOD]
    api = serve(lambda _: said.pop(0) if said else refusal)
    with client(api.url, oauth2(login)) as opened:
        opened.get(api.url)
        assert opened.get(f"{api.url}b").body == GOOD.body
        assert len(login.asked) == 2
        with pytest.raises(RefusedLoginError, match="Correct the credentials of source 'shop'"):
            opened.get(f"{api.url}c")
    assert api.asked == ["/", "/b", "/b", "/c", "/c"]
    shown = [asked.headers["Authorization"] for asked in api.asked]
    assert shown == [f"Bearer {TOKEN}{number}" for number in (1, 1, 2, 2, 3)]
    assert slept == []


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_fixed_token_refused_without_a_401_is_a_refused_login(
    serve: Serve, refusal: Answer
) -> None:
    api = serve(lambda _: refusal)
    with pytest.raises(RefusedLoginError, match="Correct the credentials of source 'shop'"):
        get(api.url, Bearer("shop-token"))
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b'{"error": "The page token has expired"}', 400),
        Answer(b'{"error": "Unexpected or invalid token at position 5"}', 400),
        Answer(b'{"error": "forbidden"}', 403, {"WWW-Authenticate": "Bearer"}),
        Answer(b'{"error": "invalid_token"}', 404),
    ],
    ids=["a page's token", "a token of a language", "no permission", "another status"],
)
def test_an_answer_about_something_else_renews_no_token(
    serve: Serve, tokens: Tokens, answer: Answer
) -> None:
    api, login = serve(lambda _: answer), tokens()
    with pytest.raises(ConfigurationError):
        get(api.url, oauth2(login))
    assert (len(api.asked), len(login.asked)) == (1, 1)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that tokens are timed by."""
    seconds = [5000.0]
    monkeypatch.setattr("flows.extract.credentials.monotonic", lambda: seconds[0])
    return seconds


def lasting(expires_in: Any) -> list[Answer]:
    """Tokens with this `expires_in`; None omits it."""
    said = {} if expires_in is None else {"expires_in": expires_in}
    return [
        Answer(json.dumps({"access_token": f"{TOKEN}{number}", **said}).encode())
        for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("expires_in", "margin"), [(3600, 60), (100, 10), ("100", 10), (99.5, 9.95), (1, 0.1)]
)
def test_a_token_is_renewed_a_little_before_it_expires(
    serve: Serve, tokens: Tokens, now: list[float], expires_in: Any, margin: float
) -> None:
    """So the API never sees an expired one, for which it might not send 401."""
    api, login = serve(lambda _: GOOD), tokens(*lasting(expires_in))
    seconds = float(expires_in)
    with client(api.url, oauth2(login)) as opened:
        for at in (0, seconds - margin - 0.01, seconds - margin, 2 * (seconds - margin) - 0.01):
            now[0] = 5000 + at
            opened.get(api.url)
    shown = [asked.headers["Authorization"][-1] for asked in api.asked]
    assert shown == ["1", "1", "2", "2"]


@pytest.mark.parametrize(
    "expires_in",
    [None, 0, -5, True, "", "soon", "nan", [], {}, float("inf"), float("nan"), 10**400],
    ids=str,
)
def test_a_token_that_names_no_end_is_renewed_when_it_is_refused(
    serve: Serve, tokens: Tokens, now: list[float], expires_in: Any
) -> None:
    login = tokens(*lasting(expires_in))
    allowed = [1]
    api = serve(lambda asked: accepts(*allowed)(asked))
    with client(api.url, oauth2(login)) as opened:
        opened.get(api.url)
        now[0] += 1e6
        opened.get(api.url)
        assert len(login.asked) == 1
        allowed[0] = 2
        opened.get(api.url)
    assert len(login.asked) == 2


def test_a_fixed_secret_that_is_refused_is_not_sent_again(serve: Serve) -> None:
    api = serve(accepts())
    with pytest.raises(RefusedLoginError, match="answered 401"):
        get(api.url, Bearer("shop-token"))
    assert len(api.asked) == 1


def test_a_post_is_repeated_with_a_new_token(serve: Serve, tokens: Tokens) -> None:
    """It was refused, so nothing was done."""
    api, login = serve(accepts(2)), tokens()
    with client(api.url, oauth2(login)) as opened:
        request = HttpRequest(api.url, "POST", body={"a": 1})
        assert opened.get(request, is_repeatable=False).body == GOOD.body
    assert [json.loads(asked.body) for asked in api.asked] == [{"a": 1}] * 2


@pytest.mark.parametrize(
    "failure",
    [Answer(b"oops", 500), Answer(b"slow down", 429), Answer(b"{", declared_length=99)],
    ids=["server error", "too many", "cut"],
)
def test_a_token_server_that_is_down_is_asked_again(
    serve: Serve, tokens: Tokens, slept: list[float], failure: Answer
) -> None:
    api, login = serve(accepts(2)), tokens(failure)
    assert get(api.url, oauth2(login)).body == GOOD.body
    assert (len(slept), len(api.asked), len(login.asked)) == (1, 1, 2)


def test_a_token_server_that_stays_down_is_unavailable(serve: Serve, tokens: Tokens) -> None:
    api = serve(accepts())
    login = tokens(*[Answer(b"down for repairs", 503, {"Retry-After": "40"})] * 9)
    with pytest.raises(UnavailableError) as failure:
        get(api.url, oauth2(login), max_wait_seconds=100)
    said = (
        f"no token from {login.url}token: it answered 503 Service Unavailable: 'down for repairs'"
    )
    assert said in str(failure.value)
    answer = failure.value.answer
    assert answer is not None
    assert (answer.url, answer.status, answer.start) == (
        f"{login.url}token",
        503,
        "down for repairs",
    )
    assert (answer.attempts, len(login.asked), api.asked) == (3, 3, [])


def test_a_post_waits_for_its_token(serve: Serve, tokens: Tokens) -> None:
    """The POST was not sent yet, so this is not a repetition."""
    api, login = serve(accepts(2)), tokens(Answer(status=503))
    with client(api.url, oauth2(login)) as opened:
        assert opened.get(HttpRequest(api.url, "POST"), is_repeatable=False).body == GOOD.body


@pytest.mark.parametrize(
    "said",
    [
        Answer(b'{"error": "invalid_client"}', 401),
        Answer(b'{"error": "invalid_scope"}', 400),
        Answer(b'{"token": "x"}'),
        Answer(b'{"access_token": ""}'),
        Answer(b'{"access_token": null}'),
        Answer(b'["access_token"]'),
        Answer(b"<html>"),
        Answer(b"", 302, {"Location": "/elsewhere"}),
        Answer(b"", 308, {"Location": "http://169.254.169.254/"}),
    ],
    ids=[
        "unknown client",
        "unknown scope",
        "another name",
        "empty",
        "null",
        "a list",
        "HTML",
        "redirect",
        "redirect that keeps the method",
    ],
)
def test_an_answer_without_a_token_is_a_refused_login(
    serve: Serve, tokens: Tokens, said: Answer
) -> None:
    """Even a redirect: the client's secret is not sent elsewhere."""
    api, login = serve(accepts()), tokens(said)
    with pytest.raises(RefusedLoginError) as failure:
        get(api.url, oauth2(login))
    assert "gave client 'shop client' no token: it answered" in str(failure.value)
    assert "Correct the client or its secret 'shop-client-secret'" in str(failure.value)
    assert 'the provider may want them in the body: sends="form"' in str(failure.value)
    assert failure.value.answer is not None
    assert failure.value.answer.status == said.status
    assert (len(login.asked), api.asked) == (1, [])


@pytest.mark.parametrize(
    ("token_url", "said"),
    [
        ("http://203.0.113.7/token", "in clear text"),
        ("http://169.254.169.254/token", "link-local"),
        ("https://me:pa55word@203.0.113.7/token", "has a user or a password in it"),
        ("file:///token", "not an HTTP address"),
        ("/token", "can't be requested"),
    ],
)
def test_a_token_is_not_asked_for_where_the_secret_would_be_seen(
    serve: Serve, token_url: str, said: str
) -> None:
    api = serve(accepts())
    with pytest.raises(ConfigurationError, match=said) as failure:
        get(api.url, OAuth2(token_url, "client", "shop-client-secret"))
    assert "pa55word" not in str(failure.value)
    assert api.asked == []


def test_a_token_answer_has_the_limits_of_any_other(serve: Serve, tokens: Tokens) -> None:
    api, login = serve(accepts()), tokens(Answer(b" " * 10_000))
    with pytest.raises(PayloadTooLargeError, match="more than 1,000 bytes"):
        get(api.url, oauth2(login), max_body_bytes=1000)


def test_a_token_with_a_line_break_is_refused(serve: Serve, tokens: Tokens) -> None:
    api, login = serve(accepts()), tokens(Answer(b'{"access_token": "a\\r\\nX-Admin: yes"}'))
    with pytest.raises(RefusedLoginError, match="contains a line break or a letter"):
        get(api.url, oauth2(login))
    assert api.asked == []


COOKIE = "s3ssion-"


class Sessions:
    """An API with a login that sets a cookie, and forgets its sessions on demand.

    Attributes:
        refusal: the answer to a request without a session.
        login: the answer to a login, made of a session's name.
    """

    def __init__(self, serve: Serve) -> None:
        self.refusal = Answer(status=401)
        self.login: Callable[[str], Answer] = lambda name: Answer(
            headers={"Set-Cookie": f"sid={name}; Path=/; HttpOnly"}
        )
        self.answer = GOOD
        self.known = ""
        self.count = 0
        self.server = serve(self._answer)
        self.url = self.server.url

    def _answer(self, asked: Asked) -> Answer:
        if asked == "/session":
            self.count += 1
            self.known = f"{COOKIE}{self.count}"
            return self.login(self.known)
        cookies = asked.headers.get("Cookie", "").split("; ")
        return self.answer if f"sid={self.known}" in cookies and self.known else self.refusal

    def declared(self, **changes: Any) -> SessionCookie:
        return SessionCookie(f"{self.url}session", "shop-password", posted, **changes)


def posted(password: str) -> dict[str, str]:
    return {"user": "me", "password": password}


@pytest.fixture
def sessions(serve: Serve) -> Sessions:
    return Sessions(serve)


@pytest.mark.parametrize("sends", ["form", "json"])
def test_a_session_is_begun_once_for_all_requests(sessions: Sessions, sends: Any) -> None:
    with client(sessions.url, sessions.declared(sends=sends), SECRET) as opened:
        for _ in range(2):
            assert opened.get(f"{sessions.url}a").body == GOOD.body
        with opened.sibling() as other:
            assert other.get(f"{sessions.url}b").body == GOOD.body
    login, *_ = sessions.server.asked
    assert [login, *_] == ["/session", "/a", "/a", "/b"]
    body = login.body.decode()
    assert (json.loads(body) if sends == "json" else dict(parse_qsl(body))) == posted(SECRET)


REFUSED_SESSIONS = {
    "401": Answer(status=401),
    "a redirect": Answer(b"", 302, {"Location": "/session?next=%2Fa"}),
}


@pytest.mark.parametrize("refusal", REFUSED_SESSIONS.values(), ids=REFUSED_SESSIONS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_session_that_ended_is_begun_again_once(
    sessions: Sessions, refusal: Answer, method: Any, slept: list[float]
) -> None:
    sessions.refusal = refusal
    request = HttpRequest(f"{sessions.url}a", method)
    with client(sessions.url, sessions.declared()) as opened:
        opened.get(request)
        sessions.known = ""
        assert opened.get(request, is_repeatable=False).body == GOOD.body
        assert sessions.server.asked == ["/session", "/a", "/a", "/session", "/a"]
        sessions.login = lambda _: Answer(headers={"Set-Cookie": "sid=another-one"})
        sessions.known = ""
        with pytest.raises(RefusedLoginError, match="Correct the credentials of source 'shop'"):
            opened.get(request)
    assert (sessions.count, slept) == (3, [])


def test_cookies_of_the_api_and_of_the_login_are_sent_together(sessions: Sessions) -> None:
    cookies = "Set-Cookie: sid={}\r\nSet-Cookie: lang=en"
    wire = f"HTTP/1.1 200 OK\r\n{cookies}\r\nContent-Length: 2\r\n\r\n[]"
    sessions.login = lambda name: Answer(wire=[wire.format(name).encode()])
    sessions.answer = Answer(headers={"Set-Cookie": "node=7; Path=/"})
    with client(sessions.url, sessions.declared()) as opened:
        opened.get(f"{sessions.url}a")
        opened.get(f"{sessions.url}b")
    assert sorted(sessions.server.asked[-1].headers["Cookie"].split("; ")) == [
        "lang=en",
        "node=7",
        f"sid={COOKIE}1",
    ]


@pytest.mark.parametrize(
    "said", [Answer(), Answer(status=403), Answer(status=401, headers={"Set-Cookie": "sid=anon"})]
)
def test_a_login_that_sets_no_cookie_is_a_refused_login(sessions: Sessions, said: Answer) -> None:
    sessions.login = lambda _: said
    with pytest.raises(RefusedLoginError, match="set no cookie: it answered") as failure:
        get(sessions.url, sessions.declared())
    assert "Correct the login's `fields` or its secret 'shop-password'" in str(failure.value)


def test_a_cookie_and_the_password_are_hidden(sessions: Sessions) -> None:
    sessions.answer = Answer(f"who is {COOKIE}1 with {PLAIN}? lang=en".encode(), 400)
    with pytest.raises(BadRequestError, match=r"who is \*\*\* with \*\*\*\? lang=en"):
        get(sessions.url, sessions.declared())


def test_a_login_page_elsewhere_is_not_sent_the_password(serve: Serve, sessions: Sessions) -> None:
    """Neither by a redirect of the login itself nor in clear text."""
    other = serve(lambda _: GOOD)
    sessions.login = lambda _: Answer(b"", 307, {"Location": other.url})
    with pytest.raises(RefusedLoginError, match="set no cookie"):
        get(sessions.url, sessions.declared())
    with pytest.raises(ConfigurationError, match="in clear text"):
        get(sessions.url, SessionCookie("http://203.0.113.7/session", "shop-password", posted))
    assert other.asked == []


def test_a_service_account_exchanges_what_its_function_signs(serve: Serve, tokens: Tokens) -> None:
    """A new one for each token, since it ends soon."""
    signed: list[str] = []

    def assertion(key: str) -> str:
        signed.append(f"jwt-{len(signed)}-{len(key)}")
        return signed[-1]

    login, allowed = tokens(), [1]
    api = serve(lambda asked: accepts(*allowed)(asked))
    account = ServiceAccount(f"{login.url}token", "shop-key", assertion, {"audience": "shop"})
    with client(api.url, account) as opened:
        opened.get(api.url)
        opened.get(api.url)
        allowed[0] = 2
        opened.get(api.url)
    assert [dict(parse_qsl(asked.body.decode())) for asked in login.asked] == [
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": f"jwt-{number}-{len(PLAIN)}",
            "audience": "shop",
        }
        for number in (0, 1)
    ]


def quoting(secret: str) -> Any:
    raise ValueError(f"no {secret}")


@pytest.mark.parametrize("kind", [ServiceAccount, SessionCookie])
def test_a_function_of_a_login_that_fails_is_named_and_shows_no_secret(
    serve: Serve, kind: Any
) -> None:
    api = serve(lambda _: GOOD)
    with pytest.raises(ConfigurationError, match=r"function failed in quoting.*no \*\*\*") as said:
        get(api.url, kind(f"{api.url}token", "shop-key", quoting))
    assert (said.value.__context__, api.asked) == (None, [])


def test_an_assertion_that_is_refused_is_a_refused_login(serve: Serve, tokens: Tokens) -> None:
    login = tokens(Answer(b'{"error": "invalid_grant"}', 400))
    account = ServiceAccount(f"{login.url}token", "shop-key", lambda _: "jwt")
    with pytest.raises(RefusedLoginError, match="Correct what `assertion` returns, or its secret"):
        get(login.url, account)


DERIVED = "0123456789abcdef" * 4
DERIVING: dict[str, Callable[[str], Any]] = {
    "assertion": lambda url: ServiceAccount(url, "shop-key", lambda _: DERIVED),
    "posted": lambda url: SessionCookie(url, "shop-key", lambda _: {"hash": DERIVED, "user": "a"}),
}


@pytest.mark.parametrize("login", DERIVING)
def test_what_a_function_makes_of_a_secret_is_hidden_if_it_is_repeated(
    serve: Serve, login: str
) -> None:
    api = serve(lambda asked: Answer(b"refused: " + asked.body, 400))
    with pytest.raises(RefusedLoginError) as said:
        get(api.url, DERIVING[login](f"{api.url}token"))
    assert DERIVED not in f"{said.value} {said.value.answer}"
    assert "***" in str(said.value)
