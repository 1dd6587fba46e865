"""Personal fields are dropped, hashed or masked before anything is stored, logged or raised."""

import hmac
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from commands.preview import described
from deployments.local.postgres import libpq
from flows.errors import BadPayloadError, ConfigurationError, EltError, RefusedLoginError
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.paginators import keyset, next_url, offset, page_number
from flows.extract.selectors import (
    columns_at,
    csv_rows,
    keyed_at,
    ndjson,
    record_at,
    records_at,
    rows_at,
    xml_at,
    zipped,
)
from flows.load.ledger import Address
from flows.load.loader import load
from flows.load.parse import PageParser
from flows.load.replay import replay
from flows.load.reset import reset
from flows.page import HttpRequest, Page
from flows.personal_data import Protection, dropped, hashed, masked
from flows.source import Cursor, Partition, Resource, RowsOf, Source, Window
from tests.flows.test_secrets_in_loads import ECHOES, leaks, ledger_of, said_by
from tests.flows.test_secrets_in_loads import SECRET as CANARY
from tests.http_servers import Answer, Asked, Serve

Query = Callable[..., list[tuple[Any, ...]]]

KEY = "the-key-of-hashes"
PERSONAL: Mapping[str, Protection] = {
    "name": dropped(),
    "email": hashed("shop-hash"),
    "phone": masked(last=3),
    "address.street": dropped(),
    "contacts.email": hashed("shop-hash"),
}
ADA = {
    "id": 1,
    "name": "Ada",
    "email": "ada@example.com",
    "phone": "+44 20 7946 0123",
    "address": {"street": "12 St James's Square", "city": "London"},
    "contacts": [{"email": "ada@example.com", "kind": "home"}, {"email": None}],
    "amount": 12.5,
}
# Each leads to an error or a reject that quotes the body, a value or a record.
QUOTING = [
    "instead of JSON", "instead of JSON, paged", "percent-encoded", "in JSON", "in JSON in JSON",
    "as it is and percent-encoded", "in HTML", "as HTML instead of JSON", "far behind",
    "instead of a list", "bad request", "refused login", "not found", "away", "cut short",
    "too large", "CSV as HTML", "CSV of uneven rows", "CSV with a quote",
    "CSV with another delimiter", "CSV with a name twice", "line of NDJSON",
    "record without its key", "record that is text", "record that is cut", "pinned column",
    "pinned column of jsonb", "many misfits", "value of a frozen table", "value in quarantine",
    "row that a constraint refuses", "stored as data", "own records", "own records with a cause",
    "own records in ASCII", "own paging",
]  # fmt: skip


def hash_of(text: str) -> str:
    return hmac.digest(KEY.encode(), text.encode(), "sha256").hex()


def customers(**declared: Any) -> Resource:
    given = {"records": records_at("items"), "key": ("id",), "personal": PERSONAL}
    return Resource("customers", "customers", **given | declared)


def secret(name: str) -> str:
    assert name == "shop-hash"
    return KEY


def run(connection: Connection, url: str, resource: Resource) -> BaseException | None:
    """Load the resource's only partition from the server; returns the error."""
    shop = Source("shop", url, (resource,), max_wait_seconds=3, max_body_bytes=100_000)
    with Client(shop, secret) as client:
        pages = partial(read_pages, client, shop, resource, Partition())
        try:
            load(connection, "shop", resource, Partition(), pages)
        except EltError as error:
            return error
    return None


def served(serve: Serve, *bodies: Any, content_type: str = "application/json") -> str:
    """A server that says one body after the other."""
    texts = [body if isinstance(body, str | bytes) else json.dumps(body) for body in bodies]
    answers = iter(text.encode() if isinstance(text, str) else text for text in texts)
    headers = {"Content-Type": content_type}
    return serve(lambda _: Answer(next(answers), headers=headers)).url


def test_fields_are_dropped_hashed_and_masked(
    serve: Serve, connection: Connection, query: Query
) -> None:
    assert run(connection, served(serve, {"items": [ADA]}), customers()) is None
    [(row,)] = query("select to_jsonb(c) - '_loaded_at' - '_load_id' from raw_shop.customers as c")
    assert row == {
        "id": 1,
        "email": hash_of("ada@example.com"),
        "phone": "***123",
        "address": {"city": "London"},
        "contacts": [{"email": hash_of("ada@example.com"), "kind": "home"}, {"email": None}],
        "amount": 12.5,
    }


