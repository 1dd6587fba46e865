"""Promises about addresses: which may be requested, and which may see the login."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flows.errors import ConfigurationError, EltError
from flows.extract import url_policy
from flows.extract.auth import ApiKey, Bearer
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.page import HttpRequest
from flows.source import Partition, Resource, Source, Window
from tests.extract.reading import rows
from tests.http_servers import Answer, Asked, Serve

BODY = b'[{"id": 1}]'
SECRET = "s3cret-k3y/+&"  # noqa: S105 (made up)
NAMES = {
    "api.test": ["203.0.113.7"],
    "api.test.": ["203.0.113.7"],
    "files.test": ["203.0.113.8"],
    "xn--bcher-kva.test": ["203.0.113.9"],
    "local.test": ["127.0.0.2", "::1"],
    "both.test": ["127.0.0.1", "203.0.113.7"],
    "metadata.test": ["169.254.169.254"],
    "half.metadata.test": ["203.0.113.7", "fe80::1%eth0"],
    "wrapped.metadata.test": ["::ffff:169.254.169.254"],
}


pytestmark = pytest.mark.usefixtures("slept")


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names are looked up in NAMES, or are addresses; returns those that were, in order."""
    real, asked = socket.getaddrinfo, []

    def look_up(host: str, port: Any, *args: Any, **options: Any) -> list[Any]:
        asked.append(host)
        if host.endswith(("test", "test.")):
            if host not in NAMES:
                raise socket.gaierror(-2, "Name or service not known")
            return [(0, 0, 0, "", (address, 0)) for address in NAMES[host]]
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url_policy._resolved.cache_clear()
    yield asked
    url_policy._resolved.cache_clear()


def source(base_url: str, has_login: bool = False, hosts: tuple[str, ...] = ()) -> Source:
    return Source("shop", base_url, (), login=Bearer("token") if has_login else None, hosts=hosts)


@pytest.mark.parametrize(
    ("base_url", "url", "hosts"),
    [
        ("https://api.test/v1", "https://api.test/v2?x=1#y", ()),
        ("https://api.test", "HTTPS://API.Test:443/", ()),
        ("https://API.TEST", "https://api.test", ()),
        ("https://api.test", "https://api.test./", ()),
        ("http://api.test", "https://api.test/", ()),
        ("https://api.test:8443", "https://api.test:8443/", ()),
        ("https://bücher.test", "https://xn--bcher-kva.test/", ()),
        ("https://xn--bcher-kva.test", "https://BÜCHER.test/", ()),
        ("https://api.test", "https://files.test/", ("files.test",)),
        ("https://api.test", "https://files.test:9000/", ("files.test",)),
        ("https://api.test", "https://files.test:9000/", ("files.test:9000",)),
        ("https://api.test", "https://files.test/", ("other.test", "Files.TEST")),
        ("https://api.test", "https://xn--bcher-kva.test/", ("bücher.test",)),
        ("https://203.0.113.7", "https://203.0.113.7/", ()),
        ("https://[2001:db8::7]:8443", "https://[2001:DB8::7]:8443/", ()),
        ("https://unknown.test", "https://unknown.test/", ()),
    ],
    ids=[
        "its own host",
        "in capitals, with its port",
        "declared in capitals",
        "with a dot at its end",
        "from http to https",
        "a port of its own",
        "declared by its letters",
        "asked by its letters",
        "a host that is allowed",
        "any port of it",
        "the port that is allowed",
        "allowed in capitals",
        "allowed by its letters",
        "an address",
        "an IPv6 address",
        "a name that can't be resolved: the request will say so",
    ],
)
@pytest.mark.usefixtures("resolved")
def test_these_may_be_asked(base_url: str, url: str, hosts: tuple[str, ...]) -> None:
    url_policy.check(url, source(base_url, has_login=url.lower().startswith("https"), hosts=hosts))


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://files.test/", ()),
        ("https://api.test:8443/", ()),
        ("https://api.test.evil.test/", ()),
        ("https://evil.test/?https://api.test/", ()),
        ("https://evil.test/#@api.test/", ()),
        ("https://evilapi.test/", ("api.test",)),
        ("https://files.test:9001/", ("files.test:9000",)),
        ("https://files.test/", ("files.test:9000",)),
        ("https://203.0.113.7/", ()),
        ("//evil.test/", ()),
    ],
)
@pytest.mark.usefixtures("resolved")
def test_other_hosts_are_refused(url: str, hosts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"`hosts`|not an HTTP address"):
        url_policy.check(url, source("https://api.test", hosts=hosts))


