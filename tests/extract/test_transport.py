"""Promises of a connection: a response is complete, in time, and no larger than allowed."""

import gzip
import socket
import ssl
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from flows.errors import (
    BadPayloadError,
    ConfigurationError,
    NotFoundError,
    PayloadTooLargeError,
    UnavailableError,
)
from flows.extract.client import Client
from flows.extract.deadline import _Incoming, deadline
from flows.page import Page
from flows.source import Source
from tests import certificates
from tests.http_servers import Answer, Asked, Serve

BODY = b'[{"id": 1}]'
JSON = "Content-Type: application/json\r\n"
MIB = 1 << 20


pytestmark = pytest.mark.usefixtures("slept")


def get(url: str, **changes: Any) -> Page:
    with Client(Source("shop", url, (), **changes)) as client:
        return client.get(url)


def wire(*parts: str | bytes) -> Answer:
    """A response byte for byte."""
    return Answer(wire=[part.encode() if isinstance(part, str) else part for part in parts])


def one_after_the_other(*said: Answer) -> Callable[[Asked], Answer]:
    left = [*said]
    return lambda _: left.pop(0)


@pytest.fixture
def slowly() -> Iterator[Callable[[bytes], Iterator[bytes]]]:
    """Send a byte every 20 ms, again and again, until the test ends."""
    is_over = threading.Event()

    def drip(piece: bytes) -> Iterator[bytes]:
        while not is_over.wait(0.02):
            yield piece

    yield drip
    is_over.set()


