"""Promises of text in other encodings than UTF-8: it is read right, or the error names it."""

import codecs
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.extract.selectors import csv_rows, ndjson, record_at, records_at
from flows.load.loader import load
from flows.page import Page
from flows.source import Partition, Resource, Source
from tests.extract.reading import read, rows
from tests.http_servers import Answer, Serve

Query = Callable[..., list[tuple[Any, ...]]]

CAFE = [{"id": 1, "v": "café"}]
LIST = Resource("items", "items", records_at("items"), key=("id",))
TABLE = Resource("items", "items", csv_rows(), key=("id",))
JSON = '{"items": [{"id": 1, "v": "café"}]}'
CSV = "id,v\n1,café\n"


def found(serve: Serve, resource: Resource, body: bytes, content_type: str) -> list[Any]:
    answer = Answer(body, headers={"Content-Type": content_type})
    return rows(read(serve(lambda _: answer).url, resource))


@pytest.mark.parametrize(
    "said",
    [
        "application/json; charset=iso-8859-1",
        'application/json; charset="ISO-8859-1"',
        "application/json;odata=minimal;charset=Latin1",
    ],
)
def test_json_is_read_in_the_charset_that_its_content_type_names(serve: Serve, said: str) -> None:
    assert found(serve, LIST, JSON.encode("latin-1"), said) == CAFE


@pytest.mark.parametrize(
    ("resource", "text"),
    [
        pytest.param(LIST, JSON, id="JSON"),
        pytest.param(replace(LIST, records=record_at("items.0")), "", id="one record"),
        pytest.param(replace(LIST, records=ndjson()), '{"id": 1, "v": "café"}\n', id="NDJSON"),
        pytest.param(TABLE, CSV, id="CSV"),
    ],
)
@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-16", "utf-16-be", "shift_jisx0213"])
def test_text_is_read_in_the_encoding_that_is_declared(
    serve: Serve, resource: Resource, text: str, encoding: str
) -> None:
    if not text:
        resource, text = replace(resource, records=record_at()), '{"id": 1, "v": "café"}'
    declared = replace(resource, encoding=encoding)
    [record] = found(serve, declared, text.encode(encoding), "text/plain; charset=us-ascii")
    assert record == {"id": record["id"], "v": "café"}


@pytest.mark.parametrize(
    ("resource", "body", "said"),
    [
        pytest.param(LIST, JSON.encode(), "application/json; charset=latin1", id="JSON in UTF-8"),
        pytest.param(LIST, JSON.encode(), "application/json; charset=nonsense", id="unknown"),
        pytest.param(LIST, JSON.encode("utf-16-le"), "application/json", id="JSON in UTF-16"),
        pytest.param(LIST, JSON.encode("utf-32"), "application/json; charset=x", id="UTF-32"),
        pytest.param(TABLE, CSV.encode("utf-16"), "text/csv", id="UTF-16's mark"),
        pytest.param(TABLE, CSV.encode("utf-8-sig"), "text/csv; charset=cp1252", id="UTF-8's mark"),
        pytest.param(TABLE, CSV.encode("utf-8-sig"), "text/csv", id="UTF-8's mark alone"),
        pytest.param(
            replace(TABLE, encoding="cp1252"), CSV.encode("utf-8-sig"), "text/csv", id="or declared"
        ),
    ],
)
def test_a_mark_and_valid_json_override_the_declared_charset(
    serve: Serve, resource: Resource, body: bytes, said: str
) -> None:
    [record] = found(serve, resource, body, said)
    assert record["v"] == "café"


@pytest.mark.parametrize(
    ("resource", "body", "content_type", "said"),
    [
        pytest.param(
            LIST,
            JSON.encode("latin-1"),
            "application/json; charset=utf-8",
            r"not utf-8: byte 0xe9 at position 30 is invalid.*Declare the resource's `encoding`",
            id="JSON that is called UTF-8",
        ),
        pytest.param(
            TABLE,
            CSV.encode("latin-1"),
            "text/csv",
            r"not utf-8: byte 0xe9 at position 10 is invalid.*Declare the resource's `encoding`",
            id="CSV that is not UTF-8",
        ),
        pytest.param(
            TABLE,
            CSV.encode(),
            "text/csv; charset=us-ascii",
            r"not us-ascii, which its Content-Type names: byte 0xc3 at position 10",
            id="CSV that is not ASCII",
        ),
        pytest.param(
            replace(LIST, encoding="cp1252"),
            b'{"items": ["\x81"]}',
            "application/json",
            r"not cp1252, which the resource declares: byte 0x81 at position 12",
            id="not what is declared",
        ),
        pytest.param(
            TABLE,
            codecs.BOM_UTF16_LE + b"a\0\n",
            "text/csv",
            r"not utf-16-le, which its byte order mark names: byte 0x0a at position 4",
            id="half a character",
        ),
        pytest.param(
            TABLE,
            CSV.encode(),
            "text/csv; charset=utf8mb4",
            r"Python doesn't know: 'utf8mb4', which its Content-Type names. Declare",
            id="unknown",
        ),
        pytest.param(
            TABLE, CSV.encode(), "text/csv; charset=hex", "doesn't know: 'hex'", id="not of text"
        ),
        pytest.param(
            TABLE, CSV.encode(), "text/csv; charset=idna", "doesn't know: 'idna'", id="of names"
        ),
    ],
)
def test_text_invalid_in_its_encoding_is_an_error_with_position_and_remedy(
    serve: Serve, resource: Resource, body: bytes, content_type: str, said: str
) -> None:
    with pytest.raises(BadPayloadError, match=said):
        found(serve, resource, body, content_type)


@pytest.mark.parametrize("encoding", ["utf8mb4", "hex", "idna", "", "a\0b", "undefined"])
def test_an_encoding_unknown_to_python_is_refused_when_declared(
    encoding: str,
) -> None:
    with pytest.raises(ConfigurationError, match="Python doesn't know the encoding"):
        replace(LIST, encoding=encoding)


def test_own_functions_get_text_in_utf8_and_other_bytes_unchanged(serve: Serve) -> None:
    def first(page: Page) -> list[bytes]:
        return [page.body[:4]]

    own = Resource("items", "items", first)
    image = b"\xff\xfe\xe9\0"
    assert found(serve, own, "café".encode("latin-1")[2:], "text/csv; charset=latin1") == [
        b"f\xc3\xa9"
    ]
    assert found(serve, own, image, "image/png; charset=binary") == [image]


def test_a_reject_in_another_encoding_is_kept_as_it_was_sent(
    serve: Serve, connection: Connection, query: Query
) -> None:
    body = '{"items": [{"id": 1,  "v": "café"}, {"v":  "naïve"}]}'.encode("cp1252")
    headers = {"Content-Type": "application/json; charset=windows-1252"}
    url = serve(lambda _: Answer(body, headers=headers)).url
    resource = replace(LIST, max_rejects=1)
    source = Source("shop", url, (resource,))
    with Client(source) as client:
        load(
            connection,
            "shop",
            resource,
            Partition(),
            lambda window, resume: read_pages(
                client, source, resource, Partition(), window, resume
            ),
        )
    assert query("select id, v from raw_shop.items") == [(1, "café")]
    assert query("select record from elt.rejects") == [('{"v":  "naïve"}',)]
