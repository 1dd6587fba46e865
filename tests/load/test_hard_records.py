"""Promises about records at the limits of JSON, Python and Postgres: stored or rejected.

Whatever becomes of such a record, the rows beside it are loaded.
"""

import json
import random
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from string import ascii_letters
from typing import Any, NoReturn

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract.selectors import records_at
from flows.load import batch, parse, raw_records
from flows.source import Cursor, Disposition, Partition
from tests.load.memory_api import WAYS, in_python, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

IDS = "select id::text from raw_shop.items order by 1"
VALUE = "select v from raw_shop.items where id = 2"
WIDEST = 1598
BIG = 2**64

BY_WAY = pytest.mark.parametrize("way", WAYS)


def beside(record: str) -> bytes:
    """A page with the record between two that nobody minds."""
    return f'[{{"id": 1}}, {record}, {{"id": 3}}]'.encode()


def wide(count: int, value: Any) -> dict[str, Any]:
    """So many fields of a value, `id` among them."""
    return {"id": 2} | {f"c{number}": value for number in range(count - 1)}


def give_up(_: object) -> NoReturn:
    """As Python does with what is nested too deeply."""
    raise RecursionError


def nested(depth: int, value: str = "1") -> str:
    return "[" * depth + value + "]" * depth


STORED = [
    pytest.param('"%s"' % ("x" * 10_000_000), id="a string of 10 MB"),
    pytest.param('"%s"' % (r"\ud83d\ude00" * 1000), id="escaped pairs"),
    pytest.param(nested(500), id="nested 500 times"),
    pytest.param(nested(500, r'"\ud83d\ude00 1e999"'), id="nested 500 times and suspect"),
    pytest.param(str(BIG), id="an integer beyond 64 bits"),
    pytest.param(str(-BIG), id="a negative one"),
    pytest.param("7" * 4000, id="an integer of 4,000 digits"),
    pytest.param(f'{{"a": [{BIG}, {"7" * 4000}]}}', id="such integers within"),
    pytest.param("1.7976931348623157e308", id="the largest double"),
    pytest.param("5e-324", id="the smallest double"),
    pytest.param('{"": {"": []}}', id="empty names and lists within"),
]  # fmt: skip


@pytest.mark.parametrize("value", STORED)
def test_a_value_is_stored_as_it_is(connection: Connection, query: Query, value: str) -> None:
    load_pages(connection, beside(f'{{"id": 2, "v": {value}}}'))
    assert query(IDS) == [("1",), ("2",), ("3",)]
    [(stored,)] = query(VALUE)
    said = json.loads(value)
    assert stored == said or stored == str(said)


REJECTED = [
    pytest.param(f'{{"id": 2, "v": {"7" * 5000}}}', "5000 characters in", id="5,000 digits"),
    pytest.param(f'{{"id": 2, "v": [{"7" * 5000}]}}', "'v[0]'", id="5,000 digits within"),
    pytest.param(json.dumps(wide(WIDEST + 1, True)), "columns", id="a column too many"),
    pytest.param(json.dumps(wide(1200, 10**15)), "row is too big", id="over 8,160 bytes"),
    pytest.param(f'{{"id": "{"k" * 2671}"}}', "key of 2671 bytes", id="a long key"),
    pytest.param(f'{{"id": "{"ö" * 1336}"}}', "key of 2672 bytes", id="a long key in UTF-8"),
    pytest.param(f'{{"id": {json.dumps(list(range(200)))}}}', "key of", id="a long nested key"),
    pytest.param(f'{{"id": {"7" * 4000}}}', "key of 4000 bytes", id="a key of 4,000 digits"),
    pytest.param('{"id": null, "v": 1}', "null in the field 'id'", id="a null key"),
]  # fmt: skip


BESIDES_MERGE = [
    pytest.param(*record.values, disposition, True, id=f"{record.id}, {disposition}")
    for record in REJECTED
    if record.id in {"over 8,160 bytes", "a long key"}
    for disposition in ("append", "replace")
]


