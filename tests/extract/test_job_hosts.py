"""Promises of a job's downloads from other hosts: who gets the login, what shows the signature."""

from dataclasses import replace

import pytest

from commands import preview
from flows.errors import (
    BadPayloadError,
    BadRequestError,
    ConfigurationError,
    EltError,
    JobFailedError,
    UnavailableError,
)
from flows.extract.auth import ApiKey, Bearer
from flows.extract.selectors import records_at
from flows.redaction import redact_record, shows_secret
from flows.source import Job, Partition, Resource, Source
from tests.extract.reading import read, rows
from tests.extract.test_jobs import ROWS, STATES, api, exports, said
from tests.http_servers import Answer, Asked, Serve, Server

pytestmark = pytest.mark.usefixtures("slept")

SIGNATURE = "sIgNaTuRe-0123456789"


@pytest.mark.parametrize("way", ["a link", "a redirect"])
def test_a_host_of_downloads_gets_neither_the_login_nor_the_headers(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cr3t-t0ken")
    storage = serve(lambda _: said({"items": ROWS}))
    link = f"{storage.url}orders?signature={SIGNATURE}"

    def answer(asked: Asked) -> Answer:
        if asked == "/file":
            return said({}, 302, Location=link)
        if asked.method == "POST":
            return said({"id": 7}, 202)
        return said({"state": "done", "url": link if way == "a link" else "/file"})

    host = storage.url.removeprefix("http://").rstrip("/")
    job = replace(STATES, download="{url}", hosts=(host,))
    shop, resource = serve(answer), exports(job, headers={"X-Own": "own"})
    source = Source("shop", shop.url, (resource,), Bearer("shop-token"))
    assert rows(read(shop.url, resource, source=source)) == ROWS
    assert {asked.headers["Authorization"] for asked in shop.asked} == {"Bearer s3cr3t-t0ken"}
    [downloaded] = storage.asked
    assert downloaded.headers["Authorization"] is downloaded.headers["X-Own"] is None
    assert downloaded.headers["Cookie"] is None


def test_an_address_with_a_signature_is_shown_nowhere(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    storage = serve(lambda _: Answer(b"busy", 500))
    link = f"{storage.url}orders?signature={SIGNATURE}"
    shop = api(serve, iter([said({"state": "done", "url": link})]))
    host = storage.url.removeprefix("http://").rstrip("/")
    resource = exports(replace(STATES, download="{url}", hosts=(host,)))
    with pytest.raises(UnavailableError) as failure:
        read(shop.url, resource)
    shown = [caplog.handler.format(record) for record in caplog.records]
    assert storage.asked
    assert SIGNATURE not in "\n".join([*shown, str(failure.value), str(failure.value.answer)])


@pytest.mark.parametrize("link", ["http://localhost:1/x", "http://169.254.169.254/", "file:///x"])
def test_a_download_from_any_other_host_is_refused(serve: Serve, link: str) -> None:
    shop = api(serve, iter([said({"state": "done", "url": link})]))
    with pytest.raises(ConfigurationError):
        read(shop.url, exports(replace(STATES, download="{url}")))


@pytest.mark.parametrize(
    ("link", "hosts", "message"),
    [
        ("https://bucket.test/x", (), r"'bucket\.test' .* job's `hosts`, which don't"),
        ("http://bucket.test/x", ("bucket.test",), "in clear text"),
    ],
)
def test_a_refused_address_is_shown_without_its_signature(
    serve: Serve, link: str, hosts: tuple[str, ...], message: str
) -> None:
    shop = api(serve, iter([said({"state": "done", "url": f"{link}?signature={SIGNATURE}"})]))
    with pytest.raises(ConfigurationError, match=message) as failure:
        read(shop.url, exports(replace(STATES, download="{url}", hosts=hosts)))
    assert SIGNATURE not in f"{failure.value} {failure.value.answer}"


def test_a_redirect_to_a_refused_address_is_shown_without_its_signature(serve: Serve) -> None:
    link = f"https://cdn.test/x?signature={SIGNATURE}"
    storage = serve(lambda _: said({}, 302, Location=link))
    for url in (storage.url, f"{storage.url}orders"):
        shop = Source("shop", url, (resource := Resource("orders", "", records_at()),))
        with pytest.raises(ConfigurationError, match="may not lead there") as failure:
            read(url, resource, source=shop)
        assert SIGNATURE not in str(failure.value)


@pytest.mark.parametrize("kind", [BadPayloadError, JobFailedError])
def test_an_answer_with_a_signature_is_quoted_without_it(
    serve: Serve, kind: type[EltError]
) -> None:
    state = "failed" if kind is JobFailedError else "done"
    shop = api(serve, iter([said({"url": f"https://x.test/?s={SIGNATURE}", "state": state})]))
    with pytest.raises(kind, match=r"x\.test") as failure:
        read(shop.url, exports(replace(STATES, download="{result}")))
    assert SIGNATURE not in str(failure.value)


def downloading(serve: Serve, storage: Server, query: str) -> tuple[Server, Resource]:
    """An API whose results are in a storage."""
    link = f"{storage.url}orders?{query}"
    shop = api(serve, iter([said({"state": "done", "url": link})]))
    host = storage.url.removeprefix("http://").rstrip("/")
    return shop, exports(replace(STATES, download="{url}", hosts=(host,)))


def test_a_preview_shows_no_signature(serve: Serve) -> None:
    storage = serve(lambda _: said({"items": ROWS}))
    shop, resource = downloading(serve, storage, f"signature={SIGNATURE}-preview")
    source = Source("shop", shop.url, (resource,))
    shown = preview.described(
        source, resource, preview.first_page(source, resource, Partition()), Partition()
    )
    assert "/orders?signature=***" in shown


def test_a_download_makes_no_word_a_secret(serve: Serve) -> None:
    """Other loads of the process may send that word, or store it in a reject."""
    storage = serve(lambda _: said({"items": ROWS}))
    word = "application/vnd.test+json"
    shop, resource = downloading(serve, storage, f"response-content-type={word}")
    assert rows(read(shop.url, resource)) == ROWS
    assert not shows_secret(word)
    assert redact_record(f'"{word}"') == f'"{word}"'


def test_a_download_keeps_a_parameter_that_is_called_as_the_login(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "s3cr3t-k3y-0123")
    storage = serve(lambda _: said({"items": ROWS}))
    shop, resource = downloading(serve, storage, f"token={SIGNATURE}")
    source = Source("shop", shop.url, (resource,), ApiKey("shop-key", param="token"))
    assert rows(read(shop.url, resource, source=source)) == ROWS
    assert storage.asked == [f"/orders?token={SIGNATURE}"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_host_of_downloads_that_refuses_is_no_matter_of_the_login(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "s3cr3t-t0ken")
    storage = serve(lambda _: said({"error": "expired_token"}, status))
    shop, resource = downloading(serve, storage, f"signature={SIGNATURE}")
    source = Source("shop", shop.url, (resource,), Bearer("shop-token"))
    with pytest.raises(BadRequestError, match=f"gets no login.*{status} in the job's `expired`"):
        read(shop.url, resource, source=source)
    assert len(storage.asked) == 1


@pytest.mark.parametrize(
    "host", ["https://exports.test", "exports.test/", "me@exports.test", "exports.test:x", "", " "]
)
def test_hosts_that_no_address_has_are_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a host.*'exports\.example\.com'"):
        Job(hosts=(host,))
    with pytest.raises(ConfigurationError, match="is not a host"):
        Source("shop", "https://api.test", (), hosts=(host,))


@pytest.mark.parametrize(
    "host", ["api.x.com", "API.x.com", "api.x.com:443", "api.x.com.", "files.x.com:8443"]
)
def test_a_host_of_downloads_that_gets_the_login_is_refused(host: str) -> None:
    resource = exports(Job(hosts=(host,)))
    with pytest.raises(ConfigurationError, match="gets the login of source 'shop'"):
        Source("shop", "https://api.x.com/v1", (resource,), hosts=("files.x.com",))


def test_another_port_of_the_api_may_have_the_downloads() -> None:
    resource = exports(Job(hosts=("api.x.com:8443",)))
    assert Source("shop", "https://api.x.com/v1", (resource,)).resources == (resource,)
