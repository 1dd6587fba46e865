"""A recording holds what a replay needs, and nothing that is secret or personal."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from sqlalchemy.engine import URL

from commands.record import __main__ as command
from commands.record import recording, tables
from commands.record.__main__ import keep, record
from commands.record.scrubbing import Scrubbing
from flows.errors import EltError
from flows.extract.auth import ApiKey, OAuth2
from flows.extract.paginators import next_url
from flows.extract.selectors import csv_rows, records_at
from flows.personal_data import dropped, hashed, masked
from flows.source import Resource, RowsOf, Source
from tests.http_servers import Answer, Asked, Server, serving

SECRETS = {
    "shop-key": "key+of/the shop",
    "shop-client": "client-secret-of-the-shop",
    "shop-salt": "salt-of-the-hashes",
}
TOKEN = "access-token-of-the-shop"  # noqa: S105 (a test's own)
PERSONAL = ("ada@example.com", "Ada Lovelace", "+44 20 7946 0000", "12 St James's Square", "Zq7")
PLANTED = (*SECRETS.values(), TOKEN, "session-of-the-shop", *PERSONAL)
LAST_ORDER = 9


def order(number: int) -> dict[str, Any]:
    """An order of a page of one, with all that must not be written.

    The first one's note quotes what only the second one shows to be personal.
    """
    return {
        "id": number,
        "total": 10.50 + number,
        "note": f"by {PERSONAL[0]}, seen with {SECRETS['shop-key']}",
        "customer": {
            "nick": PERSONAL[4],
            "email": PERSONAL[0] if number > 1 else "zed@example.com",
            "name": PERSONAL[1],
            "phones": [PERSONAL[2]],
        },
        "address": {"street": PERSONAL[3]},
    }


def answer(request: Asked) -> Answer:
    """A shop's API: a login, orders page by page, lines of each order."""
    path, host = urlsplit(request).path, request.headers["Host"]
    session = {"Set-Cookie": "id=session-of-the-shop", "Content-Type": "application/json"}
    if path == "/token":
        body = {"access_token": TOKEN, "expires_in": 60, "user": PERSONAL[1]}
        return Answer(json.dumps(body).encode(), headers=session)
    if request.headers.get("Authorization") != f"Bearer {TOKEN}" or "key=" not in request:
        return Answer(b"{}", 401)
    if path.endswith("/lines"):
        return Answer(json.dumps([{"line": 1, "sku": "A"}]).encode())
    number = int(dict(parse_qsl(urlsplit(request).query)).get("page", 1))
    following = f"http://{host}/v2/orders?key={SECRETS['shop-key']}&page={number + 1}"
    document = {"data": [order(number)], "next": following if number < LAST_ORDER else None}
    return Answer(json.dumps(document).encode(), headers=session)


def shop(url: str, **declared: Any) -> Source:
    """The shop's source."""
    orders = Resource(
        "orders",
        "orders",
        records_at("data"),
        paging=next_url("next"),
        key=("id",),
        personal={
            "customer.email": hashed("shop-salt"),
            "customer.name": masked(),
            "customer.nick": masked(),
            "customer.phones": masked(last=2),
            "address": dropped(),
        },
        **declared,
    )
    lines = Resource(
        "lines",
        "orders/{order_id}/lines",
        records_at(""),
        key=("order_id", "line"),
        partitions=RowsOf("orders", {"order_id": "id"}),
        partition_columns=("order_id",),
    )
    login = (
        ApiKey("shop-key", param="key"),
        OAuth2(f"{url}token", "shop", "shop-client"),
    )
    return Source("shop", f"{url}v2/", (orders, lines), login, max_wait_seconds=0)


@pytest.fixture
def api() -> Any:
    """The shop's API."""
    with serving() as serve:
        yield serve(answer)