@pytest.mark.parametrize(
    ("record", "reason", "disposition", "is_first"),
    [
        *(pytest.param(*each.values, "merge", True, id=f"{each.id}") for each in REJECTED),
        *(pytest.param(*each.values, "merge", False, id=f"{each.id}, later") for each in REJECTED),
        *BESIDES_MERGE,
    ],
)
def test_a_record_is_set_aside_and_the_others_are_loaded(
    connection: Connection,
    query: Query,
    record: str,
    reason: str,
    disposition: Disposition,
    is_first: bool,
) -> None:
    if not is_first:
        load_pages(connection, [{"id": 5}])
        query("delete from raw_shop.items")
    page = beside(record)
    entry = load_pages(connection, page, [{"id": 4}], disposition=disposition, max_rejects=1)
    assert (entry.inserted, entry.rejected) == (3, 1)
    assert query(IDS) == [("1",), ("3",), ("4",)]
    [(kept, why)] = query("select record, reason from elt.rejects")
    assert kept == record
    assert reason in why


def test_a_page_that_is_nested_beyond_all_measure_is_an_error_at_once(
    connection: Connection,
) -> None:
    with pytest.raises(BadPayloadError, match="recursion"):
        load_pages(connection, beside(f'{{"id": 2, "v": {nested(100_000)}}}'))


@pytest.mark.parametrize(
    "record",
    ['{"id": 2, "v": %s}', '{"id": %s}', r'{"id": 2, "v": %s, "w": "\ud800"}'],
    ids=["a value", "a key", "a suspect one"],
)
@pytest.mark.parametrize("depth", [950, 970, 984, 985, 986, 987])
def test_a_record_near_the_depth_that_python_reads_is_stored_or_rejected(
    connection: Connection, query: Query, record: str, depth: int
) -> None:
    """Where exactly its parser and its writer give up depends on Python's version."""
    sent = record % nested(depth)
    entry = load_pages(connection, beside(sent), max_rejects=1)
    assert (entry.extracted, entry.inserted + entry.rejected) == (3, 3)
    assert {("1",), ("3",)} <= set(query(IDS))
    assert query("select record from elt.rejects") == [(sent,)] * entry.rejected


