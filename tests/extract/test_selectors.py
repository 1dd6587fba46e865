"""Promises of selectors: where records are found in a body, and which bodies are refused."""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract.selectors import columns_at, csv_rows, ndjson, record_at, records_at
from flows.load.typed_batch import TypedParser
from flows.page import Page
from flows.source import Resource, Rule
from tests.extract.reading import read, rows
from tests.http_servers import Answer, Serve

Records = Callable[[Page], list[Any]]

BOM = b"\xef\xbb\xbf"
JSON = "application/json"
HTML = b"<html>\n<body>Please log in</body>\n</html>"

KINDS: dict[str, tuple[Records, bytes, str]] = {
    "JSON": (records_at("items"), b'{"items": [{"id": 1}, {"id": 2}]}', JSON),
    "one object": (record_at("item"), b'{"item": {"id": 1}}', JSON),
    "columns": (columns_at("items"), b'{"items": {"id": [1, 2]}}', JSON),
    "NDJSON": (ndjson(), b'{"id": 1}\n{"id": 2}\n', "application/x-ndjson"),
    "CSV": (csv_rows(), b"id\n1\n2\n", "text/csv; charset=utf-8"),
}
every_kind = pytest.mark.parametrize(("records", "body", "kind"), KINDS.values(), ids=KINDS)


def page(body: bytes | Any, content_type: str = JSON) -> Page:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Page(raw, "http://api/orders", content_type)


def found(serve: Serve, records: Records, answer: Answer) -> list[Any]:
    """The records read from a server with one response."""
    return rows(read(serve(lambda _: answer).url, Resource("orders", "orders", records)))


@pytest.mark.parametrize(
    ("path", "document"),
    [("", [1, 2]), ("value", {"value": [1, 2]}), ("data.items", {"data": {"items": [1, 2]}})],
)
def test_records_are_found_at_the_root_or_below(path: str, document: Any) -> None:
    assert records_at(path)(page(document)) == [1, 2]
    assert json.loads(records_at(path).raw(page(document)) or b"") == [1, 2]


@pytest.mark.parametrize(
    ("path", "document", "said"),
    [
        ("", {"value": []}, "a list of records at 'its root', but there is ['value']"),
        ("value", {"value": {"a": 1}}, "a list of records at 'value', but there is ['a']"),
        ("value", {"value": None}, "but there is NoneType"),
        ("value", {"error": "busy"}, "the field 'value' at 'value', but there is ['error']"),
        ("data.items", {"data": [1]}, "the field 'items' at 'data.items', but there is list"),
    ],
)
def test_records_at_another_place_are_an_error_that_shows_what_is_there(
    path: str, document: Any, said: str
) -> None:
    with pytest.raises(BadPayloadError) as failure:
        records_at(path)(page(document))
    assert said in str(failure.value)


@pytest.mark.parametrize(("path", "document"), [("", {"a": 1}), ("b.c", {"b": {"c": {"a": 1}}})])
def test_a_single_object_is_one_record(path: str, document: Any) -> None:
    assert record_at(path)(page(document)) == [{"a": 1}]


@pytest.mark.parametrize("document", [[{"a": 1}], None, 1, "a"], ids=repr)
def test_a_single_object_that_is_none_is_an_error(document: Any) -> None:
    with pytest.raises(BadPayloadError, match="should have an object at"):
        record_at()(page(document))


def test_columns_become_records_with_their_nulls() -> None:
    daily = {"time": ["2024-01-01", "2024-01-02"], "rain": [None, 1.5]}
    assert columns_at("daily")(page({"daily": daily})) == [
        {"time": "2024-01-01", "rain": None},
        {"time": "2024-01-02", "rain": 1.5},
    ]


@pytest.mark.parametrize("daily", [{}, {"time": [], "rain": []}])
def test_columns_without_values_are_no_records(daily: dict[str, Any]) -> None:
    assert columns_at("daily")(page({"daily": daily})) == []


@pytest.mark.parametrize(
    ("daily", "said"),
    [
        ({"time": [1, 2], "rain": [1]}, "different lengths under 'daily': {'time': 2, 'rain': 1}"),
        ({"time": [1], "rain": None}, "an object of arrays"),
        ([1], "an object of arrays"),
    ],
)
def test_columns_that_can_shift_are_an_error(daily: Any, said: str) -> None:
    with pytest.raises(BadPayloadError) as failure:
        columns_at("daily")(page({"daily": daily}))
    assert said in str(failure.value)


