"""The fast way says what the slow way says, or leaves the page to it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.declaration import Page, Resource
from flows.extract.records import columns_at, records_at
from flows.load.frames import RecordFrame
from flows.load.tables import TableFrame, table_of

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
def uniform_records(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Records that mostly have the same fields, columns that mostly have one type."""
    names = draw(st.lists(st.one_of(st.sampled_from(["true", "a b"]), texts), max_size=4))
    kinds = {name: draw(columns) for name in names if name != "id"}
    records = [
        {"id": number} | {name: draw(kind) for name, kind in kinds.items()}
        for number in range(draw(st.integers(1, 4)))
    ]
    if draw(st.integers(0, 3)) == 0 and kinds:
        records[-1].pop(next(iter(kinds)))
    return records


def page_of(text: str) -> Page:
    """A page with an envelope around its records."""
    return Page(f'{{"n": 1, "v": {text}}}'.encode(errors="surrogatepass"), "page")


@settings(max_examples=1000, deadline=None)
@given(uniform_records(), st.booleans(), st.sampled_from([None, 1]))
def test_a_table_holds_what_json_says(
    records: list[dict[str, Any]], is_ascii: bool, indent: int | None
) -> None:
    page = page_of(json.dumps(records, ensure_ascii=is_ascii, indent=indent))
    table = table_of(page, ITEMS, {})
    if table is not None:
        truth = json.loads(page.body)["v"]
        slow = RecordFrame(truth)
        doubles = {name for name, kind in slow.natural.items() if kind == "double precision"}
        for record in truth:
            record.update({n: float(record[n]) for n in doubles if record[n] is not None})
        assert repr(table.records()) == repr(truth)
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
    ],
)
def test_plain_records_take_the_fast_way(records: str) -> None:
    assert isinstance(table_of(page_of(records), ITEMS, {}), TableFrame)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ('[{"id": 1, "b": true}, {"id": 2, "b": 1}]', "polars makes 1 of true"),
        ('[{"id": 1, "b": "5"}, {"id": 2, "b": 5}]', 'polars makes "5" of 5'),
        ('[{"id": 1, "b": 1.5}, {"id": 2, "b": 9007199254740993}]', "polars rounds the integer"),
        ('[{"id": 1, "b": 1}, {"id": 2}]', "a field is missing"),
        ('[{"id": 1, "b": 1, "b": 2}]', "json.loads takes the last one"),
        ('[{"id": 1, "b": {"c": 1}}]', "nested"),
        ('[{"id": 1, "b": [1]}]', "nested"),
        ('[{"id": 9223372036854775808}]', "beyond 64 bits"),
        ('[{"id": 1, "b": 1e999}]', "beyond double"),
        ('[{"id": 1, "b": "\\u0000"}]', "NUL"),
        ('[{"id": 1, "b": "\\ud800"}]', "half a surrogate pair"),
        ('[{"id": 1, "b": "\\\\."}]', "COPY's end marker"),
        ('[{"id": null}]', "no key"),
        ('[{"b": 1}]', "no key"),
        ('[{"id": 1}, 5]', "not an object"),
        ('{"id": 1}', "not a list"),
        ("[]", "nothing"),
        ('[{"id": 1}', "cut"),
    ],
)
def test_what_polars_would_change_takes_the_slow_way(records: str, why: str) -> None:
    assert table_of(page_of(records), ITEMS, {}) is None, why


@pytest.mark.parametrize("name", ["*", "^.*$", "^b$", "", "a.b", '"'])
def test_a_name_that_means_something_elsewhere_is_a_name(name: str) -> None:
    table = table_of(page_of(json.dumps([{"id": 1, name: 2, "b": "x"}])), ITEMS, {})
    assert table is not None
    assert table.natural == {"id": "bigint", name: "bigint", "b": "text"}
    types = {field: str(kind) for field, kind in table.natural.items()}
    assert table.copy_source(types) == ("csv", b'1,2,"x"\n')


def test_the_partitions_fields_come_first_and_clash_with_none() -> None:
    page = page_of('[{"id": 1}, {"id": 2}]')
    table = table_of(page, ITEMS, {"city": "London", "zone": 5})
    assert table is not None
    assert table.records()[1] == {"city": "London", "zone": 5, "id": 2}
    assert list(table.natural.values()) == ["text", "bigint", "bigint"]
    assert table_of(page, ITEMS, {"id": 7}) is None


def test_other_record_functions_take_the_slow_way() -> None:
    arrays = Resource("items", "items", columns_at("v"), key=("id",))
    assert table_of(page_of('{"id": [1]}'), arrays, {}) is None
