"""Promises of ZIP archives: which files are read, and what is refused before it fills memory."""

import io
import struct
import zipfile
from collections.abc import Mapping

import pytest

from flows.errors import BadPayloadError, ConfigurationError, PayloadTooLargeError
from flows.extract import zipped_records
from flows.extract.selectors import csv_rows, ndjson, records_at, xml_at, zipped
from flows.source import Resource, Source
from tests.extract.reading import read, rows
from tests.http_servers import Answer, Serve

CSV = {"a.csv": b"id,n\n1,x\n2,y\n", "README": b"no rows", "b.csv": b"id,n\n3,z\n"}
KIND = "application/zip"


def archive(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return body.getvalue()


def found(
    serve: Serve, body: bytes, records: object, kind: str = KIND, limit_bytes: int = 1 << 20,
    **declared: object,
) -> list:  # fmt: skip
    url = serve(lambda _: Answer(body, headers={"Content-Type": kind})).url
    resource = Resource("items", "items", records, **declared)
    source = Source("shop", url, (resource,), max_body_bytes=limit_bytes)
    return rows(read(url, resource, source=source))


def test_the_files_that_match_are_read_in_their_order(serve: Serve) -> None:
    assert found(serve, archive(CSV), zipped(csv_rows(), "*.csv")) == [
        {"id": "1", "n": "x"}, {"id": "2", "n": "y"}, {"id": "3", "n": "z"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("records", "content"),
    [
        (records_at("items"), b'{"items": [{"n": "1"}]}'),
        (ndjson(), b'{"n": "1"}\n'),
        (csv_rows(), b"n\n1\n"),
        (xml_at("items.item"), b"<items><item><n>1</n></item></items>"),
    ],
)
def test_files_have_any_other_format(serve: Serve, records: object, content: bytes) -> None:
    assert found(serve, archive({"a": content}), zipped(records)) == [{"n": "1"}]


def test_files_are_read_in_the_declared_encoding(serve: Serve) -> None:
    body = archive({"a.csv": "id\nCaf\u00e9\n".encode("cp1252")})
    read_rows = found(serve, body, zipped(csv_rows()), encoding="cp1252")
    assert read_rows == [{"id": "Caf\u00e9"}]


def test_an_archive_without_rows_is_empty(serve: Serve) -> None:
    assert found(serve, archive({"a.csv": b"id,n\n"}), zipped(csv_rows(), "*.csv")) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (archive(CSV)[:-30], "not a zip file"),
        (archive(CSV)[: len(archive(CSV)) // 2], "not a zip file"),
        (b"", "not a zip file"),
        (b"<html>Log in</html>", "not a zip file"),
        (archive({"x.txt": b""}), "no file matches '*.csv', but it has x.txt"),
        (archive({}), "no file matches '*.csv', but it has no file"),
        (archive(CSV, zipfile.ZIP_LZMA), "a.csv is not compressed with deflate"),
    ],
    ids=["cut", "half", "empty", "HTML", "other names", "no file", "LZMA"],
)
def test_a_body_that_is_no_complete_archive_is_an_error(
    serve: Serve, body: bytes, said: str
) -> None:
    with pytest.raises(BadPayloadError, match="can't be read as a ZIP archive") as failure:
        found(serve, body, zipped(csv_rows(), "*.csv"))
    assert said in str(failure.value)


def test_a_damaged_file_is_an_error(serve: Serve) -> None:
    body = archive({"a.csv": b"id,n\n1,x\n"}, zipfile.ZIP_STORED).replace(b"1,x", b"1,z")
    with pytest.raises(BadPayloadError, match="Bad CRC-32"):
        found(serve, body, zipped(csv_rows()))


def test_an_encrypted_file_is_an_error(serve: Serve) -> None:
    body = bytearray(archive({"a.csv": b"id\n1\n"}))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        struct.pack_into("<H", body, body.index(mark) + at, 1)
    with pytest.raises(BadPayloadError, match=r"a\.csv is encrypted"):
        found(serve, bytes(body), zipped(csv_rows()))


def test_the_error_of_a_file_names_it(serve: Serve) -> None:
    body = archive({"a.csv": b"id,n\n1,x\n", "b.csv": b"id,n\n1\n"})
    with pytest.raises(BadPayloadError, match=r"items \(b\.csv\) answered .* that is not CSV"):
        found(serve, body, zipped(csv_rows()))


def test_a_file_without_the_key_is_an_error(serve: Serve) -> None:
    with pytest.raises(BadPayloadError, match="lacks the key's id"):
        found(serve, archive({"a.csv": b"n\n"}), zipped(csv_rows()), key=("id",))


@pytest.mark.parametrize("files", [1, 3])
def test_a_bomb_is_refused_before_it_fills_the_memory(serve: Serve, files: int) -> None:
    """Also if each of its files is small enough."""
    content = b"id\n" + b"1" * (3_000_000 // files)
    body = archive({f"{n}.csv": content for n in range(files)})
    assert len(body) < 10_000
    with pytest.raises(PayloadTooLargeError, match="the archive's files have more than 1,048,576"):
        found(serve, body, zipped(csv_rows()))


def test_a_bomb_that_lies_about_its_size_is_refused(serve: Serve) -> None:
    body = bytearray(archive({"a.csv": b"id\n" + b"1\n" * 1_500_000}))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", body, body.index(mark) + at, 10)
    with pytest.raises(BadPayloadError):
        found(serve, bytes(body), zipped(csv_rows()))


def test_records_that_exceed_the_limit_in_json_are_refused(serve: Serve) -> None:
    """CSV has its names once, JSON in each record."""
    body = archive({"a.csv": b"a_name_that_is_rather_long\n" + b"1\n" * 30_000})
    with pytest.raises(PayloadTooLargeError, match="the archive's records in JSON"):
        found(serve, body, zipped(csv_rows()))
    assert len(found(serve, body, zipped(csv_rows()), limit_bytes=2 << 20)) == 30_000


def test_a_name_that_is_no_text_is_an_error(serve: Serve) -> None:
    body = archive({"ü.csv": b"id\n1\n"}).replace("ü".encode(), b"\xff\xfe")
    with pytest.raises(BadPayloadError, match="can't be read as a ZIP archive"):
        found(serve, body, zipped(csv_rows()))


def test_an_archive_of_too_many_files_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipped_records, "MAX_FILES", 2)
    with pytest.raises(BadPayloadError, match="over 2 files"):
        found(serve, archive(CSV), zipped(csv_rows()))


@pytest.mark.parametrize(
    ("records", "files"), [(zipped(csv_rows()), "*"), (lambda page: [], "*"), (csv_rows(), "")]
)
def test_archives_in_archives_and_own_functions_are_refused(records: object, files: str) -> None:
    with pytest.raises(ConfigurationError, match="zipped needs one of the other selectors"):
        zipped(records, files)


def test_a_web_page_is_refused_by_its_type(serve: Serve) -> None:
    with pytest.raises(BadPayloadError, match="where the source declares zip"):
        found(serve, b"<html/>", zipped(csv_rows()), kind="text/html")