@pytest.mark.parametrize(
    "body",
    [
        HTML,
        b'[{"id": 1}, {"id"',
        b'[{"id": NaN}]',
        b"[-Infinity]",
        b"",
        b"[" * 100_000,
    ],
    ids=["HTML", "cut", "NaN", "Infinity", "empty", "too deep"],
)
def test_a_body_that_is_not_json_is_an_error_that_shows_its_start(body: bytes) -> None:
    with pytest.raises(BadPayloadError) as failure:
        _ = page(body, "text/html").document
    assert "http://api/orders answered" in str(failure.value)
    assert f"they begin {' '.join(body[:200].decode().split())!r}" in str(failure.value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(
    st.lists(json_values, max_size=5),
    st.sampled_from(["\n", "\r\n", "\n\n", " \n\t"]),
    st.booleans(),
)
def test_lines_of_json_are_the_values_that_were_written(
    values: list[Any], line_end: str, is_ascii: bool
) -> None:
    body = "".join(json.dumps(value, ensure_ascii=is_ascii) + line_end for value in values)
    lines = page(body.encode(errors="replace"), "application/x-ndjson")
    assert ndjson()(lines) == [json.loads(line) for line in body.split("\n") if line.strip()]


@settings(max_examples=500)
@given(st.text(alphabet='[]{},:"\\ \n1ae', max_size=14))
@pytest.mark.parametrize("last_line", ["", '{"a": 1}'], ids=["alone", "before another"])
def test_lines_are_cut_out_as_they_are_or_not_at_all(last_line: str, text: str) -> None:
    """Lines that would be valid JSON only when joined are not joined."""
    lines = page(f"{text}\n{last_line}".encode(), "application/x-ndjson")
    raw = ndjson().raw(lines)
    if raw is not None:
        assert json.loads(raw) == ndjson()(lines)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1},{"a": 2}',
        b'{"a": [1\n2]},{"a": 3}',
        b'{"a": "one\ntwo"}',
        b'{"a": 1} {"a": 2}',
        b'{"a":\n1}',
        b'{"a": 1}\n{"a"',
        b'{"a": NaN}',
    ],
    ids=[
        "two a line",
        "a list over two lines",
        "text over two lines",
        "two without a comma",
        "one over two lines",
        "cut",
        "NaN",
    ],
)
def test_a_line_that_is_not_one_value_is_an_error_that_names_it(body: bytes) -> None:
    with pytest.raises(BadPayloadError, match="One of the lines is not JSON"):
        ndjson()(page(body, "application/x-ndjson"))
    assert ndjson().raw(page(body)) is None


def test_lines_of_json_become_a_table_as_fast_as_a_list_does() -> None:
    """And the same table: they don't go through Python objects."""
    records = [{"id": n, "name": f"n{n}", "price": n / 4, "is_new": n % 2 == 0} for n in range(9)]
    lines = page("\n".join(map(json.dumps, records)).encode(), "application/x-ndjson")
    fast = TypedParser(Resource("orders", "orders", ndjson()), {}).read(lines)
    as_list = TypedParser(Resource("orders", "orders", records_at()), {}).read(page(records))
    assert fast is not None
    assert as_list is not None
    assert fast[0].copy_source({}) == as_list[0].copy_source({})
    assert fast[0].natural == as_list[0].natural


def test_a_byte_order_mark_is_no_part_of_the_first_record() -> None:
    assert ndjson()(page(BOM + b'{"a": 1}\n{"a": 2}')) == [{"a": 1}, {"a": 2}]
    assert records_at()(page(BOM + b'[{"a": 1}]')) == [{"a": 1}]
    assert csv_rows()(page(BOM + b"a\n1\n")) == [{"a": "1"}]


values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)