def test_a_key_deeper_than_python_writes_is_set_aside(
    connection: Connection, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some versions of Python read a little deeper than they write."""
    monkeypatch.setattr(batch, "json_text", give_up)
    load_pages(connection, beside('{"id": [2]}'), max_rejects=1)
    assert query(IDS) == [("1",), ("3",)]
    [(reason,)] = query("select reason from elt.rejects")
    assert "nested too deeply" in reason


def test_a_record_deeper_than_postgres_reads_is_set_aside(
    connection: Connection, query: Query
) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute("set max_stack_depth = '100kB'")
    load_pages(connection, beside(f'{{"id": 2, "v": {nested(880)}}}'), max_rejects=1)
    assert query(IDS) == [("1",), ("3",)]
    assert "stack depth" in query("select reason from elt.rejects")[0][0]


def test_a_record_too_deep_to_be_rejected_is_an_error_with_a_remedy(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only if a source's own function returned it, because then it can't be cut out."""
    for module in (raw_records, parse):
        monkeypatch.setattr(module, "json_text", give_up)
    with pytest.raises(BadPayloadError, match=r"nested too deeply.*`records`"):
        load_pages(connection, beside('{"v": 1}'), records=in_python)


@pytest.mark.parametrize("key", [("id",), ()], ids=["merge", "append"])
def test_a_table_may_have_all_the_columns_that_postgres_has(
    connection: Connection, query: Query, key: tuple[str, ...]
) -> None:
    """Postgres' 1,600 less our own two; then there is room for new rows, not for new columns."""
    declared: dict[str, Any] = {"key": key, "max_rejects": 1}
    assert load_pages(connection, [wide(WIDEST, True)], **declared).inserted == 1
    more = [wide(WIDEST, False), {"id": 3, "c0": True}, {"id": 4, "another": 1}]
    entry = load_pages(connection, more, **declared)
    assert (entry.inserted, entry.updated) == ((1, 1) if key else (2, 0))
    again = load_pages(connection, more, **declared)
    assert (again.unchanged, again.rejected) == ((2, 1) if key else (0, 1))
    assert "1600" in query("select distinct reason from elt.rejects")[0][0]
    assert query("select id from raw_shop.items where c0 order by 1")[-1] == (3,)


def test_columns_that_were_dropped_leave_no_room(connection: Connection, query: Query) -> None:
    load_pages(connection, [wide(WIDEST, True)])
    query("alter table raw_shop.items drop c0, drop c1")
    pages = [[{"id": 3, "new": 1}], [{"id": 4, "c2": True}]]
    entry = load_pages(connection, *pages, max_rejects=1)
    assert (entry.inserted, entry.rejected) == (1, 1)


@pytest.mark.parametrize("count", [1015, 1014], ids=["over by our own columns", "just right"])
@pytest.mark.parametrize("disposition", ["merge", "replace"])
def test_a_row_is_measured_with_all_that_its_table_adds(
    connection: Connection, query: Query, count: int, disposition: str
) -> None:
    """The stage has one column of ours, the table two: 8,168 bytes where 8,160 are."""
    load_pages(connection, [{"id": 1}])
    page = [{"id": 1}, {"id": 2} | {f"c{n}": 10**15 for n in range(count)}, {"id": 3}]
    entry = load_pages(connection, page, disposition=disposition, max_rejects=1)
    assert (entry.inserted, entry.rejected) == ((1, 1) if count == 1015 else (2, 0))


def test_a_row_is_measured_in_the_types_of_its_table(connection: Connection, query: Query) -> None:
    """Of numbers it has 5,600 bytes, of texts over 11,000."""
    texts = {f"c{number}": "x" for number in range(700)}
    load_pages(connection, [{"id": 1} | texts])
    page = [{"id": 2} | dict.fromkeys(texts, 10**15), {"id": 3}]
    entry = load_pages(connection, page, max_rejects=1)
    assert (entry.inserted, entry.rejected) == (1, 1)


POSITIONS = [
    pytest.param({}, {"id": BIG}, f"{BIG}", id="in the key"),
    pytest.param({"key": ("id", "sub")}, {"id": 1, "sub": BIG}, "1", id="in a part of it"),
    pytest.param({}, {"id": 1, "v": [BIG]}, "1", id="within an array"),
    pytest.param({"key": ()}, {"id": BIG}, f"{BIG}", id="without a key"),
    pytest.param({"columns": {"id": "numeric"}}, {"id": BIG}, f"{BIG}", id="pinned"),
]


@BY_WAY
@pytest.mark.parametrize(("changes", "record", "stored"), POSITIONS)
def test_an_integer_beyond_64_bits_is_exact_wherever_it_stands(
    connection: Connection,
    query: Query,
    changes: dict[str, Any],
    record: dict[str, Any],
    stored: str,
    way: str,
) -> None:
    for _ in range(2):
        load_pages(connection, [record], records=WAYS[way], **changes)
    assert query("select distinct id::text from raw_shop.items") == [(stored,)]
    assert query("select bool_or(to_jsonb(i)::text ~ %s) from raw_shop.items i", str(BIG)) == [
        (True,)
    ]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        pytest.param(BIG, f"{BIG}", id="an integer beyond 64 bits"),
        pytest.param(1.5, "1.5", id="a fraction"),
        pytest.param(True, "true", id="a boolean"),
        pytest.param(date(2024, 3, 1), "2024-03-01", id="a date of a parent's row"),
        pytest.param(Decimal("1.50"), "1.50", id="an exact number of a parent's row"),
    ],
)
@pytest.mark.parametrize("disposition", ["merge", "replace"])
def test_a_partitions_own_value_is_stored_whatever_it_is(
    connection: Connection, query: Query, value: Any, stored: str, disposition: str
) -> None:
    partition = Partition("one", {"of": value})
    declared: dict[str, Any] = {
        "key": ("of", "id"),
        "partitions": (partition,),
        "partition_columns": ("of",),
        "disposition": disposition,
    }
    for _ in range(2):
        load_pages(connection, [{"id": 1}], partition=partition, **declared)
    assert query("select of::text, id from raw_shop.items") == [(stored, 1)]


@pytest.mark.parametrize("key", [("id",), ()], ids=["keyed", "keyless"])
def test_an_empty_object_is_set_aside_in_a_partition_too(
    connection: Connection, query: Query, key: tuple[str, ...]
) -> None:
    partition = Partition("one", {"of": 1})
    declared: dict[str, Any] = {"partitions": (partition,), "partition_columns": ("of",)}
    page = [{}, {"id": 1}]
    load_pages(connection, page, partition=partition, key=key, max_rejects=1, **declared)
    assert query("select record, reason from elt.rejects") == [("{}", "is an empty object")]