def test_a_refused_host_is_named_as_it_has_to_be_allowed() -> None:
    with pytest.raises(ConfigurationError) as failure:
        url_policy.check("https://files.test/x", source("https://api.test"))
    assert "https://files.test/x is not on the host of source 'shop'" in str(failure.value)
    assert "add 'files.test' to the source's `hosts`" in str(failure.value)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://api.test/",
        "htp://api.test/",
        "api.test/orders",
        "/orders",
        "",
        "http://",
        "http://:80/",
        "http://api.test:0/",
        "http://api.test:99999/",
        "http://api.test:port/",
        "http://api..invalid/",
        f"http://{'a' * 64}.invalid/",
        "http://api .test/",
        "http://[::1/",
        "javascript:alert(1)",
    ],
)
@pytest.mark.usefixtures("resolved")
def test_what_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="it is not an HTTP address"):
        url_policy.check(url, source(url))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://[fe80::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://metadata.test/",
        "http://half.metadata.test/",
        "http://wrapped.metadata.test/",
    ],
    ids=[
        "cloud metadata",
        "as one number",
        "as a hexadecimal one",
        "IPv6",
        "IPv4 in IPv6",
        "a name of it",
        "a name of it and of another",
        "a name of IPv4 in IPv6",
    ],
)
@pytest.mark.usefixtures("resolved")
def test_link_local_addresses_are_refused_even_to_their_own_source(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is a link-local address"):
        url_policy.check(url, source(url, hosts=("169.254.169.254",)))


@pytest.mark.parametrize(
    "url",
    ["http://api.test/", "http://both.test/", "http://unknown.test/", "http://0.0.0.0/"],
    ids=["a host", "one that is also here", "one that can't be resolved", "any address"],
)
@pytest.mark.usefixtures("resolved")
def test_a_login_is_not_sent_in_clear_text(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"in clear text\. Use https"):
        url_policy.check(url, source(url, has_login=True))
    url_policy.check(url, source(url))


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000/", "http://[::1]:8000/", "http://local.test/", "http://localhost/"],
)
@pytest.mark.usefixtures("resolved")
def test_a_login_may_be_sent_in_clear_text_to_this_machine(url: str) -> None:
    url_policy.check(url, source(url, has_login=True))


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pa55word@api.test/",
        "https://pa55word@api.test/",
        "https://user:pa55word@api.test@api.test/",
    ],
)
@pytest.mark.usefixtures("resolved")
def test_a_password_in_an_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as failure, Client(source(url)) as client:
        client.get(url)
    assert "has a user or a password in it" in str(failure.value)
    assert "pa55word" not in f"{failure.value} {failure.value.answer}"


def test_a_password_in_an_address_that_is_none_is_not_shown() -> None:
    url = "https://user:pa55word@api.test:99999/"
    with pytest.raises(ConfigurationError) as failure, Client(source(url)) as client:
        client.get(url)
    assert "pa55word" not in f"{failure.value} {failure.value.answer}"


def test_a_name_that_could_not_be_resolved_is_looked_up_again(resolved: list[str]) -> None:
    for _ in range(2):
        url_policy.check("http://unknown.test/", source("http://unknown.test/"))
        url_policy.check("http://api.test/", source("http://api.test/"))
    assert resolved == ["unknown.test", "api.test", "unknown.test"]


Logins = {
    "header": (ApiKey("shop-key", header="X-Key"), lambda asked: asked.headers["X-Key"]),
    "bearer": (Bearer("shop-key"), lambda asked: asked.headers["Authorization"]),
    "param": (ApiKey("shop-key", param="key"), lambda asked: str(asked)),
}
every_login = pytest.mark.parametrize(("login", "shown"), Logins.values(), ids=Logins)


def get(url: str, login: Any = None, hosts: tuple[str, ...] = (), **request: Any) -> Any:
    shop = Source("shop", url, (), login=login, hosts=hosts, max_wait_seconds=0)
    with Client(shop, lambda _: SECRET) as client:
        return client.get(HttpRequest(url, **request))


def redirect(to: str | Callable[[Asked], str], status: int = 302) -> Callable[[Asked], Answer]:
    """Redirects everything except paths that end in `/there`."""

    def answer(asked: Asked) -> Answer:
        if asked.split("?")[0].endswith("/there"):
            return Answer(BODY)
        location = to if isinstance(to, str) else to(asked)
        return Answer(b"", status, {"Location": location})

    return answer


@every_login
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_same_host_is_followed_with_the_login(
    serve: Serve, login: Any, shown: Callable[[Asked], str], status: int
) -> None:
    server = serve(redirect("/there?a=1", status))
    assert get(server.url, login).body == BODY
    assert [asked.split("?")[0] for asked in server.asked] == ["/", "/there"]
    signed = [shown(asked) for asked in server.asked]
    assert all("s3cret" in text for text in signed)
    assert all(text.count("s3cret") == 1 for text in signed)


@every_login
def test_a_redirect_to_another_host_is_refused_and_sees_nothing(
    serve: Serve, login: Any, shown: Callable[[Asked], str]
) -> None:
    other = serve(lambda _: Answer(BODY))
    server = serve(redirect(f"{other.url}there"))
    with pytest.raises(ConfigurationError, match=r"may not lead there.*`hosts`"):
        get(server.url, login)
    assert other.asked == []


