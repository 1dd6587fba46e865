"""Promises of requests that send a form: its fields, its placeholders, its paging, its retries."""

import json
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest

from flows.errors import ConfigurationError, UnavailableError
from flows.extract.paginators import next_token
from flows.extract.selectors import records_at
from flows.source import Cursor, Resource, Window
from tests.extract.reading import read, rows
from tests.http_servers import Answer, Serve

PAGES = ({"items": [{"id": 1}], "next": "b"}, {"items": [{"id": 2}]})


def form(**declared: object) -> Resource:
    given = {"method": "POST", "sends": "form", "body": {"kind": ["a", "b"], "all": True, "n": 5}}
    return Resource("items", "items", records_at("items"), **{**given, **declared})


def test_a_form_has_the_fields_of_the_body_and_those_of_paging(serve: Serve) -> None:
    answers = iter(PAGES)
    api = serve(lambda _: Answer(json.dumps(next(answers)).encode()))
    paging = next_token("next", body_field="token")
    assert rows(read(api.url, form(paging=paging))) == [{"id": 1}, {"id": 2}]
    first, second = api.asked
    fields = [("kind", "a"), ("kind", "b"), ("all", "true"), ("n", "5")]
    assert parse_qsl(first.body.decode()) == fields
    assert parse_qsl(second.body.decode()) == [*fields, ("token", "b")]
    assert first.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_a_form_names_the_windows_ends(serve: Serve) -> None:
    api = serve(lambda _: Answer(b'{"items": []}'))
    resource = form(
        body={"since": "{since:%Y-%m-%d}", "until": "{until}", "s": "{since:epoch_s}"},
        cursor=Cursor("at"),
        key=("id",),
    )
    read(api.url, resource, window=Window(datetime(2026, 1, 2, tzinfo=UTC)))
    [asked] = api.asked
    assert dict(parse_qsl(asked.body.decode())) == {"since": "2026-01-02", "s": "1767312000"}


@pytest.mark.usefixtures("slept")
@pytest.mark.parametrize("is_repeatable", [True, False])
def test_a_form_is_sent_again_only_if_that_is_declared(serve: Serve, is_repeatable: bool) -> None:
    answers = iter([Answer(b"busy", 503), Answer(b'{"items": []}')])
    api = serve(lambda _: next(answers))
    resource = form(is_repeatable=is_repeatable)
    if is_repeatable:
        assert rows(read(api.url, resource)) == []
    else:
        with pytest.raises(UnavailableError, match="unless the resource declares is_repeatable"):
            read(api.url, resource)
    assert len(api.asked) == 1 + is_repeatable


def test_the_same_fields_in_json_are_another_request(serve: Serve) -> None:
    """A load that was interrupted under the other declaration does not resume."""
    url = serve(lambda _: Answer(b'{"items": []}')).url
    [page], [other] = read(url, form()), read(url, form(sends="json"))
    assert str(page.request) != str(other.request)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"body": None}, "it sends a form, but has no body"),
        ({"body": "a=b"}, "a form is sent with a body of type str. Give its fields in a dict"),
        ({"body": {"a": {"b": 1}}}, "the form field 'a' has the value {'b': 1}, of type dict"),
        ({"body": {"a": 1.5}}, "the form field 'a'"),
        ({"method": "GET"}, "a GET has no body"),
    ],
)
def test_what_a_form_can_not_hold_is_refused_when_declared(declared: dict, said: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        form(**declared)
    assert said in str(failure.value)


def test_what_a_function_returns_is_checked_too(serve: Serve) -> None:
    url = serve(lambda _: Answer(b"{}")).url
    with pytest.raises(ConfigurationError, match="the form field 'a'"):
        read(url, form(body=lambda *_: {"a": None}))