@BY_WAY
@pytest.mark.parametrize(
    ("size_bytes", "columns", "is_stored"),
    [
        pytest.param(2670, 1, True, id="one column"),
        pytest.param(2671, 1, False, id="one column, a byte more"),
        pytest.param(64, 32, True, id="as many columns as a key may have"),
        pytest.param(65, 32, False, id="as many, a byte more in each"),
    ],
)
def test_a_key_that_is_stored_fits_into_its_index(
    connection: Connection,
    query: Query,
    size_bytes: int,
    columns: int,
    is_stored: bool,
    way: str,
) -> None:
    """Random letters, since Postgres compresses what it can."""
    letters = random.Random(size_bytes)  # noqa: S311 - not a secret
    record = {
        f"k{number}": "".join(letters.choices(ascii_letters, k=size_bytes))
        for number in range(columns)
    }
    declared = {"key": tuple(record), "max_rejects": 1, "records": WAYS[way]}
    short = dict.fromkeys(record, "x")
    for _ in range(2):
        assert load_pages(connection, [record, short], **declared).rejected == (not is_stored)
    assert query("select count(*) from raw_shop.items") == [(1 + is_stored,)]


def test_a_nested_key_that_is_stored_fits_into_its_index(
    connection: Connection, query: Query
) -> None:
    """The largest jsonb for its text: single digits in a list."""
    digits = random.Random(1)  # noqa: S311 - not a secret
    for count in (100, 150, 177, 200, 400):
        page = [{"id": [digits.randrange(10) for _ in range(count)]}]
        load_pages(connection, page, max_rejects=1)
    assert query("select count(*), max(jsonb_array_length(id)) > 150 from raw_shop.items") == [
        (3, True)
    ]


SAME = [{"id": 1, "v": text} for text in "abc"]


@BY_WAY
@pytest.mark.parametrize("is_first", [True, False], ids=["into a new table", "into one with rows"])
@pytest.mark.parametrize(
    ("pages", "checkpoint_rows", "counts"),
    [
        pytest.param([SAME], 1, (1, 0, 2), id="in a page"),
        pytest.param([[one] for one in SAME], 9, (1, 0, 2), id="in a checkpoint"),
        pytest.param([[one] for one in SAME], 1, (1, 2, 0), id="across checkpoints"),
        pytest.param([[SAME[2]]] * 3, 1, (1, 0, 2), id="across checkpoints, the same"),
    ],
)
def test_the_last_of_a_key_wins_and_the_others_are_counted(
    connection: Connection,
    query: Query,
    pages: list[Any],
    checkpoint_rows: int,
    counts: tuple[int, int, int],
    is_first: bool,
    way: str,
) -> None:
    """Within a checkpoint as unchanged; a row that was committed in between is updated.

    In a new table, which gets its key in the end, all but the last one count as unchanged.
    """
    if is_first:
        counts = (1, 0, 2)
    else:
        load_pages(connection, [{"id": 0, "v": "z"}])
    declared = {"checkpoint_rows": checkpoint_rows, "records": WAYS[way]}
    entry = load_pages(connection, *pages, **declared)
    assert (entry.inserted, entry.updated, entry.unchanged) == counts
    assert query("select v from raw_shop.items where id = 1") == [("c",)]


@pytest.mark.parametrize(
    "pages",
    [
        pytest.param([[{"id": 1, "v": "a"}, {"id": "1", "v": "b"}]], id="on a page"),
        pytest.param([[{"id": 1, "v": "a"}], [{"id": "1", "v": "b"}]], id="in a checkpoint"),
        pytest.param([[{"id": "1", "v": "a"}], [{"id": 1, "v": "b"}]], id="the text first"),
    ],
)
def test_in_a_key_that_is_text_a_number_and_its_text_are_one(
    connection: Connection, query: Query, pages: list[Any]
) -> None:
    entry = load_pages(connection, *pages, checkpoint_rows=9)
    assert (entry.inserted, entry.unchanged) == (1, 1)
    assert query("select id, v from raw_shop.items") == [("1", "b")]
    assert load_pages(connection, [{"id": 1, "v": "c"}]).updated == 1
    assert query("select id, v from raw_shop.items") == [("1", "c")]


