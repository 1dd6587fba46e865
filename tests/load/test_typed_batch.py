"""The fast path gives the same rows as the slow path, or leaves the page to it."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.extract.selectors import columns_at, records_at
from flows.load.batch import RecordBatch
from flows.load.typed_batch import CSV, TypedBatch, TypedParser
from flows.page import Page
from flows.source import Resource

ITEMS = Resource("items", "items", records_at("v"), key=("id",))
SPECIAL = [
    "",
    "true",
    ":true,",
    '"',
    "\\",
    "\\.",
    "\n\\.\n",
    "a\tb\r\n",
    "\\N",
    "é😀",
    "null",
    "{}",
]

numbers = st.one_of(
    st.integers(-(2**64), 2**64),
    st.integers(-(2**53) - 2, 2**53 + 2),
    st.floats(allow_nan=False, allow_infinity=False),
)
texts = st.one_of(st.sampled_from(SPECIAL), st.text())
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
columns = st.sampled_from(
    [
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
        st.one_of(st.none(), st.booleans()),
        st.one_of(st.none(), texts),
        st.none(),
        numbers,
        scalars,
        st.one_of(scalars, st.lists(st.integers()), st.dictionaries(st.text(), scalars)),
    ]
)


@st.composite
def pages_of_records(draw: st.DrawFn) -> list[list[dict[str, Any]]]:
    """Pages whose records mostly have the same fields, and columns mostly one type."""
    names = draw(st.lists(st.one_of(st.sampled_from(["true", "a b"]), texts), max_size=4))
    kinds = {name: draw(columns) for name in names if name != "id"}
    pages = []
    for _ in range(draw(st.integers(1, 3))):
        records = [
            {"id": number} | {name: draw(kind) for name, kind in kinds.items()}
            for number in range(draw(st.integers(1, 4)))
        ]
        if draw(st.integers(0, 3)) == 0 and kinds:
            records[-1].pop(next(iter(kinds)))
        pages.append(records)
    return pages


def page_of(text: str) -> Page:
    """A page with an envelope around its records."""
    return Page(f'{{"n": 1, "v": {text}}}'.encode(errors="surrogatepass"), "page")


@settings(max_examples=1000)
@given(pages_of_records(), st.booleans(), st.sampled_from([None, 1]))
def test_a_table_holds_what_json_says(
    pages: list[list[dict[str, Any]]], is_ascii: bool, indent: int | None
) -> None:
    """Whatever the pages before it held: the types of one are tried on the next."""
    tables = TypedParser(ITEMS, {})
    for records in pages:
        page = page_of(json.dumps(records, ensure_ascii=is_ascii, indent=indent))
        read = tables.read(page)
        truth = json.loads(page.body)["v"]
        if read is None:
            tables.learn(RecordBatch(truth))
        else:
            check(read[0], truth)


def check(table: TypedBatch, truth: list[dict[str, Any]]) -> None:
    """Compare with the slow path, where a field that a record lacks is null."""
    slow = RecordBatch(truth)
    assert (table.natural, table.count) == (slow.natural, slow.count)
    assert table.beyond_double == slow.beyond_double
    assert table.records() == truth
    types = {name: kind for name, kind in table.natural.items() if kind}
    form, rows = table.copy_source(types)
    assert form == CSV
    wanted = [[record.get(name) for name in types] for record in truth]
    assert repr(values_of(rows.decode(), len(types))) == repr(wanted)


def values_of(text: str, width: int) -> list[list[Any]]:
    """The rows that COPY reads from CSV with a backslash as escape and null as null."""
    found = re.findall(r'(?:"((?:[^"\\]|\\.)*)"|([^",\n]+))([,\n])', text, re.DOTALL)
    assert "".join(f'"{t}"{end}' if not v else v + end for t, v, end in found) == text
    values = [json.loads(v) if v else re.sub(r"\\(.)", r"\1", t) for t, v, _ in found]
    return [values[start : start + width] for start in range(0, len(values), width)]


@pytest.mark.parametrize(
    "records",
    [
        '[{"id": 1, "a": 1, "b": "x"}, {"id": 2, "a": 2, "b": ""}]',
        '[{"id": 1, "a": null, "b": true}, {"id": 2, "a": 1.5, "b": false}]',
        '[{"id": 1, "is_true": true, "b": "it is true: yes"}]',
        '[{"id": 1, "b": "tabs \\t, quotes \\" and \\\\ backslashes"}]',
        '[{"id": 9223372036854775807}]',
        '[{"id": 1}, {"id": 2, "b": 1}]',
        '[{"id": 1, "b": 1, "b": 2}]',
        '[{"id": 1, "b": "\\\\."}, {"id": 2, "b": "null"}]',
        '[{"id": 1, "b": 9007199254740993}, {"id": 2, "b": null}]',
    ],
)
def test_plain_records_take_the_fast_way(records: str) -> None:
    read = TypedParser(ITEMS, {}).read(page_of(records))
    assert read is not None
    check(read[0], json.loads(records))


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ('[{"id": 1, "b": true}, {"id": 2, "b": 1}]', "a boolean and a number"),
        ('[{"id": 1, "b": "5"}, {"id": 2, "b": 5}]', "a text and a number"),
        ('[{"id": 1, "b": 1.5}, {"id": 2, "b": 9007199254740993}]', "a double would round it"),
        ('[{"id": 1, "b": {"c": 1}}]', "nested"),
        ('[{"id": 1, "b": [1]}]', "nested"),
        ('[{"id": 9223372036854775808}]', "beyond 64 bits"),
        ('[{"id": 1, "b": 1e999}]', "beyond double"),
        ('[{"id": 1, "b": "\\u0000"}]', "NUL"),
        ('[{"id": 1, "b": "\\ud800"}]', "half a surrogate pair"),
        ('[{"id": 1, "\\"": 1}]', "msgspec takes no such name"),
        ('[{"id": null}]', "no key"),
        ('[{"b": 1}]', "no key"),
        ('[{"id": 1}, 5]', "not an object"),
        ('{"id": 1}', "not a list"),
        ("[]", "nothing"),
        ('[{"id": 1}', "cut"),
    ],
)
def test_what_is_not_of_plain_types_takes_the_slow_way(records: str, why: str) -> None:
    assert TypedParser(ITEMS, {}).read(page_of(records)) is None, why


@pytest.mark.parametrize("name", ["*", "^.*$", "", "a.b", "field_0", "ö", "self", "class"])
def test_a_name_that_means_something_elsewhere_is_a_name(name: str) -> None:
    records = [{"id": 1, name: 2, "b": "x"}]
    read = TypedParser(ITEMS, {}).read(page_of(json.dumps(records, ensure_ascii=False)))
    assert read is not None
    check(read[0], records)


def test_the_partitions_fields_come_first() -> None:
    read = TypedParser(ITEMS, {"city": "London", "zone": 5, "none": None}).read(
        page_of('[{"id": 2}]')
    )
    assert read is not None
    natural = {"city": "text", "zone": "bigint", "none": None, "id": "bigint"}
    assert read[0].natural == natural
    assert read[0].copy_source({}) == (CSV, b'"London",5,2\n')
    assert read[0].records() == [{"city": "London", "zone": 5, "none": None, "id": 2}]


def test_other_record_functions_take_the_slow_way() -> None:
    arrays = Resource("items", "items", columns_at("v"), key=("id",))
    assert TypedParser(arrays, {}).read(page_of('{"id": [1]}')) is None


@pytest.mark.parametrize(
    "second",
    [
        pytest.param('[{"id": 2, "a": 3, "b": 5.5, "c": "x", "d": null}]', id="alike"),
        pytest.param('[{"id": 2, "a": 3.5, "b": 5.5, "c": "x", "d": null}]', id="a fraction"),
        pytest.param('[{"id": 2, "a": 3.0, "b": 5.5, "c": "x", "d": null}]', id="a double"),
        pytest.param('[{"id": 2, "a": true, "b": 5.5, "c": "x", "d": null}]', id="a boolean"),
        pytest.param('[{"id": 2, "a": 9223372036854775808, "b": 5.5}]', id="beyond 64 bits"),
        pytest.param('[{"id": 2, "a": 9007199254740993, "b": 5.5}]', id="beyond a double"),
        pytest.param('[{"id": 2, "a": 3, "b": 5, "c": "x", "d": null}]', id="integers, now"),
        pytest.param('[{"id": 2, "a": 3, "b": 5.5, "c": 7, "d": null}]', id="a number"),
        pytest.param('[{"id": 2, "a": 3, "b": 5.5, "c": "x", "d": 8}]', id="a first value"),
        pytest.param('[{"id": 2, "a": 3, "b": 5.5, "c": "x"}]', id="nulls are left out"),
        pytest.param('[{"id": 2, "a": 3, "b": 5.5, "c": null}]', id="nothing but nulls"),
        pytest.param('[{"id": 2, "a": 3, "b": 5.5, "d": null}]', id="a field is left out"),
        pytest.param('[{"id": 2, "a": 3, "c": "of b", "d": null}]', id="its name in a text"),
        pytest.param('[{"id": 2, "a": 3, "c": "\\"b\\"", "d": null}]', id="its name in quotes"),
        pytest.param('[{"id": 2, "a": 3, "b": 5.5, "c": "x", "e": 1}]', id="a new field"),
        pytest.param('[{"id": 2, "\\u0061": 3, "b": 5.5, "c": "x"}]', id="a name with an escape"),
    ],
)
def test_what_a_page_is_read_as_does_not_depend_on_the_one_before(second: str) -> None:
    """Read correctly or left to the slow path."""
    tables = TypedParser(ITEMS, {})
    assert tables.read(page_of('[{"id": 1, "a": 1, "b": 1.5, "c": "x", "d": null}]')) is not None
    read = tables.read(page_of(second))
    if read is not None:
        check(read[0], json.loads(second))
