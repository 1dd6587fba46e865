"""Promises of placeholders: which end of a window a request names, and in which form."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from flows.errors import ConfigurationError
from flows.extract.first_request import first_request
from flows.extract.selectors import records_at
from flows.source import Cursor, IntegerCursor, Partition, Resource, Source, Window

JANUARY = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC))
AT_NOON = Window(datetime(2024, 1, 1, 12, 30, 5, 123456, tzinfo=UTC))


def resource(**changes: Any) -> Resource:
    declared = {"name": "orders", "path": "orders", "records": records_at(), "key": ("id",)}
    return Resource(**declared | {"cursor": Cursor("at")} | changes)


def asked(params: Any, window: Window, **changes: Any) -> dict[str, str]:
    """The query of the first request."""
    orders = resource(params=params, **changes)
    shop = Source("shop", "http://api", (orders,))
    return dict(parse_qsl(urlsplit(first_request(shop, orders, Partition(), window).url).query))


@pytest.mark.parametrize(
    ("cursor", "text", "sent"),
    [
        (Cursor("at"), "{since}", "2024-01-01T00:00:00+00:00"),
        (Cursor("at"), "{after}", "2023-12-31T23:59:59.999999+00:00"),
        (Cursor("at"), "{until}", "2024-02-01T00:00:00+00:00"),
        (Cursor("at"), "{last}", "2024-01-31T23:59:59.999999+00:00"),
        (Cursor("at"), "{since:%Y-%m-%d}", "2024-01-01"),
        (Cursor("at"), "{last:%Y-%m-%d}", "2024-01-31"),
        (Cursor("at"), "{last:%Y-%m}", "2024-01"),
        (Cursor("at"), "{since:epoch_s}", "1704067200"),
        (Cursor("at"), "[{since:epoch_s},{last:epoch_s}]", "[1704067200,1706745599]"),
        (Cursor("at", format="epoch_ms"), "{since}", "1704067200000"),
        (Cursor("at", format="epoch_ms"), "{after}", "1704067199999"),
        (Cursor("at", format="epoch_us"), "{until}", "1706745600000000"),
        (Cursor("at", format="epoch_us"), "{last}", "1706745599999999"),
        (Cursor("at", format="epoch_s"), "{since:iso}", "2024-01-01T00:00:00+00:00"),
        (Cursor("at", format="%d.%m.%Y"), "{since}", "01.01.2024"),
        (Cursor("at", zone="Europe/Berlin"), "{since}", "2024-01-01T01:00:00+01:00"),
        (Cursor("at", zone="America/New_York"), "{since:%Y-%m-%d %H:%M}", "2023-12-31 19:00"),
        (Cursor("at", zone="America/New_York"), "{since:epoch_s}", "1704067200"),
        (Cursor("at"), "updated ge {since:%Y-%m-%d} and {x}", "updated ge 2024-01-01 and {x}"),
    ],
)
def test_a_parameter_names_an_end_of_the_window_in_its_form(
    cursor: Cursor, text: str, sent: str
) -> None:
    assert asked({"q": text}, JANUARY, cursor=cursor) == {"q": sent}


@pytest.mark.parametrize(
    ("text", "sent"),
    [("{since}", "8"), ("{after}", "7"), ("{since:04d}", "0008"), ("id>{after}", "id>7")],
)
def test_a_parameter_names_the_number_to_go_on_from(text: str, sent: str) -> None:
    assert asked({"q": text}, Window(number=8), cursor=IntegerCursor("id")) == {"q": sent}


def test_the_number_zero_is_sent() -> None:
    assert asked({"q": "{since}"}, Window(number=0), cursor=IntegerCursor("id")) == {"q": "0"}


def test_a_time_is_rounded_down_so_that_nothing_is_left_out() -> None:
    texts = {"s": "{since:epoch_s}", "m": "{since:%H:%M}", "d": "{since:%Y-%m-%d}"}
    assert asked(texts, AT_NOON) == {"s": "1704112205", "m": "12:30", "d": "2024-01-01"}


@pytest.mark.parametrize("cursor", [Cursor("at"), IntegerCursor("at")], ids=str)
def test_a_parameter_is_left_out_while_the_window_lacks_its_end(cursor: Any) -> None:
    params = {
        "since": "{since}",
        "of": ["a", "{after}"],
        "at": ["{since}"],
        "limit": 5,
        "all": True,
    }
    assert asked(params, Window(), cursor=cursor) == {"of": "a", "limit": "5", "all": "true"}


def test_a_body_gets_numbers_and_texts() -> None:
    body = {
        "filter": {"from": "{since:epoch_ms}", "until": "{until}", "text": "from {since:%Y}"},
        "sort": [{"field": "at"}],
        "limit": 5,
    }
    orders = resource(method="POST", body=body)
    shop = Source("shop", "http://api", (orders,))
    sent = first_request(shop, orders, Partition(), AT_NOON).body
    assert sent == {
        "filter": {"from": 1704112205123, "text": "from 2024"},
        "sort": [{"field": "at"}],
        "limit": 5,
    }
    assert json.dumps(sent)


@pytest.mark.parametrize("cursor", [None, Cursor("at"), IntegerCursor("at")], ids=repr)
def test_a_body_may_have_the_names_of_other_cursors_in_braces(cursor: Any) -> None:
    """A query of GraphQL asks for the fields of an object so."""
    body = {"query": 'query { me {token} orders(text: "x {token}") {last} }'}
    if isinstance(cursor, Cursor):
        body = {"query": "query { me {token} }"}
    orders = resource(method="POST", body=body, cursor=cursor)
    shop = Source("shop", "http://api", (orders,))
    assert first_request(shop, orders, Partition(), JANUARY).body == body


def test_what_a_function_returns_as_a_body_is_sent_as_it_is() -> None:
    body = {"query": "query { me {since} }"}
    orders = resource(method="POST", body=lambda *_: body)
    shop = Source("shop", "http://api", (orders,))
    assert first_request(shop, orders, Partition(), JANUARY).body == body


def test_a_path_names_a_number() -> None:
    by_id = resource(path="after/{after}", cursor=IntegerCursor("id", start=1))
    shop = Source("shop", "http://api", (by_id,))
    assert first_request(shop, by_id, Partition(), Window(number=1)).url == "http://api/after/0"


POST: dict[str, Any] = {"method": "POST"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"cursor": None, "params": {"q": "{since}"}},
            r"since\} in its params, but it has no cursor",
        ),
        ({"params": {"q": "{since:epoch}"}}, r"'epoch' is not a format of times.*epoch_ms"),
        ({"method": "POST", "body": {"a": ["{last:x}"]}}, "'x' is not a format of times"),
        (
            {"cursor": IntegerCursor("id"), "params": {"q": "{until}"}},
            r"\{until\} in its \w+, but its IntegerCursor only has",
        ),
        (
            {"cursor": None, "headers": {"X-Since": "{since}"}},
            r"since\} in its headers, but it has no cursor",
        ),
        (
            POST | {"cursor": None, "body": {"a": ["{since}"]}},
            r"since\} in its body, but it has no cursor",
        ),
        (
            POST | {"cursor": None, "body": {"query": '{ orders(from: "{since}") { id } }'}},
            r"since\} in its body, but it has no cursor.*function",
        ),
        (
            POST | {"body": {"query": '{ orders(from: "{token}") { id } }'}},
            r"\{token\} in its \w+, but its Cursor only has.*function",
        ),
        ({"headers": {"X": "a {token}"}}, r"\{token\} in its \w+, but its Cursor only has"),
        (
            {"cursor": IntegerCursor("id"), "path": "orders/{until}"},
            r"\{until\} in its \w+, but its IntegerCursor only has",
        ),
    ],
)
def test_a_placeholder_that_would_never_be_filled_is_refused(
    changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"orders.*{says}"):
        resource(**changes)


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        ("iso", "2024-01-01T12:30:05.123455+00:00"),
        ("epoch_us", "1704112205123455"),
        ("epoch_ms", "1704112205122"),
        ("epoch_s", "1704112204"),
        ("%H:%M:%S", "12:30:04"),
        ("%H:%M", "12:29"),
        ("%d.%m. %H h", "01.01. 11 h"),
        ("%Y-%m-%d", "2023-12-31"),
        ("%Y-%m", "2023-12"),
        ("%Y", "2023"),
    ],
)
def test_the_one_before_is_a_unit_before_the_one_that_the_window_begins_in(
    form: str, sent: str
) -> None:
    """An API that leaves its start out would otherwise leave out the rest of that unit."""
    assert asked({"q": f"{{after:{form}}}"}, AT_NOON) == {"q": sent}


@pytest.mark.parametrize("name", ["since", "after", "until", "last"])
def test_an_append_refuses_an_end_that_its_form_rounds(name: str) -> None:
    """The rows of the morning would be stored twice, or those of the afternoon never."""
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    hours = Cursor("at", start=JANUARY.since, step=timedelta(hours=12))
    params = {"q": f"{{{name}:%Y-%m-%d}}"}
    with pytest.raises(ConfigurationError, match=rf"orders: \{{{name}:.* 2024-01-01 12:00"):
        asked(params, Window(noon, noon), key=(), cursor=hours)
    assert asked(params, Window(noon, noon), cursor=hours)
    assert asked(params, JANUARY, key=(), cursor=hours)


def test_an_append_may_begin_with_the_calendar() -> None:
    start = datetime(1, 1, 1, tzinfo=UTC)
    stepped = Cursor("at", start=start, step=timedelta(days=1))
    since = asked({"q": "{since:%m-%d}"}, Window(start, start), key=(), cursor=stepped)
    assert since == {"q": "01-01"}
