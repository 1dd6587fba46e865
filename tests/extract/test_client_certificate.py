"""Promises of client certificates: shown to the API, on every connection, and refused by name."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from flows.errors import RefusedLoginError, UnavailableError
from flows.extract.auth import Bearer, ClientCertificate, OAuth2
from flows.extract.client import Client
from flows.source import Source
from tests import certificates
from tests.http_servers import Answer, Serve, Server

GOOD = Answer(b'[{"id": 1}]')

pytestmark = pytest.mark.usefixtures("slept")


@pytest.fixture(scope="module")
def known() -> str:
    """The certificate of the client that the API knows."""
    return certificates.self_signed("known client").decode()


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The certificate of the API, which its clients trust."""
    path = tmp_path / "api.pem"
    path.write_bytes(certificates.self_signed("shop"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    return path


@pytest.fixture
def start(serve: Serve, known: str, own: Path) -> Callable[[ssl.TLSVersion], Server]:
    """Start an API with TLS that lets in only the known client, and gives it tokens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=known[known.index("-----BEGIN CERT") :])
    answers = {"/token": Answer(b'{"access_token": "t0ken-1234"}')}

    def with_version(version: ssl.TLSVersion) -> Server:
        context.minimum_version = context.maximum_version = version
        return serve(lambda asked: answers.get(asked, GOOD), tls=context)

    return with_version


@pytest.fixture
def api(start: Callable[[ssl.TLSVersion], Server]) -> Server:
    return start(ssl.TLSVersion.TLSv1_2)


def client(api: Server, login: Any, **secrets: str) -> Client:
    return Client(
        Source("shop", api.url, (), login=login),
        lambda name: secrets[name.removeprefix("shop-")],
    )


def test_every_connection_shows_the_certificate(api: Server, known: str) -> None:
    """Beside another login, if there is one."""
    both = (Bearer("shop-token"), ClientCertificate("shop-certificate"))
    with client(api, both, certificate=known, token="t0ken") as opened:
        assert opened.get(api.url).body == GOOD.body
        with opened.sibling() as other:
            assert other.get(api.url).body == GOOD.body
    assert [asked.headers["Authorization"] for asked in api.asked] == ["Bearer t0ken"] * 2


def test_a_token_is_asked_for_with_the_certificate(api: Server, known: str) -> None:
    """As RFC 8705 has it."""
    oauth2 = OAuth2(f"{api.url}token", "me", "shop-client")
    both = (oauth2, ClientCertificate("shop-certificate"))
    with client(api, both, certificate=known, client="s3cret") as opened:
        assert opened.get(api.url).body == GOOD.body
    assert api.asked == ["/token", "/"]


def test_a_certificate_that_the_api_does_not_know_is_a_refused_login(api: Server) -> None:
    other = certificates.self_signed("another client").decode()
    with (
        client(api, ClientCertificate("shop-certificate"), certificate=other) as opened,
        pytest.raises(RefusedLoginError, match="refuses the client's certificate"),
    ):
        opened.get(api.url)
    assert api.asked == []


@pytest.mark.parametrize("known_client", [True, False])
def test_with_tls_1_3_a_refusal_that_looks_like_a_lost_connection_names_the_certificate(
    start: Callable[[ssl.TLSVersion], Server], known: str, known_client: bool
) -> None:
    """The client may be cut off before it hears why: by an error of either kind."""
    api = start(ssl.TLSVersion.TLSv1_3)
    shown = known if known_client else certificates.self_signed("another client").decode()
    with client(api, ClientCertificate("shop-certificate"), certificate=shown) as opened:
        if known_client:
            assert opened.get(api.url).body == GOOD.body
            return
        with pytest.raises((RefusedLoginError, UnavailableError)) as said:
            opened.get(api.url)
    assert "refuse" in str(said.value)
    assert "ClientCertificate names the secret" in str(said.value)
    assert api.asked == []


@pytest.mark.parametrize("shows_one", [True, False])
def test_a_lost_connection_names_the_certificate_that_was_shown(
    serve: Serve, known: str, own: Path, shows_one: bool
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    server = serve(lambda _: Answer(wire=[]), tls=context)
    login = ClientCertificate("shop-certificate") if shows_one else None
    source = Source("shop", server.url, (), login, max_wait_seconds=0)
    with (
        Client(source, lambda _: known) as opened,
        pytest.raises(UnavailableError, match="the connection failed") as said,
    ):
        opened.get(server.url)
    assert ("ClientCertificate names the secret" in str(said.value)) == shows_one


def broken(known: str) -> list[str]:
    half = known.index("-----BEGIN CERT")
    return ["cAn4ry", known[:half], known[half:], known.replace("A", "B"), known + "\ud800"]


@pytest.mark.parametrize("number", range(5))
def test_a_secret_that_holds_no_certificate_is_named_and_not_shown(
    api: Server, known: str, number: int
) -> None:
    secret = broken(known)[number]
    with (
        client(api, ClientCertificate("shop-certificate"), certificate=secret) as opened,
        pytest.raises(RefusedLoginError, match="'shop-certificate' is not a certificate") as said,
    ):
        opened.get(api.url)
    assert (said.value.__cause__, said.value.__context__) == (None, None)
    assert api.asked == []


def test_a_key_with_a_password_is_refused_without_asking_for_it(api: Server, known: str) -> None:
    half = known.index("-----BEGIN CERT")
    key = serialization.load_pem_private_key(known[:half].encode(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pa55word"),
    ).decode()
    secret = locked + known[half:]
    with (
        client(api, ClientCertificate("shop-certificate"), certificate=secret) as opened,
        pytest.raises(RefusedLoginError, match="without a password"),
    ):
        opened.get(api.url)