@given(
    st.integers(2, 4).flatmap(
        lambda width: st.lists(st.lists(values, min_size=width, max_size=width), max_size=4)
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_csv_rows_are_the_values_that_were_written(
    cells: list[list[str]], delimiter: str, line_end: str, quoting: Any
) -> None:
    """With quotes, line breaks and delimiters in them; an empty one is null."""
    # csv.writer leaves a bare carriage return without its quotes.
    assume(quoting == csv.QUOTE_ALL or "\r" not in "".join(map("".join, cells)))
    names = [f"column {number}" for number in range(len(cells[0]) if cells else 1)]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerows([names, *cells])
    wanted = [
        {name: value or None for name, value in zip(names, row, strict=True)} for row in cells
    ]
    assert csv_rows(delimiter)(page(out.getvalue().encode(), "text/csv")) == wanted


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b"", []),
        (b"a,b\n", []),
        (b"a,b\r\n1,2", [{"a": "1", "b": "2"}]),
        (b"a,b\r1,2\r", [{"a": "1", "b": "2"}]),
        (b"\na,b\n\n1,2\n\n", [{"a": "1", "b": "2"}]),
        (b'a,b\n"",x\n', [{"a": None, "b": "x"}]),
        (b'a,b\n5" pipe,x\n', [{"a": '5" pipe', "b": "x"}]),
        (b"a,b\n1," + b"x" * 200_000, [{"a": "1", "b": "x" * 200_000}]),
    ],
    ids=[
        "nothing",
        "only names",
        "no line end at the end",
        "line ends of old",
        "empty lines",
        "an empty value in quotes",
        "a quote within a value",
        "a long value",
    ],
)
def test_csv_is_read_as_it_is_found(body: bytes, records: list[Any]) -> None:
    assert csv_rows()(page(body, "text/csv")) == records


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"a,b\n1,2\n3\n", "row 2 has 1 values for 2 names"),
        (b"a,b\n1,2,3\n", "row 1 has 3 values for 2 names"),
        (b"a,b,a\n1,2,3\n", "a name is repeated in its first line"),
        (b'a,b\n1,"2\n3,4\n', "unexpected end of data"),
        (b'a,b\n"1"x,2\n', "',' expected after '\"'"),
    ],
    ids=["short row", "long row", "doubled name", "open quote", "text after a quote"],
)
def test_csv_that_would_shift_values_is_an_error(body: bytes, said: str) -> None:
    with pytest.raises(BadPayloadError) as failure:
        csv_rows()(page(body, "text/csv"))
    assert said in str(failure.value)
    assert "http://api/orders answered text/csv that is not CSV as declared" in str(failure.value)


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b"", []),
        (b"1,x\n2,y\n", [{"id": "1", "name": "x"}, {"id": "2", "name": "y"}]),
        (b"1,x", [{"id": "1", "name": "x"}]),
        (b"\xef\xbb\xbf\n1,\n", [{"id": "1", "name": None}]),
        (b"1,1\n1,1\n", [{"id": "1", "name": "1"}] * 2),
    ],
    ids=["nothing", "two rows", "one row", "a byte order mark", "equal values"],
)
def test_csv_without_a_header_has_the_declared_names(body: bytes, records: list[Any]) -> None:
    assert csv_rows(names=("id", "name"))(page(body, "text/csv")) == records


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"id,name\n1,x\n", "its first line has the declared names.*csv_rows without names"),
        (b"1,x,2\n", "row 1 has 3 values for 2 names"),
        (b"1;x\n2;y\n", "row 1 has 1 values for 2 names.*delimiter is probably ';'"),
        (b"<html>,x\n", "like a web page"),
    ],
    ids=["a header after all", "another column", "another delimiter", "a web page"],
)
def test_csv_that_does_not_fit_its_declared_names_is_an_error(body: bytes, said: str) -> None:
    with pytest.raises(BadPayloadError, match=said):
        csv_rows(names=("id", "name"))(page(body, "text/csv"))


@pytest.mark.parametrize("names", ["id", ("id", "id")], ids=str)
def test_names_of_columns_are_different_texts(names: Any) -> None:
    with pytest.raises(ConfigurationError, match="write a tuple of different names"):
        csv_rows(names=names)


def test_declared_names_contain_the_key(serve: Serve) -> None:
    server = serve(lambda _: Answer(b"1,x\n", headers={"Content-Type": "text/csv"}))
    resource = Resource("orders", "orders", csv_rows(names=("number", "name")), key=("id",))
    with pytest.raises(ConfigurationError, match=r"orders: csv_rows.*lacks the key's id"):
        read(server.url, resource)


def test_a_single_line_is_a_record_where_names_are_declared(serve: Serve) -> None:
    """Servers send CSV as `text/plain`; without a header, one record is one line of text."""
    server = serve(lambda _: Answer(b"5\n", headers={"Content-Type": "text/plain"}))
    resource = Resource("orders", "orders", csv_rows(names=("id",)), key=("id",))
    assert rows(read(server.url, resource)) == [{"id": "5"}]