@every_login
def test_a_redirect_to_a_host_that_is_allowed_is_followed_with_the_login(
    serve: Serve, login: Any, shown: Callable[[Asked], str]
) -> None:
    other = serve(lambda _: Answer(BODY))
    server = serve(redirect(f"{other.url}there"))
    allowed = other.url.removeprefix("http://").strip("/")
    assert get(server.url, login, (allowed,)).body == BODY
    assert "s3cret" in shown(other.asked[0])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("file:///etc/passwd", "not an HTTP address"),
        ("http://169.254.169.254/", "may not lead there"),
        ("http://user:pa55word@127.0.0.1:1/", "may not lead there"),
        ("//evil.test/", "may not lead there"),
        ("http://[", "not an HTTP address"),
    ],
)
def test_a_redirect_to_nowhere_good_is_refused(serve: Serve, target: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as failure:
        get(serve(redirect(target)).url)
    assert "pa55word" not in str(failure.value)


def test_a_redirect_to_a_link_local_address_is_refused_though_its_host_is_allowed(
    serve: Serve,
) -> None:
    with pytest.raises(ConfigurationError, match="link-local"):
        get(serve(redirect("http://169.254.169.254/")).url, hosts=("169.254.169.254",))


@pytest.mark.parametrize("to", ["/", lambda asked: f"{asked}b"], ids=["in a circle", "for ever"])
def test_redirects_without_an_end_are_a_configuration_error(serve: Serve, to: Any) -> None:
    server = serve(redirect(to))
    with pytest.raises(ConfigurationError, match="is redirected more than 10 times"):
        get(server.url)
    assert len(server.asked) == 11


@pytest.mark.parametrize("status", [307, 308])
def test_a_post_is_redirected_as_it_is(serve: Serve, status: int) -> None:
    server = serve(redirect("/there", status))
    assert get(server.url, method="POST", body={"a": 1}).body == BODY
    assert [(asked.method, asked.body) for asked in server.asked] == [("POST", b'{"a": 1}')] * 2


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_post_is_not_made_a_get(serve: Serve, status: int) -> None:
    server = serve(redirect("/there", status))
    with pytest.raises(ConfigurationError, match=rf"POST with a redirect \({status}\)"):
        get(server.url, method="POST", body={"a": 1})
    assert server.asked == ["/"]


def test_a_redirect_may_have_letters_beyond_ascii_in_it(serve: Serve) -> None:
    server = serve(redirect("/ü/there".encode().decode("latin-1")))
    assert get(server.url).body == BODY
    assert server.asked[1] == "/%C3%BC/there"


def test_the_body_of_a_redirect_is_read_within_the_limits(serve: Serve) -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(b"x" * 10_000, 302, {"Location": "/there"})

    shop = Source("shop", serve(answer).url, (), max_body_bytes=1000)
    with pytest.raises(EltError, match="more than 1,000 bytes"), Client(shop) as client:
        client.get(shop.base_url)


@every_login
@pytest.mark.parametrize("is_allowed", [False, True], ids=["refused", "allowed"])
def test_a_next_link_to_another_host_is_followed_only_if_it_is_allowed(
    serve: Serve, login: Any, shown: Callable[[Asked], str], is_allowed: bool
) -> None:
    other = serve(lambda _: Answer(b'{"items": [2]}'))
    server = serve(lambda _: Answer(f'{{"items": [1], "next": "{other.url}b"}}'.encode()))
    orders = Resource("orders", "orders", records_at("items"), paging=next_url("next"))
    hosts = (other.url.removeprefix("http://").strip("/"),) if is_allowed else ()
    shop = Source("shop", server.url, (orders,), login=login, hosts=hosts)
    with Client(shop, lambda _: SECRET) as client:
        pages = read_pages(client, shop, orders, Partition(), Window())
        if is_allowed:
            assert rows(list(pages)) == [1, 2]
            assert "s3cret" in shown(other.asked[0])
            return
        with pytest.raises(ConfigurationError, match="`hosts`"):
            next(pages)
    assert other.asked == []


@pytest.mark.parametrize("link", ["http://other.invalid/b", "file:///etc/passwd", "http://["])
def test_a_page_with_a_refused_link_is_not_a_resume_point(serve: Serve, link: str) -> None:
    """Otherwise the next load would start with that address and fail as well."""
    body = f'{{"items": [1], "next": "{link}"}}'.encode()
    server = serve(
        lambda asked: Answer(body if asked == "/b" else body.replace(link.encode(), b"b"))
    )
    orders = Resource("orders", "orders", records_at("items"), paging=next_url("next"))
    shop = Source("shop", server.url, (orders,))
    with Client(shop) as client:
        pages = read_pages(client, shop, orders, Partition(), Window())
        assert next(pages).resume is not None
        with pytest.raises(ConfigurationError):
            next(pages)
    assert server.asked == ["/orders", "/b"]
