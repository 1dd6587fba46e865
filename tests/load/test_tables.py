"""The fast way says what the slow way says, or leaves the page to it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.declaration import Page, Resource
from flows.extract.records import columns_at, records_at
from flows.load.frames import RecordFrame
from flows.load.tables import TableFrame, Tables

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


@settings(max_examples=1000, deadline=None)
@given(pages_of_records(), st.booleans(), st.sampled_from([None, 1]))
def test_a_table_holds_what_json_says(
    pages: list[list[dict[str, Any]]], is_ascii: bool, indent: int | None
) -> None:
    """Whatever the pages before it held: what polars made of one is tried on the next."""
    tables = Tables(ITEMS, {})
    for records in pages:
        page = page_of(json.dumps(records, ensure_ascii=is_ascii, indent=indent))
        table = tables.read(page)
        assert (table is None) == (Tables(ITEMS, {}).read(page) is None)
        if table is not None:
            check(table, json.loads(page.body)["v"])


def check(table: TableFrame, truth: list[dict[str, Any]]) -> None:
    """Compare with the slow way, where a field that a record lacks is null."""
    slow = RecordFrame(truth)
    doubles = {name for name, kind in slow.natural.items() if kind == "double precision"}
    complete = [{name: record.get(name) for name in slow.natural} for record in truth]
    for record in complete:
        record.update({n: float(record[n]) for n in doubles if record[n] is not None})
    found = [{name: record[name] for name in slow.natural} for record in table.table.to_dicts()]
    assert repr(found) == repr(complete)
    assert table.records() == truth
    assert (table.natural, table.count) == (slow.natural, slow.count)
    assert table.beyond_double == slow.beyond_double


@pytest.mark.parametrize(
    "records",
    [
        '[{"id": 1, "a": 1, "b": "x"}, {"id": 2, "a": 2, "b": ""}]',
        '[{"id": 1, "a": null, "b": true}, {"id": 2, "a": 1.5, "b": false}]',
        '[{"id": 1, "is_true": true, "b": "it is true: yes"}]',
        '[{"id": 1, "b": "tabs \\t, quotes \\" and \\\\ backslashes"}]',
        '[{"id": 9223372036854775807}]',
        '[{"id": 1}, {"id": 2, "b": 1}]',
    ],
)
def test_plain_records_take_the_fast_way(records: str) -> None:
    assert isinstance(Tables(ITEMS, {}).read(page_of(records)), TableFrame)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ('[{"id": 1, "b": true}, {"id": 2, "b": 1}]', "polars makes 1 of true"),
        ('[{"id": 1, "b": "5"}, {"id": 2, "b": 5}]', 'polars makes "5" of 5'),
        ('[{"id": 1, "b": 1.5}, {"id": 2, "b": 9007199254740993}]', "polars rounds the integer"),
        ('[{"id": 1, "b": 1, "b": 2}]', "json.loads takes the last one"),
        ('[{"id": 1, "b": {"c": 1}}]', "nested"),
        ('[{"id": 1, "b": [1]}]', "nested"),
        ('[{"id": 9223372036854775808}]', "beyond 64 bits"),
        ('[{"id": 1, "b": 1e999}]', "beyond double"),
        ('[{"id": 1, "b": "\\u0000"}]', "NUL"),
        ('[{"id": 1, "b": "\\ud800"}]', "half a surrogate pair"),
        ('[{"id": 1, "b": "\\\\."}]', "COPY's end marker"),
        ('[{"id": 1, "\\"": 1}]', "msgspec takes no such name"),
        ('[{"id": null}]', "no key"),
        ('[{"b": 1}]', "no key"),
        ('[{"id": 1}, 5]', "not an object"),
        ('{"id": 1}', "not a list"),
        ("[]", "nothing"),
        ('[{"id": 1}', "cut"),
    ],
)
def test_what_polars_would_change_takes_the_slow_way(records: str, why: str) -> None:
    assert Tables(ITEMS, {}).read(page_of(records)) is None, why


@pytest.mark.parametrize("name", ["*", "^.*$", "^b$", "", "a.b", "field_0"])
def test_a_name_that_means_something_elsewhere_is_a_name(name: str) -> None:
    table = Tables(ITEMS, {}).read(page_of(json.dumps([{"id": 1, name: 2, "b": "x"}])))
    assert table is not None
    assert table.natural == {"id": "bigint", name: "bigint", "b": "text"}
    types = {field: str(kind) for field, kind in table.natural.items()}
    assert table.copy_source(types) == ("csv", b'1,2,"x"\n')


def test_the_partitions_fields_come_first_and_clash_with_none() -> None:
    page = page_of('[{"id": 1}, {"id": 2}]')
    table = Tables(ITEMS, {"city": "London", "zone": 5}).read(page)
    assert table is not None
    assert table.table.to_dicts()[1] == table.records()[1] == {"city": "London", "zone": 5, "id": 2}
    assert list(table.natural.values()) == ["text", "bigint", "bigint"]
    assert Tables(ITEMS, {"id": 7}).read(page) is None


def test_other_record_functions_take_the_slow_way() -> None:
    arrays = Resource("items", "items", columns_at("v"), key=("id",))
    assert Tables(arrays, {}).read(page_of('{"id": [1]}')) is None


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ('[{"id": 2, "a": 3, "b": 5.5, "c": "x", "d": null}]', "alike"),
        ('[{"id": 2, "a": 3.5, "b": 5.5, "c": "x", "d": null}]', "polars makes 3 of 3.5"),
        ('[{"id": 2, "a": 3.0, "b": 5.5, "c": "x", "d": null}]', "polars makes 3 of 3.0"),
        ('[{"id": 2, "a": true, "b": 5.5, "c": "x", "d": null}]', "polars makes 1 of true"),
        ('[{"id": 2, "a": 9223372036854775808, "b": 5.5, "c": "x"}]', "polars makes null of it"),
        ('[{"id": 2, "a": 3, "b": 5, "c": "x", "d": null}]', "integers, now"),
        ('[{"id": 2, "a": 3, "b": 5.5, "c": 7, "d": null}]', 'polars makes "7" of 7'),
        ('[{"id": 2, "a": 3, "b": 5.5, "c": "x", "d": 8}]', "a first value"),
        ('[{"id": 2, "a": 3, "b": 5.5, "c": "x"}]', "a column of nulls is missing"),
        ('[{"id": 2, "a": 3, "b": 5.5, "d": null}]', "a column is missing"),
        ('[{"id": 2, "a": 3, "b": 5.5, "c": "x", "d": null, "e": 1}]', "polars drops e"),
        ('[{"id": 2, "a": 3, "b": 5.5, "e": "x", "d": null}]', "as many quotes, polars drops e"),
    ],
)
def test_what_a_page_is_read_as_does_not_depend_on_the_one_before(second: str, why: str) -> None:
    tables = Tables(ITEMS, {})
    assert tables.read(page_of('[{"id": 1, "a": 1, "b": 1.5, "c": "x", "d": null}]')) is not None
    after, alone = tables.read(page_of(second)), Tables(ITEMS, {}).read(page_of(second))
    assert (after is None) == (alone is None), why
    if after is not None:
        check(after, json.loads(second))