ROWS = [{"id": n, "email": f"{n}@example.com", "amount": n / 4} for n in (1, 2, 3)]


def as_xml(rows: list[dict[str, Any]]) -> str:
    items = ("".join(f"<{n}>{v}</{n}>" for n, v in row.items()) for row in rows)
    return f"<r>{''.join(f'<item>{item}</item>' for item in items)}</r>"


def packed(rows: list[dict[str, Any]]) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for row in rows:
            archive.writestr(f"{row['id']}.jsonl", json.dumps(row))
    return body.getvalue()


FORMS: Mapping[str, tuple[Any, str | bytes, str]] = {
    "a list": (records_at("items"), json.dumps({"items": ROWS}), "application/json"),
    "one record": (record_at("item"), json.dumps({"item": ROWS[0]}), "application/json"),
    "arrays": (
        columns_at("items"),
        json.dumps({"items": {name: [row[name] for row in ROWS] for name in ROWS[0]}}),
        "application/json",
    ),
    "lines": (ndjson(), "\n".join(map(json.dumps, ROWS)), "application/x-ndjson"),
    "CSV": (
        csv_rows(),
        "id,email,amount\n" + "\n".join(",".join(map(str, row.values())) for row in ROWS),
        "text/csv",
    ),
    "arrays of values": (
        rows_at(), json.dumps([[*ROWS[0]], *([*row.values()] for row in ROWS)]), "application/json",
    ),
    "by id": (
        keyed_at(), json.dumps({str(row["id"]): row for row in ROWS}), "application/json",
    ),
    "in lists": (
        records_at("[].items[]"),
        json.dumps([{"items": ROWS[:1]}, {"items": ROWS[1:]}]),
        "application/json",
    ),
    "XML": (xml_at("r.item"), as_xml(ROWS), "application/xml"),
    "a ZIP archive": (zipped(ndjson()), packed(ROWS), "application/zip"),
    "the source's own": (
        lambda page: page.document["items"], json.dumps({"items": ROWS}), "application/json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_whatever_the_form_of_the_body(
    serve: Serve, connection: Connection, query: Query, form: str
) -> None:
    records, body, content_type = FORMS[form]
    resource = customers(records=records, personal={"email": hashed("shop-hash")})
    assert run(connection, served(serve, body, content_type=content_type), resource) is None
    expected = [ROWS[0]] if form == "one record" else ROWS
    assert query("select id::bigint, email, amount::float from raw_shop.customers order by 1") == [
        (row["id"], hash_of(str(row["email"])), row["amount"]) for row in expected
    ]


@pytest.mark.parametrize(
    "text",
    ["12345678901234567890.12345678901234567890", "1e400", "12345678901234567890", "0.1"],
)
def test_other_fields_keep_their_digits(
    serve: Serve, connection: Connection, query: Query, text: str
) -> None:
    body = f'{{"items": [{{"id": 1, "email": "a", "n": {text}}}]}}'
    resource = customers(columns={"n": "numeric"})
    assert run(connection, served(serve, body), resource) is None
    found = query("select n = %s::numeric, email from raw_shop.customers", text)
    assert found == [(True, hash_of("a"))]


def test_arrays_keep_their_digits_too(serve: Serve, connection: Connection, query: Query) -> None:
    """They are read as Python objects."""
    text = "12345678901234567890.12345678901234567890"
    body = f'{{"items": {{"id": [1], "email": ["a"], "n": [{text}]}}}}'
    resource = customers(records=columns_at("items"), columns={"n": "numeric"})
    assert run(connection, served(serve, body), resource) is None
    assert query("select n = %s::numeric from raw_shop.customers", text) == [(True,)]


def test_a_later_page_is_not_quoted_either(serve: Serve, connection: Connection) -> None:
    def following(page: Page) -> HttpRequest | None:
        """Makes a request of its own."""
        return HttpRequest(f"{page.url}?again") if "again" not in page.url else None

    url = served(serve, {"items": [ADA]}, "Ada Lovelace")
    failure = run(connection, url, customers(paging=following))
    assert "not shown: it may hold personal data" in str(failure)
    assert "Ada" not in str(failure)


def test_a_large_page_is_still_cut_into_pieces(serve: Serve) -> None:
    records = [{"id": n, "email": f"{n}@example.com", "v": "x" * 100} for n in range(20_000)]
    shop = Source("shop", served(serve, {"items": records}), (customers(),))
    with Client(shop, secret) as client:
        page = next(read_pages(client, shop, customers(), Partition(), Window()))
    parser = PageParser(Address("shop", "customers", ""), customers(), Partition())
    assert len(list(parser.readings(page))) > 5


def test_paging_counts_what_the_api_sent(
    serve: Serve, connection: Connection, query: Query
) -> None:
    """Paging reads the page before its personal data is protected."""
    pages = [{"items": ROWS[:2]}, {"items": ROWS[2:]}, {"items": []}]
    resource = customers(paging=offset(), params={"limit": 2})
    assert run(connection, served(serve, *pages), resource) is None
    assert query("select count(*), count(distinct email) from raw_shop.customers") == [(3, 3)]
    following = {"items": ROWS[:1], "next": "/more"}
    resource = customers(paging=next_url("next"))
    assert run(connection, served(serve, following, {"items": ROWS[1:]}), resource) is None


def test_a_key_is_hashed_and_merged(serve: Serve, connection: Connection, query: Query) -> None:
    resource = customers(key=("email",))
    url = served(serve, {"items": [ADA]}, {"items": [{**ADA, "amount": 1.5}]})
    assert run(connection, url, resource) is None
    assert run(connection, url, resource) is None
    assert query("select email, amount from raw_shop.customers") == [
        (hash_of("ada@example.com"), 1.5)
    ]


def test_a_reject_is_stored_and_replayed_protected(
    serve: Serve, connection: Connection, query: Query, database: URL
) -> None:
    """A replay does not hash a hash again."""
    resource = customers(columns={"amount": "integer"}, max_rejects=1)
    assert run(connection, served(serve, {"items": [ADA]}), resource) is None
    [(record,)] = query("select record::jsonb from elt.rejects")
    assert record["email"] == hash_of("ada@example.com")
    assert "name" not in record
    connect = partial(psycopg2.connect, libpq(database))
    replay(connect, "shop", replace(resource, columns={}), Partition())
    assert query("select email from raw_shop.customers") == [(hash_of("ada@example.com"),)]


def test_a_reset_deletes_what_was_stored_before_the_declaration(
    serve: Serve, connection: Connection, query: Query
) -> None:
    resource = customers(personal={}, columns={"amount": "integer"}, max_rejects=1)
    assert run(connection, served(serve, {"items": [ADA]}), resource) is None
    assert query("select count(*) from elt.rejects") == [(1,)]
    reset(connection, "shop", "customers")
    assert query("select count(*) from elt.rejects") == [(1,)]
    reset(connection, "shop", "customers", with_rejects=True)
    assert not any("ada@" in text for text in ledger_of(connection))


@pytest.mark.parametrize(
    "email", [r'"\ud83d"', r'"a\ud83d"', '"é"', '"\\u0000"', "12.50", "[1, 2]", '{"a": "b"}']
)
def test_any_value_is_hashed(
    serve: Serve, connection: Connection, query: Query, email: str
) -> None:
    body = f'{{"items": [{{"id": 1, "email": {email}}}, {{"id": 2, "email": {email}}}]}}'
    assert run(connection, served(serve, body), customers()) is None
    [(first, count)] = query("select min(email), count(distinct email) from raw_shop.customers")
    assert (len(first), count) == (64, 1)


def test_half_a_surrogate_pair_elsewhere_is_rejected_as_always(
    serve: Serve, connection: Connection, query: Query
) -> None:
    body = r'{"items": [{"id": 1, "email": "a@b", "v": "\ud83d"}, {"id": 2, "email": "a@b"}]}'
    assert run(connection, served(serve, body), customers(max_rejects=1)) is None
    assert query("select id, email from raw_shop.customers") == [(2, hash_of("a@b"))]
    [(record,)] = query("select record from elt.rejects")
    assert "a@b" not in record
    assert r"\ud83d" in record


@pytest.mark.parametrize("name", QUOTING)
@pytest.mark.usefixtures("slept")
def test_a_personal_value_is_nowhere(
    serve: Serve, connection: Connection, logged: Callable[[], str], name: str
) -> None:
    echo = ECHOES[name]
    answers = [Answer(json.dumps({"items": echo.before}).encode())] if echo.before else []

    def answer(asked: Asked) -> Answer:
        return answers.pop() if answers else echo.answer(CANARY)

    url = serve(answer).url
    declared = {"records": records_at("items"), **echo.declared}
    resource = Resource("items", "items", **declared, personal={"v": dropped()})
    if echo.before:
        assert run(connection, url, resource) is None
    if echo.between:
        with connection, connection.cursor() as cursor:
            cursor.execute(echo.between.replace("v = 'ok'", "id < 2"))
    failure = run(connection, url, resource)
    texts = [logged(), *ledger_of(connection), *(said_by(failure) if failure else ())]
    assert [text for text in texts if leaks(text)] == []


def test_preview_shows_what_would_be_stored(serve: Serve) -> None:
    shop = Source("shop", served(serve, {"items": [ADA]}), (customers(),))
    with Client(shop, secret) as client:
        page = next(read_pages(client, shop, customers(), Partition(), Window()))
    text = described(shop, customers(), page, Partition())
    assert hash_of("ada@example.com") in text
    assert "ada@" not in text
    assert "Square" not in text


def test_map_record_gets_protected_records(
    serve: Serve, connection: Connection, query: Query
) -> None:
    resource = customers(map_record=lambda record: {"id": record["id"], "is": record["email"]})
    assert run(connection, served(serve, {"items": [ADA]}), resource) is None
    assert query('select "is" from raw_shop.customers') == [(hash_of("ada@example.com"),)]


def test_a_field_that_no_record_has_is_told(
    serve: Serve, connection: Connection, logged: Callable[[], str]
) -> None:
    resource = customers(personal={"emial": dropped(), "name": dropped()})
    assert run(connection, served(serve, {"items": [ADA, ADA]}), resource) is None
    assert "none of 2 records has the field 'emial' that `personal` names" in logged()


def test_a_missing_key_of_hashes_is_named(serve: Serve, connection: Connection) -> None:
    shop = Source("shop", served(serve, {"items": [ADA]}), (customers(),))
    assert shop.secret_names == ("shop-hash",)
    with Client(shop) as client, pytest.raises(RefusedLoginError, match="SHOP_HASH"):
        next(read_pages(client, shop, customers(), Partition(), Window()))


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        ({"key": ("name",)}, "removes 'name', which is part of its key"),
        ({"key": ("phone",)}, "removes 'phone', which is part of its key"),
        ({"cursor": Cursor("email")}, "'email', which is its cursor"),
        ({"personal": {"a": dropped(), "a.b": dropped()}}, "'a' and 'a.b', which is a part of it"),
        ({"paging": keyset("email", param="after")}, "'email', by which its paging goes on"),
        (
            {"paging": keyset("contact", param="after"), "personal": {"contact.email": dropped()}},
            "'contact.email', by which its paging goes on",
        ),
        (
            {
                "records": records_at("orders[].lines[]", parents={"buyer": "orders[].email"}),
                "personal": {"buyer": dropped()},
                "paging": keyset("email", param="after", counts="orders"),
            },
            "'buyer', by which its paging goes on",
        ),
        (
            {
                "records": records_at("orders[].node", parents={"buyer": "orders[].email"}),
                "personal": {"buyer": dropped()},
                "paging": keyset("buyer", param="after"),
            },
            "'buyer', by which its paging goes on",
        ),
    ],
    ids=[
        "dropped key",
        "masked key",
        "cursor",
        "overlap",
        "keyset",
        "a part",
        "a parent's",
        "a parent's in the record",
    ],
)
def test_what_makes_no_sense_is_refused(declared: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        customers(**declared)


def test_requests_are_not_filled_with_what_the_api_does_not_know() -> None:
    parents = RowsOf("customers", {"email": "email"})
    orders = Resource(
        "orders",
        "{email}",
        records_at(),
        key=("email", "id"),
        partition_columns=("email",),
        partitions=parents,
    )
    with pytest.raises(ConfigurationError, match="orders: its requests need 'email' of customers"):
        Source("shop", "https://shop.example/", (customers(), orders))


def test_a_field_and_its_column_are_one(serve: Serve) -> None:
    people = Resource(
        "people", "people", records_at(), key=("id",), personal={"emailAddress": dropped()}
    )
    notes = Resource(
        "notes",
        "{email}",
        records_at(),
        key=("email", "id"),
        partition_columns=("email",),
        partitions=RowsOf("people", {"email": "email_address"}),
    )
    with pytest.raises(ConfigurationError, match="notes: its requests need 'email_address'"):
        Source("shop", "https://shop.example/", (people, notes))


def test_a_name_with_dots_may_be_the_apis_own(
    serve: Serve, connection: Connection, query: Query
) -> None:
    record = {"id": 1, "customer.email": "ada@a", "a": {"b.c": "ada@b", "b": {"c": "ada@c"}}}
    personal = {"customer.email": dropped(), "a.b.c": dropped()}
    url = served(serve, {"items": [record]})
    assert run(connection, url, customers(personal=personal)) is None
    [(row,)] = query("select to_jsonb(c)::text from raw_shop.customers as c")
    assert "ada@" not in row


def test_a_value_has_one_hash_whatever_else_is_in_its_record(
    serve: Serve, connection: Connection, query: Query
) -> None:
    """Msgspec refuses half a surrogate pair anywhere in a record."""
    body = r"""{"items": [
        {"id": 1, "email": "a\ud83d\ude00@x"},
        {"id": 2, "email": "a\ud83d\ude00@x", "phone": "12\ud83d\ude00345", "name": "\ud83d"}
    ]}"""
    assert run(connection, served(serve, body), customers()) is None
    assert query("select distinct email from raw_shop.customers") == [(hash_of("a\U0001f600@x"),)]
    assert query("select phone from raw_shop.customers where id = 2") == [("***345",)]


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), Decimal(1), float("nan")])  # noqa: DTZ001
def test_a_records_function_that_returns_no_json_is_named(
    serve: Serve, connection: Connection, value: object
) -> None:
    def own(page: Page) -> list[Any]:
        return [{**record, "at": value} for record in page.document["items"]]

    failure = run(connection, served(serve, {"items": [ADA]}), customers(records=own))
    assert isinstance(failure, ConfigurationError | BadPayloadError)
    assert "`records`" in str(failure)


