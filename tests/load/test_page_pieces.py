"""The pieces of a page contain all of its records, and only the last has its resume point."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.extract.selectors import ndjson, record_at, records_at
from flows.load.page_pieces import only_record, pieces
from flows.page import Page, Resume
from tests.load.memory_api import in_python

NEXT = Resume("page 0", "page 1", None)
TEXTS = st.text(st.sampled_from('a"\\{}[], \n\ud83d\ud800é😀'), max_size=12)
VALUES = st.recursive(
    st.none() | st.integers(0, 999) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def cut(page: Page, records: Any, size_bytes: int) -> list[Page]:
    found = list(pieces(page, records, size_bytes))
    assert [is_last for _, is_last in found] == [False] * (len(found) - 1) + [True]
    assert [piece.resume for piece, _ in found] == [None] * (len(found) - 1) + [page.resume]
    return [piece for piece, _ in found]


def records_of(page: Page, records: Any) -> list[Any]:
    return list((page.find or records)(page))


@pytest.mark.long
@settings(max_examples=500)
@given(
    st.lists(VALUES, max_size=30),
    st.integers(1, 200),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.sampled_from(["", "data.items"]),
)
def test_pieces_hold_the_records_in_their_order(
    rows: list[Any], size_bytes: int, is_ascii: bool, indent: int | None, path: str
) -> None:
    document = {"data": {"n": 1, "items": rows}, "next": "}, {"} if path else rows
    text = json.dumps(document, ensure_ascii=is_ascii, indent=indent)
    page = Page(text.encode(errors="surrogatepass"), "page", resume=NEXT)
    found = cut(page, records_at(path), size_bytes)
    assert [e for piece in found for e in records_of(piece, records_at(path))] == rows
    for piece in found:
        if len(piece.body) > size_bytes + 2 and piece.find is not None:
            assert len(records_of(piece, None)) == 1
            assert only_record(piece, size_bytes) == piece.body[1:-1]
        else:
            assert only_record(piece, size_bytes) is None


@settings(max_examples=200)
@given(st.lists(VALUES, max_size=30), st.integers(1, 200), st.sampled_from([b"\n", b"\r\n\n"]))
def test_lines_are_cut_between_lines(rows: list[Any], size_bytes: int, between: bytes) -> None:
    page = Page(between.join(json.dumps(row).encode() for row in rows), "page", resume=NEXT)
    found = cut(page, ndjson(), size_bytes)
    assert [e for piece in found for e in records_of(piece, ndjson())] == rows


def test_tiny_records_are_cut_into_pieces_of_the_requested_size() -> None:
    rows = [{"id": number} for number in range(20_000)]
    found = cut(Page(json.dumps(rows).encode(), "page"), records_at(), 10_000)
    assert {9_900 < len(piece.body) <= 10_002 for piece in found[:-1]} == {True}


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b'{"items": [1, 2', records_at("items")),
        (b'{"items": {"id": 1}}', records_at("items")),
        (b'{"others": [1, 2]}', records_at("items")),
        (b'{"item": [1, 2]}', record_at("item")),
        (b'[{"id": 1}, {"id": 2}]', in_python),
    ],
    ids=["cut off", "no list", "no such field", "no object", "a function of one's own"],
)
def test_a_page_whose_records_are_not_found_stays_whole(body: bytes, records: Any) -> None:
    page = Page(body, "page")
    assert cut(page, records, 5) == [page]


def test_a_single_record_is_a_piece() -> None:
    page = Page(b'{"item": {"id": 1, "v": "long"}}', "page")
    [piece] = cut(page, record_at("item"), 5)
    assert only_record(piece, 5) == b'{"id": 1, "v": "long"}'
