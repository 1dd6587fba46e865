"""Promises of pinned columns: a value is stored unchanged, or set aside with the reason."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import BadPayloadError, ConfigurationError
from flows.extract.selectors import records_at
from flows.load.pins import Pins, form_of
from flows.load.typed_batch import TypedParser
from flows.page import Page
from flows.postgres import session
from flows.source import Partition, Resource
from tests.load.memory_api import WAYS, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

each_way = pytest.mark.parametrize("way", WAYS)

# Per type: the values that it stores, with the text that Postgres then shows; and those that it
# would change, or refuses.
PINNED: dict[str, tuple[dict[Any, str], list[Any]]] = {
    "date": (
        {
            "2026-04-03": "2026-04-03",
            "20260403": "2026-04-03",
            "2026-04-03T00:00:00": "2026-04-03",
            "2026-04-03 00:00:00.000Z": "2026-04-03",
        },
        [
            "03/04/2026",
            "03.04.2026",
            "2026-04-03T09:30:00Z",
            "2026-04-03T00:00:00+02:00",
            "3 April 2026",
            "today",
            "infinity",
            "2026-04-31",
            "2026-093",
            "2026-13-01",
            "٢٠٢٦-٠٤-٠٣",
            "",
            1,
        ],
    ),
    "timestamptz": (
        {
            "2026-04-03T09:30:00Z": "2026-04-03 09:30:00+00",
            "2026-04-03T09:30:00": "2026-04-03 09:30:00+00",
            "2026-04-03 09:30": "2026-04-03 09:30:00+00",
            "2026-04-03": "2026-04-03 00:00:00+00",
            "2026-04-03T09:30:00.123456-02:30": "2026-04-03 12:00:00.123456+00",
            "2026-04-03T09:30:00.1234560Z": "2026-04-03 09:30:00.123456+00",
            "2026-04-03 09:30:00 +0200": "2026-04-03 07:30:00+00",
            "2026-04-03 09:30:00 UTC": "2026-04-03 09:30:00+00",
            "20260403T093000Z": "2026-04-03 09:30:00+00",
            "2026-04-03T24:00:00Z": "2026-04-04 00:00:00+00",
        },
        [
            "2026-04-03T09:30:00.1234567Z",
            "03/04/2026 09:30",
            "Fri, 03 Apr 2026 09:30:00 GMT",
            "2026-04-03 09:30:00 EST",
            "2026-04-03 09:30 PM",
            "now",
            1775208600,
            True,
        ],
    ),
    "timestamp": (
        {
            "2026-04-03T09:30:00": "2026-04-03 09:30:00",
            "2026-04-03T09:30:00Z": "2026-04-03 09:30:00",
            "2026-04-03T09:30:00+00:00": "2026-04-03 09:30:00",
        },
        ["2026-04-03T09:30:00+02:00", "2026-04-03T09:30:00 PST", "03/04/2026"],
    ),
    "timestamptz(0)": (
        {"2026-04-03T09:30:00.000Z": "2026-04-03 09:30:00+00"},
        ["2026-04-03T09:30:00.500Z"],
    ),
    "time": (
        {"09:30": "09:30:00", "09:30:00.5": "09:30:00.5"},
        ["9:30 PM", "2026-04-03T09:30:00", "09:30:00+02:00", "09:30:00.1234567", "25:00:00"],
    ),
    "timetz": ({"09:30:00+02:00": "09:30:00+02", "09:30": "09:30:00+00"}, ["09:30 EST"]),
    "interval": (
        {
            "P1Y2M3DT4H5M6.5S": "1 year 2 mons 3 days 04:05:06.5",
            "PT36H": "36:00:00",
            "P2W": "14 days",
            "3 days 04:05:06": "3 days 04:05:06",
            "1 year 2 months": "1 year 2 mons",
            "-1 day": "-1 days",
            "100:00:00": "100:00:00",
        },
        ["1.5 months", "P0.5M", "1:30", "PT0.0000001S", "3", "P", "PT", "", 5],
    ),
    "interval day to hour": ({}, ["1 day 02:03:04"]),
    "boolean": (
        {"true": "true", "FALSE": "false", True: "true"},
        ["yes", "on", "t", "1", "", 1, 0, 0.5],
    ),
    "integer": (
        {"5": "5", 7: "7", "007": "7", "-0": "0"},
        [1.5, "1.5", 2**31, "abc", True, 1e20],
    ),
    "smallint": ({32767: "32767"}, [32768, -32769]),
    "numeric(10,2)": (
        {19.99: "19.99", "20.0100": "20.01", 5: "5.00", "NaN": "NaN"},
        [19.999, "19.999", 10**8, "Infinity", "1,5"],
    ),
    "numeric": ({"NaN": "NaN", 1.25: "1.25"}, ["1,5"]),
    "money": ({"19.99": "$19.99", "5": "$5.00"}, ["19.999", "$19.999"]),
    "varchar(3)": (
        {"abc": "abc", "ab ": "ab ", "": "", 12: "12", "äöü": "äöü"},
        ["abcd", "abc ", "abc  ", True],
    ),
    "varchar": ({"abc  ": "abc  "}, []),
    "char(3)": ({"abc": "abc", " bc": " bc"}, ["ab", "", "ab ", "abcd", "abc ", 5]),
    '"char"': ({"a": "a"}, ["ab", "ä"]),
    "uuid": (
        {
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        },
        ["a0eebc99"],
    ),
    "jsonb": ({"5": '"5"', 5: "5"}, []),
    "json": ({"5": '"5"', '{"a": 1}': '"{\\"a\\": 1}"', 5: "5"}, []),
    "text": ({" 5 ": " 5 ", 5: "5", True: "true"}, []),
}


@each_way
@pytest.mark.parametrize("pin", PINNED)
def test_a_pin_stores_a_value_unchanged_or_sets_it_aside(
    connection: Connection, query: Query, pin: str, way: str
) -> None:
    """Each value on a page of its own, so that pages are read in the fast way where they can be."""
    good, bad = PINNED[pin]
    values = [*good, *bad]
    pages = [[{"id": number, "v": value}] for number, value in enumerate(values)]
    entry = load_pages(
        connection,
        *pages,
        columns={"v": pin},
        key=(),
        records=WAYS[way],
        max_rejects=99,
    )
    assert entry.rejected == len(bad)
    stored = query("select v::text from raw_shop.items order by id") if good else []
    assert [text for (text,) in stored] == list(good.values())
    rejects = query("select record::jsonb -> 'v', reason from elt.rejects order by reject_id")
    assert [value for value, _ in rejects] == bad
    assert all("in the field 'v'" in reason for _, reason in rejects)


@each_way
def test_the_reason_names_the_value_the_field_and_what_its_column_takes(
    connection: Connection, query: Query, way: str
) -> None:
    with pytest.raises(
        BadPayloadError,
        match=r"has '03/04/2026' in the field 'v', whose column \(date\) takes dates in ISO",
    ):
        load_pages(
            connection,
            [{"id": 1, "v": "2026-04-03"}, {"id": 2, "v": "03/04/2026"}, {"id": 3, "v": None}],
            columns={"v": "date"},
            records=WAYS[way],
        )
    assert query("select id, v from raw_shop.items order by id") == [
        (1, date(2026, 4, 3)),
        (3, None),
    ]


def test_a_column_that_was_altered_by_hand_changes_no_value_either(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [{"id": 1, "v": "2026-04-03"}])
    query("alter table raw_shop.items alter v type date using v::date")
    entry = load_pages(connection, [{"id": 2, "v": "03/04/2026"}], max_rejects=1)
    assert entry.rejected == 1


@pytest.mark.parametrize(
    ("value", "first_pin", "pin"),
    [
        ("03/04/2026", "text", "date"),
        ("abcd", "text", "varchar(3)"),
        ("19.999", "text", "numeric(10,2)"),
        (19.999, "double precision", "numeric(10,2)"),
        (1.5, "double precision", "bigint"),
        (19.999, "numeric(10,3)", "money"),
        ("2026-04-03T09:30:00Z", "timestamptz", "date"),
        (19.999, "numeric(10,3)", "numeric(10,2)"),
        ("yes", "text", "boolean"),
    ],
)
def test_a_pin_that_is_added_later_changes_no_stored_value(
    connection: Connection, query: Query, value: Any, first_pin: str, pin: str
) -> None:
    load_pages(connection, [{"id": 1, "v": value}], columns={"v": first_pin})
    before = query("select v::text from raw_shop.items")
    with pytest.raises(ConfigurationError, match="in the column 'v', which the pinned type"):
        load_pages(connection, [{"id": 4, "v": GOOD[pin]}], columns={"v": pin})
    assert query("select v::text from raw_shop.items where id = 1") == before


GOOD = {
    "date": "2026-04-03",
    "varchar(3)": "abc",
    "numeric(10,2)": 1.25,
    "bigint": 7,
    "boolean": True,
    "money": 1.5,
}


@pytest.mark.parametrize(
    ("value", "first_pin", "pin", "stored"),
    [
        ("2026-04-03", "text", "date", "2026-04-03"),
        (19.99, "double precision", "numeric(10,2)", "19.99"),
        (5, "bigint", "numeric(10,2)", "5.00"),
        (0.1, "double precision", "real", "0.1"),
        (5, "bigint", "money", "$5.00"),
        (19.99, "numeric(10,2)", "money", "$19.99"),
        (5, "bigint", "jsonb", "5"),
        ("2026-04-03T09:30:00Z", "text", "timestamptz", "2026-04-03 09:30:00+00"),
    ],
)
def test_a_pin_that_is_added_later_keeps_the_values_that_it_takes(
    connection: Connection, query: Query, value: Any, first_pin: str, pin: str, stored: str
) -> None:
    load_pages(connection, [{"id": 1, "v": value}], columns={"v": first_pin})
    load_pages(connection, [{"id": 2, "v": value}], columns={"v": pin})
    assert query("select v::text from raw_shop.items order by id") == [(stored,), (stored,)]


@pytest.mark.parametrize(
    ("value", "first_pin", "pin", "good"),
    [
        (1, "bigint", "boolean", True),
        (1, "bigint", "date", "2026-04-03"),
        (1.5, "double precision", "timestamptz", "2026-04-03T09:30:00Z"),
        (1.5, "double precision", "money", 1.5),
        ("2026-04-03", "date", "bigint", 1),
        (True, "boolean", "numeric(10,2)", 1.5),
    ],
)
def test_a_pin_to_which_postgres_cannot_convert_names_the_remedy(
    connection: Connection, query: Query, value: Any, first_pin: str, pin: str, good: Any
) -> None:
    load_pages(connection, [{"id": 1, "v": value}], columns={"v": first_pin})
    with pytest.raises(ConfigurationError, match=r"'v' of type .*can't convert.*or reset the"):
        load_pages(connection, [{"id": 2, "v": good}], columns={"v": pin})
    assert query("select count(*) from raw_shop.items") == [(1,)]


def test_a_pin_that_would_change_most_values_is_a_configuration_error(
    connection: Connection, query: Query
) -> None:
    """As one that Postgres refuses: the declaration is wrong, not the records."""
    rows = [{"id": number, "v": "03/04/2026"} for number in range(300)]
    with pytest.raises(ConfigurationError, match=r"101 records can't be stored.*03/04/2026"):
        load_pages(connection, rows, columns={"v": "date"})
    assert query("select count(*) from elt.rejects") == [(0,)]


def test_a_pinned_value_of_a_partition_is_checked_as_those_of_records(
    connection: Connection, query: Query
) -> None:
    declared: dict[str, Any] = {
        "key": ("day", "id"),
        "columns": {"day": "date"},
        "partition_columns": ("day",),
        "max_rejects": 9,
    }
    for day in ("2026-04-03", "03/04/2026"):
        partition = Partition(day, {"day": day})
        load_pages(
            connection, [{"id": 1}], partition=partition, partitions=(partition,), **declared
        )
    assert query("select day from raw_shop.items") == [(date(2026, 4, 3),)]
    assert query("select count(*) from elt.rejects") == [(1,)]


@pytest.mark.parametrize("rate", [1.005, "1.005"], ids=repr)
@each_way
def test_a_value_of_a_partition_with_too_many_decimals_is_not_rounded(
    connection: Connection, query: Query, rate: Any, way: str
) -> None:
    partition = Partition("p", {"rate": rate})
    entry = load_pages(
        connection,
        [{"id": 1}],
        partition=partition,
        partitions=(partition,),
        records=WAYS[way],
        key=("rate", "id"),
        columns={"rate": "numeric(12,2)"},
        partition_columns=("rate",),
        max_rejects=1,
    )
    assert (entry.inserted, entry.rejected) == (0, 1)
    assert query("select reason from elt.rejects") == [
        ("has the number '1.005' in the field 'rate', whose column takes 2 decimals",)
    ]


@pytest.fixture
def configured(database: URL, query: Query) -> Iterator[Connection]:
    """A session as flows open it, of a database with other settings."""
    for setting in ("timezone = 'America/New_York'", "datestyle = 'SQL, DMY'"):
        query(f"alter database {database.database} set {setting}")
    arguments = psycopg2.extensions.parse_dsn(libpq(database))
    with closing(session.connect(arguments)) as opened:
        yield opened


def test_times_without_an_offset_are_utc_whatever_the_server_is_set_to(
    configured: Connection, query: Query
) -> None:
    load_pages(configured, [{"id": 1, "v": "2026-04-03T09:30:00"}], columns={"v": "timestamptz"})
    assert query("select v at time zone 'UTC' from raw_shop.items") == [
        (datetime(2026, 4, 3, 9, 30),)  # noqa: DTZ001 (the time in UTC)
    ]


OFFSETS = st.integers(-15 * 60, 15 * 60).map(lambda n: timezone(timedelta(minutes=n)))


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=OFFSETS | st.just(UTC)),  # noqa: DTZ001 (hypothesis wants naive bounds)
        min_size=1,
        max_size=9,
    ),
    st.sampled_from("T "),
    st.sampled_from(["auto", "minutes", "seconds", "milliseconds", "microseconds"]),
)
def test_a_time_of_any_iso_form_is_the_same_time(
    connection: Connection, query: Query, times: list[datetime], separator: str, precision: str
) -> None:
    texts = [at.isoformat(separator, precision) for at in times]
    rows = [{"id": number, "v": text} for number, text in enumerate(texts)]
    load_pages(
        connection, rows, columns={"v": "timestamptz"}, disposition="replace", max_shrinkage=1
    )
    found = query(
        "select to_char(v at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') from raw_shop.items"
        " order by id"
    )
    wanted = [datetime.fromisoformat(text).astimezone(UTC) for text in texts]
    shown = [f"{at:%Y-%m-%d %H:%M:%S.%f}".rjust(26, "0") for at in wanted]
    assert [text for (text,) in found] == shown


def pinned(**columns: str) -> TypedParser:
    resource = Resource("items", "items", records_at(), key=("id",), columns=columns)
    kinds = {"timestamptz": "timestamp with time zone", "char(3)": "character(3)"}
    pins = {name: kinds.get(kind, kind) for name, kind in columns.items()}
    return TypedParser(resource, {}, Pins(pins, lambda fields: {name: name for name in fields}))


@pytest.mark.parametrize(
    ("pin", "good", "bad"),
    [
        ("date", "2026-04-03", "03/04/2026"),
        ("timestamptz", "2026-04-03T09:30:00Z", "yesterday"),
        ("char(3)", "abc", "ab"),
        ("boolean", "true", "yes"),
        ("boolean", True, 1),
    ],
)
def test_pinned_values_take_the_fast_way_as_long_as_they_fit(pin: str, good: Any, bad: Any) -> None:
    tables = pinned(v=pin)
    rows = [{"id": 1, "v": good}, {"id": 2, "v": None}, {"id": 3, "v": good}]
    assert tables.read(Page(json.dumps(rows).encode(), "page")) is not None
    assert tables.read(Page(json.dumps([{"id": 4, "v": bad}]).encode(), "page")) is None


def test_only_types_that_change_values_are_checked() -> None:
    for kind in ("bigint", "integer", "text", "jsonb", "uuid", "real", "double precision", "inet"):
        assert form_of(kind) is None
    assert form_of("time(3) without time zone") is not None