@pytest.mark.parametrize("is_first", [True, False], ids=["into a new table", "into one with rows"])
def test_the_last_of_a_key_wins_when_the_pages_are_read_in_different_ways(
    connection: Connection, query: Query, is_first: bool
) -> None:
    """A nested value takes the slower path; the partition's own field is part of the key."""
    shop = Partition("north", {"shop": "north"})
    declared = {
        "key": ("shop", "id"),
        "partitions": (shop,),
        "partition_columns": ("shop",),
        "checkpoint_rows": 9,
    }
    if not is_first:
        load_pages(connection, [{"id": 1, "v": "old"}], partition=shop, **declared)
    pages = [[{"id": 1, "v": {"b": 1}}], [{"id": 1, "v": "c"}]]
    assert load_pages(connection, *pages, partition=shop, **declared).unchanged == 1
    assert query("select id, v::text from raw_shop.items") == [(1, '"c"')]


def test_names_over_63_bytes_stay_apart(connection: Connection, query: Query) -> None:
    fields = ["n" * 63, "n" * 64, "ö" * 40, "ö" * 41]
    for _ in range(2):
        load_pages(connection, [{"id": 1} | {name: name for name in fields}])
    [row] = query("select to_jsonb(items) - '{id,_load_id,_loaded_at}'::text[] from raw_shop.items")
    assert sorted(row[0].values()) == sorted(fields)
    assert max(len(name.encode()) for name in row[0]) == 63


def test_a_key_may_have_a_name_over_63_bytes(connection: Connection, query: Query) -> None:
    name = "n" * 80
    for v in (1, 2):
        load_pages(connection, [{name: 1, "v": v}], key=(name,))
    assert query("select v from raw_shop.items") == [(2,)]


@BY_WAY
@pytest.mark.parametrize("value", [{"a": 1}, [1], 5, 1.5, True, "soon", ""], ids=str)
def test_a_cursor_that_holds_no_time_is_an_error_that_says_so(
    connection: Connection, query: Query, value: Any, way: str
) -> None:
    page = [{"id": 1, "at": "2024-01-01"}, {"id": 2, "at": value}]
    with pytest.raises(BadPayloadError, match="not an ISO 8601 date or time") as failure:
        load_pages(connection, page, cursor=Cursor("at"), records=WAYS[way])
    assert (value if isinstance(value, str) else json.dumps(value)) in str(failure.value)
    assert query("select state from elt.loads") == [("failed",)]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(b"", "0 bytes", id="nothing"),
        pytest.param(b" \n", "not JSON", id="white space"),
        pytest.param(b"null", "a list of records", id="null"),
        pytest.param(b'{"error": 1}', "a list of records", id="an object"),
        pytest.param(b'[{"id": 2}', "not JSON", id="cut off"),
        pytest.param(b'[{"id": 2, "v": NaN}]', "NaN is not a JSON number", id="NaN"),
        pytest.param(
            b'[{"id": 2, "v": "\xff"}]', "not utf-8: byte 0xff at position 17", id="no UTF-8"
        ),
    ],
)
def test_a_body_that_holds_no_records_is_an_error_and_earlier_pages_stay(
    connection: Connection, query: Query, body: bytes, said: str
) -> None:
    with pytest.raises(BadPayloadError, match=said):
        load_pages(connection, [{"id": 1}], body)
    assert query(IDS) == [("1",)]


@pytest.mark.parametrize("body", ["[]", " [ ] ", '{"v": []}'])
def test_no_records_are_no_error(connection: Connection, body: str) -> None:
    entry = load_pages(connection, body.encode(), records=records_at("v" if "v" in body else ""))
    assert (entry.state, entry.pages, entry.extracted) == ("succeeded", 1, 0)


def test_a_value_that_does_not_fit_a_column_altered_by_hand_is_rejected(
    connection: Connection, query: Query
) -> None:
    """As in a pinned column: the column is not changed, and the value is not rounded."""
    load_pages(connection, [{"id": 1, "v": 1}])
    query("alter table raw_shop.items alter v type integer")
    page = [{"id": n, "v": v} for n, v in enumerate([5, 1.5, "x", 2**40, None])]
    load_pages(connection, page, max_rejects=3)
    assert query("select id, v from raw_shop.items order by id") == [(0, 5), (1, 1), (4, None)]


def test_what_was_added_by_hand_and_refuses_a_row_is_a_configuration_error(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": "a"}])
    query("create index by_v on raw_shop.items (v)")
    letters = "".join(random.Random(1).choices(ascii_letters, k=4000))  # noqa: S311
    with pytest.raises(ConfigurationError, match=r"\"by_v\".*added to its raw table by hand"):
        load_pages(connection, [{"id": 2, "v": letters}])