DRIPS: dict[str, tuple[str, bytes]] = {
    "status line": ("", b"H"),
    "headers": ("HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "one header after another": ("HTTP/1.1 200 OK\r\n", b"X-Again: yes\r\n"),
    "interim answers": ("", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (f"HTTP/1.1 200 OK\r\n{JSON}Content-Length: 9999\r\n\r\n[", b" "),
    "chunks": (f"HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a chunk's size": (
        f"HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n1;",
        b"x",
    ),
    "a body without an end": (f"HTTP/1.1 200 OK\r\n{JSON}Connection: close\r\n\r\n", b" "),
    "an error": ("HTTP/1.1 500 Oops\r\nContent-Length: 9999\r\n\r\n", b"x"),
    "a redirect": ("HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 9999\r\n\r\n", b"x"),
}


@pytest.mark.parametrize(("start", "drop"), DRIPS.values(), ids=DRIPS)
def test_an_answer_that_drips_is_given_up_in_time(
    serve: Serve, slowly: Callable[[bytes], Iterator[bytes]], start: str, drop: bytes
) -> None:
    """Whichever part of it drips; no two bytes are as far apart as the read timeout."""

    def say() -> Iterator[bytes]:
        yield start.encode()
        yield from slowly(drop)

    server = serve(lambda _: Answer(wire=say()))
    began_at = monotonic()
    with pytest.raises(UnavailableError, match=r"no response in time \(\w*Time\w*\)"):
        get(server.url, answer_timeout_seconds=0.2, max_wait_seconds=0)
    assert 0.2 <= monotonic() - began_at < 5


def test_a_silent_server_is_given_up_after_the_read_timeout(
    serve: Serve, slowly: Callable[[bytes], Iterator[bytes]]
) -> None:
    server = serve(lambda _: Answer(wire=slowly(b"")))
    with pytest.raises(UnavailableError, match=r"no response in time \(ReadTimeout\)"):
        get(server.url, read_timeout_seconds=0.05, max_wait_seconds=0)


def test_redirects_share_the_time_of_one_answer(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them takes half of it."""
    clock = [0.0]
    monkeypatch.setattr("flows.extract.client.monotonic", lambda: clock[0])
    monkeypatch.setattr("flows.extract.deadline.monotonic", lambda: clock[0])

    def answer(path: Asked) -> Answer:
        clock[0] += 5
        return Answer(status=302, headers={"Location": f"{path}b"})

    server = serve(answer)
    with pytest.raises(UnavailableError, match="no response in time"):
        get(server.url, answer_timeout_seconds=9, max_wait_seconds=0)
    assert server.asked == ["/", "/b"]


def test_the_time_that_was_left_is_not_the_next_requests_timeout() -> None:
    """A connection stays open; the next request on it gets the full time."""
    ours, theirs = socket.socketpair()
    with ours, theirs, deadline(within_seconds=0.1):
        ours.settimeout(60)
        incoming = _Incoming(ours)
        theirs.send(b"x")
        assert incoming.read(1) == b"x"
        assert ours.gettimeout() == 60
        with pytest.raises(TimeoutError):
            incoming.read(1)
        assert ours.gettimeout() == 60
        incoming.close()


CHUNKED = f"HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n"
PACKED = gzip.compress(BODY * 50)
CUT_OR_BROKEN: dict[str, Answer] = {
    "before its status": wire("HTTP/1."),
    "within its headers": wire("HTTP/1.1 200 OK\r\nContent-Le"),
    "after one of its headers": wire("HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n"),
    "by a header that is none": wire("HTTP/1.1 200 OK\r\nno header\r\nX-Next: 2\r\n\r\n[]"),
    "without a word": wire(),
    "within its length": wire(f"HTTP/1.1 200 OK\r\n{JSON}Content-Length: 99\r\n\r\n", BODY),
    "before a chunk": wire(CHUNKED, "b\r\n", BODY, "\r\n"),
    "within a chunk": wire(CHUNKED, "ff\r\n", BODY),
    "within a chunk's size": wire(CHUNKED, "b\r\n", BODY, "\r\nf"),
    "within a gzip of some length": wire(
        f"HTTP/1.1 200 OK\r\n{JSON}Content-Encoding: gzip\r\nContent-Length: {len(PACKED)}\r\n\r\n",
        PACKED[:-20],
    ),
    "within a gzip of any length": wire(
        f"HTTP/1.1 200 OK\r\n{JSON}Content-Encoding: gzip\r\nConnection: close\r\n\r\n",
        PACKED[:-20],
    ),
    "within a gzip's last bytes": wire(
        f"HTTP/1.1 200 OK\r\n{JSON}Content-Encoding: gzip\r\nConnection: close\r\n\r\n",
        PACKED[:-3],
    ),
    "within a gzip file": Answer(PACKED[:-20], headers={"Content-Type": "application/gzip"}),
    "within a deflate": Answer(
        zlib.compress(BODY * 50)[:-9], headers={"Content-Encoding": "deflate"}
    ),
    "no HTTP": wire("SSH-2.0-OpenSSH_9.6\r\n"),
    "a size that is none": wire(CHUNKED, "many\r\n", BODY),
}


@pytest.mark.parametrize("cut", CUT_OR_BROKEN.values(), ids=CUT_OR_BROKEN)
def test_an_answer_that_is_cut_or_broken_is_asked_for_again(serve: Serve, cut: Answer) -> None:
    """Wherever that is: half a body, or none, is never taken for a whole one."""
    good = Answer(BODY)
    server = serve(one_after_the_other(cut, good))
    assert get(server.url).body == BODY
    assert len(server.asked) == 2


BROKEN: dict[str, tuple[str, bytes]] = {
    "text that is called gzip": ("gzip", BODY),
    "a gzip with a wrong sum": ("gzip", PACKED[:-8] + bytes(8)),
    "a gzip and then text": ("gzip", PACKED + BODY),
    "what is no deflate": ("deflate", b"\x07" + BODY),
    "deflate with a wrong sum": ("deflate", zlib.compress(BODY)[:-4] + bytes(4)),
    "what we did not ask for": ("br", BODY),
}


@pytest.mark.parametrize(("coding", "body"), BROKEN.values(), ids=BROKEN)
def test_a_body_that_cannot_be_unpacked_is_an_error(serve: Serve, coding: str, body: bytes) -> None:
    server = serve(lambda _: Answer(body, headers={"Content-Encoding": coding}))
    with pytest.raises(BadPayloadError, match="the body can't be unpacked") as failure:
        get(server.url)
    assert failure.value.answer is not None
    assert failure.value.answer.status == 200
    assert len(server.asked) == 1


def test_an_error_counts_though_its_body_cannot_be_unpacked(serve: Serve) -> None:
    gone = Answer(b"gone for good", status=404, headers={"Content-Encoding": "gzip"})
    with pytest.raises(NotFoundError, match="gone for good"):
        get(serve(lambda _: gone).url)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY[:4]) + gzip.compress(BODY[4:])),
        ("gzip", gzip.compress(BODY) + bytes(512)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", zlib.compress(BODY)[2:-4]),
        ("gzip, identity, deflate", zlib.compress(gzip.compress(BODY))),
        ("identity", BODY),
        ("", gzip.compress(BODY)),
        ("", gzip.compress(BODY[:4]) + gzip.compress(b"") + gzip.compress(BODY[4:])),
    ],
    ids=[
        "gzip",
        "its old name",
        "in several members",
        "filled up with zeros",
        "deflate, though we don't ask for it",
        "deflate without its header",
        "in several ways",
        "not at all",
        "as a file",
        "as a file of several members",
    ],
)
def test_a_body_is_unpacked_however_it_was_packed(serve: Serve, coding: str, body: bytes) -> None:
    server = serve(lambda _: Answer(body, headers={"Content-Encoding": coding}))
    assert get(server.url).body == BODY
    assert server.asked[0].headers["Accept-Encoding"] == "gzip"


def test_a_body_may_be_as_large_as_is_allowed(serve: Serve) -> None:
    body = b"x" * 1000
    for said in (Answer(body), Answer(gzip.compress(body))):
        assert get(serve(one_after_the_other(said)).url, max_body_bytes=1000).body == body
    with pytest.raises(PayloadTooLargeError, match="more than 999 bytes"):
        get(serve(one_after_the_other(Answer(body))).url, max_body_bytes=999)


def bomb(pack: Callable[[bytes], bytes]) -> bytes:
    return pack(bytes(100 * MIB))


BOMBS: dict[str, tuple[dict[str, str], Callable[[], bytes]]] = {
    "gzip": ({"Content-Encoding": "gzip"}, lambda: bomb(gzip.compress)),
    "deflate": ({"Content-Encoding": "deflate"}, lambda: bomb(zlib.compress)),
    "gzip file": ({}, lambda: bomb(gzip.compress)),
    "gzip file of many members": ({}, lambda: gzip.compress(bytes(MIB // 2)) * 200),
    "gzip in a gzip": (
        {"Content-Encoding": "gzip"},
        lambda: gzip.compress(bomb(gzip.compress)),
    ),
}


@pytest.mark.parametrize(("headers", "packed"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_does_not_fill_the_memory(
    serve: Serve, headers: dict[str, str], packed: Callable[[], bytes]
) -> None:
    body = packed()
    assert len(body) < MIB
    server = serve(lambda _: Answer(body, headers=headers))
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLargeError, match=r"1,048,576 bytes.*max_body_bytes"):
            get(server.url, max_body_bytes=MIB)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_a_body_that_never_ends_is_given_up_at_its_limit(serve: Serve) -> None:
    def say() -> Iterator[bytes]:
        yield f"HTTP/1.1 200 OK\r\n{JSON}Connection: close\r\n\r\n".encode()
        while True:
            yield b" " * 65536

    server = serve(lambda _: Answer(wire=say()))
    with pytest.raises(PayloadTooLargeError) as failure:
        get(server.url, max_body_bytes=MIB)
    assert failure.value.answer is not None
    assert (failure.value.answer.status, failure.value.answer.attempts) == (200, 1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, and its key."""
    path = tmp_path_factory.mktemp("tls") / "shop.pem"
    path.write_bytes(certificates.self_signed("shop"))
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_a_trusted_server_is_read_and_bounded_in_time_over_tls(
    serve: Serve,
    tls: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    slowly: Callable[[bytes], Iterator[bytes]],
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    said = [Answer(BODY), Answer(wire=slowly(b"H"))]
    server = serve(one_after_the_other(*said), tls=tls)
    assert get(server.url).body == BODY
    with pytest.raises(UnavailableError, match="no response in time"):
        get(server.url, answer_timeout_seconds=0.2, max_wait_seconds=0)


def test_an_untrusted_certificate_is_a_configuration_error(
    serve: Serve, tls: ssl.SSLContext, slept: list[float]
) -> None:
    """Waiting does not mend it."""
    server = serve(lambda _: Answer(BODY), tls=tls)
    with pytest.raises(ConfigurationError, match=r"not trusted: .*self-signed certificate"):
        get(server.url)
    assert slept == []


def test_a_missing_bundle_of_certificates_is_a_configuration_error(
    serve: Serve, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")
    with pytest.raises(ConfigurationError, match=r"/no/such/bundle\.pem"):
        get(serve(lambda _: Answer(BODY), tls=tls).url)


def test_a_proxy_that_the_environment_names_is_asked(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(lambda _: Answer(BODY))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    assert get("http://api.invalid/orders").body == BODY
    assert proxy.asked == ["http://api.invalid/orders"]


def test_a_login_that_the_environment_keeps_for_the_host_is_not_sent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A .netrc is for the person who wrote it."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server = serve(lambda _: Answer(BODY))
    get(server.url)
    assert "Authorization" not in server.asked[0].headers