ADDRESSED: Mapping[str, tuple[Mapping[str, Any], Any]] = {
    "next link": ({"paging": next_url("next")}, {"items": [ADA], "next": [CANARY]}),
    "counted list": ({"paging": offset(counts="all")}, {"items": [ADA], "all": CANARY}),
    "total": ({"paging": offset(total="total")}, {"items": [ADA], "total": CANARY}),
    "records by name": ({"records": records_at()}, {CANARY: ADA}),
    "arrays": ({"records": columns_at("items")}, {"items": {CANARY: [1], "b": []}}),
    "own records": (
        {"records": lambda _: [{"id": 1}] * 3, "paging": page_number()},
        {CANARY: [{"id": 1}], "b": [{"id": 2}]},
    ),
}


@pytest.mark.parametrize("case", ADDRESSED)
def test_no_error_quotes_what_stands_beside_the_records(
    serve: Serve, connection: Connection, logged: Callable[[], str], case: str
) -> None:
    declared, body = ADDRESSED[case]
    failure = run(connection, served(serve, body), customers(**declared))
    assert failure is not None
    texts = [logged(), *ledger_of(connection), *said_by(failure)]
    assert [text for text in texts if leaks(text)] == []


def test_a_secret_is_read_once_and_a_missing_field_told_once_for_all_partitions(
    serve: Serve, logged: Callable[[], str]
) -> None:
    asked: list[str] = []

    def read(name: str) -> str:
        asked.append(name)
        return KEY

    resource = customers(personal={"email": hashed("shop-hash"), "emial": dropped()})
    shop = Source("shop", serve(lambda _: Answer(json.dumps({"items": [ADA]}).encode())).url, ())
    with Client(shop, read) as client:
        for _ in range(3):
            with client.sibling() as own:
                list(read_pages(own, shop, resource, Partition(), Window()))
    assert asked == ["shop-hash"]
    assert logged().count("none of 3 records has the field 'emial'") == 1


def test_a_record_that_is_no_object_fails_the_load_unseen(
    serve: Serve, connection: Connection
) -> None:
    failure = run(connection, served(serve, {"items": [ADA, "ada@example.com"]}), customers())
    assert type(failure) is BadPayloadError
    assert "a record is no JSON object that can be read" in str(failure)
    assert "ada@" not in str(failure)


def test_a_page_is_left_alone_where_nothing_is_personal(serve: Serve) -> None:
    body = {"items": [ADA]}
    shop = Source("shop", served(serve, body), (customers(personal={}),))
    with Client(shop) as client:
        page: Page = next(read_pages(client, shop, shop.resources[0], Partition(), Window()))
    assert json.loads(page.body) == body