@pytest.mark.parametrize(
    ("body", "delimiter", "header", "likely"),
    [
        (b"id;name\n1;x\n", ",", "'id;name'", "';'"),
        (b"id;price\n1;3,50\n2;4,00\n", ",", "'id;price'", "';'"),
        (b"id\tname\n1\tx\n", ",", r"'id\\tname'", r"'\\t'"),
        (b"id|name|a\n1|x|y\n", ";", r"'id\|name\|a'", r"'\|'"),
        (b"id,name\n1,x\n", ";", "'id,name'", "','"),
    ],
    ids=["semicolon", "decimal commas", "tab", "bar", "comma"],
)
def test_csv_with_another_delimiter_is_an_error_that_names_the_likely_one(
    body: bytes, delimiter: str, header: str, likely: str
) -> None:
    said = f"delimiter {re.escape(repr(delimiter))} its first line is {header}.*probably {likely}"
    with pytest.raises(BadPayloadError, match=said):
        csv_rows(delimiter)(page(body, "text/csv"))


def test_a_single_column_may_have_any_name() -> None:
    body = b"name; first, then last\nEve\nMallory, A.; B.\n"
    assert csv_rows("|")(page(body, "text/csv")) == [
        {"name; first, then last": "Eve"},
        {"name; first, then last": "Mallory, A.; B."},
    ]


@every_kind
def test_a_body_of_the_declared_kind_is_read(
    serve: Serve, records: Records, body: bytes, kind: str
) -> None:
    wanted = records(page(body))
    assert wanted
    assert found(serve, records, Answer(body, headers={"Content-Type": kind})) == wanted


@every_kind
@pytest.mark.parametrize(
    "said", ["text/plain", "application/octet-stream", "Application/GZIP", None], ids=str
)
def test_a_content_type_that_says_nothing_is_passed_over(
    serve: Serve, records: Records, body: bytes, kind: str, said: str | None
) -> None:
    headers = {"Content-Type": said} if said else {}
    assert found(serve, records, Answer(body, headers=headers)) == records(page(body))


@every_kind
@pytest.mark.parametrize("said", ["text/html; charset=utf-8", "application/xml", "image/png"])
def test_another_content_type_is_an_error_that_shows_the_body(
    serve: Serve, records: Records, body: bytes, kind: str, said: str
) -> None:
    with pytest.raises(BadPayloadError) as failure:
        found(serve, records, Answer(HTML, headers={"Content-Type": said}))
    assert f"answered {said} where the source declares" in str(failure.value)
    assert "<html> <body>Please log in" in str(failure.value)


@every_kind
def test_a_login_page_that_is_called_records_is_an_error(
    serve: Serve, records: Records, body: bytes, kind: str
) -> None:
    with pytest.raises(BadPayloadError, match=r"<html>"):
        found(serve, records, Answer(HTML, headers={"Content-Type": kind}))


def test_a_function_of_ones_own_takes_any_content_type(serve: Serve) -> None:
    assert found(serve, lambda page: [{"size": len(page.body)}], Answer(b"%PDF", headers={})) == [
        {"size": 4}
    ]


@every_kind
def test_no_content_is_no_records(serve: Serve, records: Records, body: bytes, kind: str) -> None:
    server = serve(lambda _: Answer(b"", status=204, headers={}))
    pages = read(server.url, Resource("orders", "orders", records))
    assert [(page.is_empty, page.rows, page.resume) for page in pages] == [(True, [], None)]


@pytest.mark.parametrize("kind", ["NDJSON", "CSV"])
def test_an_empty_body_is_no_lines(serve: Serve, kind: str) -> None:
    records, _, content_type = KINDS[kind]
    assert found(serve, records, Answer(b"", headers={"Content-Type": content_type})) == []


@every_kind
@pytest.mark.parametrize("how", ["as an encoding", "as a file", "as both"])
def test_a_packed_body_is_unpacked(
    serve: Serve, records: Records, body: bytes, kind: str, how: str
) -> None:
    packed = gzip.compress(body)
    answers = {
        "as an encoding": Answer(
            packed, headers={"Content-Type": kind, "Content-Encoding": "gzip"}
        ),
        "as a file": Answer(packed, headers={"Content-Type": "application/gzip"}),
        "as both": Answer(
            gzip.compress(packed),
            headers={"Content-Type": "application/gzip", "Content-Encoding": "gzip"},
        ),
    }
    assert found(serve, records, answers[how]) == records(page(body))


def test_records_are_cut_out_of_a_page_as_they_were_written() -> None:
    lines = page(b'{"a": 1.50}\n{"a":2}\n', "application/x-ndjson")
    lines.find = ndjson()
    assert lines.rows == [msgspec.Raw(b'{"a": 1.50}'), msgspec.Raw(b'{"a":2}')]