@pytest.fixture(autouse=True)
def _without_dbt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Staging views are built in the test of recorded sources."""
    monkeypatch.setattr(tables, "build_staging", lambda *_: None)


def kept(server: URL, source: Source, folder: Path) -> str:
    """Record and keep the source; all that is written."""
    keep(server, source, record(server, source, source.resources, SECRETS.__getitem__), folder)
    return "\n".join(file.read_text() for file in sorted(folder.iterdir()))


def test_nothing_secret_or_personal_is_written_and_the_rest_is(
    postgres_server: URL, api: Server, tmp_path: Path
) -> None:
    """The replay, which `keep` does, logs in with other secrets and reads the same pages."""
    written = kept(postgres_server, shop(api.url), tmp_path)
    assert [text for text in PLANTED if text.lower() in written.lower()] == []
    assert "127.0.0.1" not in written
    assert "personal-1" in written
    recordings = recording.read(tmp_path)
    orders, lines = recordings["orders"], recordings["lines"]
    assert len(orders.answers) == command.PAGES < LAST_ORDER
    assert lines.partitions == ["1", "2", "3"]
    assert lines.last == {}
    assert json.loads(orders.answers[0].content)["data"][0]["total"] == 11.5
    assert b'"total":11.5' in orders.answers[0].content
    expected = (tmp_path / recording.EXPECTED).read_text()
    assert f"raw_shop.orders: {command.PAGES} rows" in expected
    assert "raw_shop.lines: 3 rows" in expected


def test_a_resource_without_rows_is_recorded_too(
    postgres_server: URL, tmp_path: Path, serve: Callable[..., Server]
) -> None:
    """As are its children, which then have no request; redirects are followed in the replay."""

    def moved(request: Asked) -> Answer:
        is_old = urlsplit(request).path == "/orders"
        return Answer(b"", 302, headers={"Location": "/new"}) if is_old else Answer(b"[]")

    orders = Resource("orders", "orders", records_at(""), key=("id",))
    parents = RowsOf("orders", {"order_id": "id"})
    lines = Resource(
        "lines", "{order_id}", records_at(""), partitions=parents, partition_columns=("order_id",)
    )
    source = Source("shop", serve(moved).url, (orders, lines), max_wait_seconds=0)
    assert "raw_shop.orders: 0 rows, so no table" in kept(postgres_server, source, tmp_path)
    recordings = recording.read(tmp_path)
    assert [len(recordings[name].answers) for name in ("orders", "lines")] == [2, 0]


def test_what_is_half_written_is_recorded_again(
    postgres_server: URL, api: Server, tmp_path: Path
) -> None:
    (tmp_path / "orders.json").write_text('{"recorded_at":')
    assert "personal-1" in kept(postgres_server, shop(api.url), tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".txt"}


@pytest.mark.parametrize("before", ["", "a", "ab"])
@pytest.mark.parametrize("after", ["", "a", "ab"])
def test_secrets_in_base64_are_replaced(before: str, after: str) -> None:
    """Wherever in the encoded text they are, and in both alphabets."""
    secret = "key+of/the>>>shop???"  # noqa: S105 (a test's own)
    scrubbing = Scrubbing("http://shop.invalid/", {"shop-key": secret})
    for encode in (b64encode, urlsafe_b64encode):
        text = encode(f"{before}{secret}{after}".encode()).decode()
        found = scrubbing.text(text)
        assert "recorded-shop-key" in found
        assert len(found.replace("recorded-shop-key", "")) <= len("AAA" + "AAA==") + len(after)


def test_signed_tokens_are_told_apart() -> None:
    scrubbing = Scrubbing("http://shop.invalid/", {})
    one, two = (f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJib2Iif{n}.c2lnbmF0dXJl" for n in "QR")
    assert scrubbing.text(f"{one} {two} {one}") == "recorded-jwt-1 recorded-jwt-2 recorded-jwt-1"


def test_personal_numbers_leave_a_body_that_is_json() -> None:
    """The same number elsewhere is replaced; one that contains it by chance is another."""
    scrubbing = Scrubbing("http://shop.invalid/", {})
    text = '{"phone": 4420794600, "by": [4420794600, 9944207946000.50], "at": "/4420794600"}'
    for _ in range(2):
        found = scrubbing.body(text, {"phone": masked()})
    assert found == (
        '{"phone": "personal-1", "by": ["personal-1", 9944207946000.50], "at": "/personal-1"}'
    )


def test_secrets_of_the_env_file_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bool] = []
    monkeypatch.setattr(command, "read_environment", lambda: read.append(True))
    monkeypatch.setattr("sys.argv", ["record", "--source", "nothing"])
    assert (command.main(), read) == (1, [True])


def test_personal_fields_that_cannot_be_found_are_not_written(
    postgres_server: URL, tmp_path: Path, serve: Callable[..., Server]
) -> None:
    server = serve(lambda _: Answer(b"id,email\n1,ada@example.com\n", headers={}))
    people = Resource("people", "people", csv_rows(), key=("id",), personal={"email": masked()})
    with pytest.raises(EltError, match="The personal field 'email' can't be found") as failure:
        kept(
            postgres_server,
            Source("shop", server.url, (people,), max_wait_seconds=0),
            tmp_path / "shop",
        )
    assert "ada" not in str(failure.value)
    assert not (tmp_path / "shop").exists()


def test_a_changed_answer_shows_in_the_tables(
    postgres_server: URL, api: Server, tmp_path: Path
) -> None:
    """As does a changed declaration: both change what is written there."""
    kept(postgres_server, shop(api.url), tmp_path)
    before = (tmp_path / recording.EXPECTED).read_text()
    kept(postgres_server, shop(api.url, columns={"total": "numeric(12,2)"}), tmp_path)
    after = (tmp_path / recording.EXPECTED).read_text()
    assert [*set(after.splitlines()) - set(before.splitlines())] == [
        f"  {'total':<32} numeric(12,2)"
    ]


def test_a_request_that_was_not_recorded_names_the_remedy(
    postgres_server: URL, api: Server, tmp_path: Path
) -> None:
    kept(postgres_server, shop(api.url), tmp_path)
    changed = shop(api.url, params={"status": "open"})
    with pytest.raises(
        EltError, match=r"can't be loaded from its recording.*make record SOURCE=shop"
    ):
        keep(postgres_server, changed, {}, tmp_path)