@pytest.mark.parametrize("body", [b"Rate limit exceeded", b"Rate limit exceeded\n", b"key,name\n"])
@pytest.mark.parametrize("kind", ["text/plain", "text/csv"])
def test_csv_without_the_columns_of_the_key_is_an_error(
    serve: Serve, body: bytes, kind: str
) -> None:
    """It would count as a table of no rows, and empty the raw table of a `replace`."""
    server = serve(lambda _: Answer(body, headers={"Content-Type": kind}))
    resource = Resource("orders", "orders", csv_rows(), key=("id",))
    with pytest.raises(BadPayloadError, match=r"lacks the key's id") as failure:
        read(server.url, resource)
    assert body.decode().strip() in str(failure.value)


def test_a_line_of_text_is_no_csv_without_a_key_either(serve: Serve) -> None:
    server = serve(lambda _: Answer(b"Sorry, no.", headers={"Content-Type": "text/plain"}))
    with pytest.raises(BadPayloadError, match=r"'Sorry, no\.' is all it contains"):
        read(server.url, Resource("orders", "orders", csv_rows(";"), disposition="replace"))


@pytest.mark.parametrize("body", [b"id\n", b"\xef\xbb\xbf\n\nid,name\n", b"", b'name,"i\nd",id\n'])
def test_csv_of_names_alone_is_no_records(serve: Serve, body: bytes) -> None:
    """Also after a byte order mark and empty lines, and where a name has a line break."""
    server = serve(lambda _: Answer(body, headers={"Content-Type": "text/csv"}))
    assert rows(read(server.url, Resource("orders", "orders", csv_rows(), key=("id",)))) == []


@pytest.mark.parametrize(
    "document",
    [{}, {"data": None}, {"data": {}}, {"data": {"items": None}}, {"data": {"items": []}}],
)
def test_an_optional_list_may_be_null_or_missing(serve: Serve, document: Any) -> None:
    server = serve(lambda _: Answer(json.dumps(document).encode()))
    resource = Resource("orders", "orders", records_at("data.items", optional=True))
    assert rows(read(server.url, resource)) == []


@pytest.mark.parametrize("document", [[], {"data": []}, {"data": {"items": "none"}}, "none"])
def test_an_optional_list_can_be_nothing_else(serve: Serve, document: Any) -> None:
    server = serve(lambda _: Answer(json.dumps(document).encode()))
    resource = Resource("orders", "orders", records_at("data.items", optional=True))
    with pytest.raises(BadPayloadError, match=r"data\.items"):
        rows(read(server.url, resource))


def test_only_a_list_at_a_path_can_be_optional() -> None:
    with pytest.raises(ConfigurationError, match="path"):
        records_at(optional=True)


def partial_answer(errors: Any) -> Answer:
    """As in partial responses of GraphQL (https://spec.graphql.org/October2021/#sec-Errors)."""
    document = {"data": {"items": [{"id": 1}]}, "errors": errors}
    return Answer(json.dumps(document).encode())


@pytest.mark.parametrize("records", [records_at("data.items"), lambda page: page.document["data"]])
def test_errors_beside_data_fail_the_reading(serve: Serve, records: Any) -> None:
    server = serve(lambda _: partial_answer([{"message": "orders: timeout"}]))
    with pytest.raises(BadPayloadError, match=r"errors beside its data.*orders: timeout"):
        read(server.url, Resource("orders", "orders", records))


def test_errors_beside_data_may_be_accepted_by_a_rule(serve: Serve) -> None:
    server = serve(lambda _: partial_answer([{"message": "orders: deprecated"}]))
    rules = (Rule("accept", body='"message": "orders: deprecated"'),)
    resource = Resource("orders", "orders", records_at("data.items"), rules=rules)
    assert rows(read(server.url, resource)) == [{"id": 1}]


def test_a_rule_may_accept_the_records_of_an_answer_that_failed(serve: Serve) -> None:
    server = serve(lambda _: Answer(b'[{"id": 1}]', status=422))
    resource = Resource("orders", "orders", records_at(), rules=(Rule("accept", status=422),))
    assert rows(read(server.url, resource)) == [{"id": 1}]


@pytest.mark.parametrize("errors", [[], None, {}, ""])
def test_an_empty_list_of_errors_is_none(serve: Serve, errors: Any) -> None:
    server = serve(lambda _: partial_answer(errors))
    resource = Resource("orders", "orders", records_at("data.items"))
    assert rows(read(server.url, resource)) == [{"id": 1}]
