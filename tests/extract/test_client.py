"""Promises of the HTTP client: what is retried, for how long, and the error of each failure."""

import json
import pickle
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate
from time import time
from typing import Any

import cloudpickle
import pytest

from flows.errors import (
    BadPayloadError,
    BadRequestError,
    ConfigurationError,
    EltError,
    NotFoundError,
    PayloadTooLargeError,
    RefusedLoginError,
    UnavailableError,
)
from flows.extract.client import Client
from flows.page import HttpRequest, Page
from flows.source import Rule, Source
from tests.http_servers import Answer, Asked, Serve

GOOD = Answer(b'[{"id": 1}]')
CUT = Answer(b'[{"id": 1}', declared_length=500)
LONG_AGO = "Mon, 01 Jan 2001 00:00:00 GMT"


pytestmark = pytest.mark.usefixtures("slept")


def answers(*said: Answer) -> Callable[[Asked], Answer]:
    """These responses in order; the last one repeats, but not for ever."""
    left = [*said, *[said[-1]] * 200]
    return lambda _: left.pop(0)


def get(url: str, *rules: Rule, **changes: Any) -> Page:
    with Client(Source("shop", url, (), **changes)) as client:
        return client.get(url, rules)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507, 520, 529])
def test_a_passing_failure_is_tried_again(serve: Serve, slept: list[float], status: int) -> None:
    server = serve(answers(Answer(status=status), Answer(status=status), GOOD))
    assert get(server.url).body == GOOD.body
    assert (len(server.asked), len(slept)) == (3, 2)


def test_a_connection_cut_within_the_body_is_tried_again(serve: Serve) -> None:
    server = serve(answers(CUT, GOOD))
    assert get(server.url).body == GOOD.body
    assert len(server.asked) == 2


def test_waits_grow_but_are_at_most_a_minute(serve: Serve, slept: list[float]) -> None:
    with pytest.raises(UnavailableError):
        get(serve(answers(Answer(status=503))).url)
    assert len(slept) > 5
    assert all(wait <= min(60, 2**number) for number, wait in enumerate(slept))


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured_in_full(
    serve: Serve, slept: list[float], status: int
) -> None:
    server = serve(answers(Answer(status=status, headers={"Retry-After": "137"}), GOOD))
    get(server.url)
    assert slept == [137]


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_retry_after_as_a_date_is_honoured_in_full(
    serve: Serve, slept: list[float], zone: str
) -> None:
    """`-0000` is not valid in an HTTP date, but servers that format mail dates send it."""
    at = datetime.now(UTC) + timedelta(seconds=120)
    said = format_datetime(at, usegmt=True).replace("GMT", zone)
    get(serve(answers(Answer(status=503, headers={"Retry-After": said}), GOOD)).url)
    assert slept == [pytest.approx(120, abs=5)]


@pytest.mark.parametrize("said", ["soon", "²", "-", "1e3", "30 lightyears", "9" * 400, LONG_AGO])
def test_a_retry_after_that_names_no_wait_is_said_and_left_to_us(
    serve: Serve, slept: list[float], caplog: pytest.LogCaptureFixture, said: str
) -> None:
    """The log quotes it, and so does the error when the API stays away."""
    away = Answer(status=503, headers={"Retry-After": said})
    get(serve(answers(away, GOOD)).url)
    assert len(slept) == 1
    assert 0 <= slept[0] <= 1
    assert f"(Retry-After: '{said[:9]}" in caplog.text
    with pytest.raises(UnavailableError, match=r"\(Retry-After: '.*Run it again later"):
        get(serve(answers(away)).url, max_wait_seconds=5)


def test_an_empty_retry_after_is_as_good_as_none(
    serve: Serve, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    get(serve(answers(Answer(status=503, headers={"Retry-After": " "}), GOOD)).url)
    assert slept[0] <= 1
    assert "Retry-After" not in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Retry-After", "99999999999999"),
        ("Retry-After", "9999999999"),
        ("Retry-After", "2999-01-01T00:00:00Z"),
        ("Retry-After", "Fri, 01 Jan 2999 00:00:00 GMT"),
        ("X-RateLimit-Reset", "400d"),
        ("RateLimit", '"default";r=0;t=86400'),
    ],
)
def test_a_wait_beyond_all_measure_is_named_and_not_begun(
    serve: Serve, slept: list[float], name: str, said: str
) -> None:
    server = serve(answers(Answer(status=429, headers={name: said})))
    with pytest.raises(UnavailableError) as failure:
        get(server.url)
    assert re.search(r"It asks to wait [0-9,]+ s \(" + name, str(failure.value))
    assert said in str(failure.value)
    assert (len(server.asked), slept) == (1, [])


@pytest.mark.parametrize("said", ["0", LONG_AGO])
def test_a_server_that_asks_for_no_wait_is_not_asked_for_ever(serve: Serve, said: str) -> None:
    server = serve(answers(Answer(status=503, headers={"Retry-After": said})))
    with pytest.raises(UnavailableError):
        get(server.url)
    assert len(server.asked) < 50


def test_the_error_after_the_last_wait_says_what_was_tried(
    serve: Serve, slept: list[float]
) -> None:
    down = Answer(b"closed  for\nrepairs", status=503, headers={"Retry-After": "40"})
    server = serve(answers(down))
    with pytest.raises(UnavailableError) as failure:
        get(f"{server.url}orders", max_wait_seconds=100)
    assert slept == [40, 40]
    assert f"{server.url}orders: answered 503" in str(failure.value)
    assert "'closed for repairs' (attempt 3, waited 80 s of at most 100 s)" in str(failure.value)
    assert "It asks to wait 40 s (Retry-After: '40')." in str(failure.value)


def test_waits_of_all_pages_count_against_one_limit(serve: Serve, slept: list[float]) -> None:
    busy = Answer(status=429, headers={"Retry-After": "60"})
    server = serve(answers(busy, GOOD, busy))
    with Client(Source("shop", server.url, (), max_wait_seconds=100)) as client:
        client.get(server.url)
        with pytest.raises(UnavailableError, match="attempt 1, waited 60 s"):
            client.get(server.url)
    assert slept == [60]


def test_a_refused_connection_is_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(UnavailableError, match=r"the connection failed .*attempt [2-9]"):
            get(url, max_wait_seconds=5)


def reset(name: str, value: float, status: int = 429) -> Answer:
    return Answer(status=status, headers={name: f"{value:.0f}"})


@pytest.mark.parametrize(
    ("limited", "seconds"),
    [
        (reset("RateLimit-Reset", 42), 42),
        (reset("X-RateLimit-Reset", 42), 42),
        (Answer(status=429, headers={"X-RateLimit-Reset": "12.5"}), 12.5),
        (reset("RateLimit-Reset", 42, status=503), 42),
        (Answer(status=429, headers={"Retry-After": "7", "RateLimit-Reset": "42"}), 7),
        (Answer(status=429, headers={"Retry-After": "soon", "RateLimit-Reset": "42"}), 42),
        (Answer(status=403, headers={"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9"}), 9),
        (Answer(status=403, headers={"RateLimit-Remaining": "0", "RateLimit-Reset": "9"}), 9),
        (Answer(status=403, headers={"Retry-After": "9"}), 9),
    ],
    ids=[
        "seconds",
        "seconds, by its old name",
        "a part of a second",
        "of a busy server",
        "Retry-After counts more",
        "Retry-After that says nothing",
        "403 for too many requests",
        "403, by the new name",
        "403 with Retry-After",
    ],
)
def test_the_end_of_a_limit_is_waited_for_in_full(
    serve: Serve, slept: list[float], limited: Answer, seconds: float
) -> None:
    get(serve(answers(limited, GOOD)).url)
    assert slept == [seconds]


# Headers of servers that request a wait of 40 seconds, with their sources.
WRITTEN: dict[str, dict[str, str]] = {
    "decimals (Shopify)": {"Retry-After": "40.0"},
    "a unit": {"Retry-After": "40s"},
    "a unit in words": {"Retry-After": " 40 seconds"},
    "a short unit": {"Retry-After": "40000ms"},
    "several units (OpenAI)": {"X-RateLimit-Reset": "0m39.5s500ms"},
    "in quotes": {"Retry-After": '"40"'},
    "repeated": {"Retry-After": "40, 40"},
    "repeated, the longest counts": {"Retry-After": "7,40, 12.5"},
    "repeated, one of them known": {"Retry-After": "soon, 40"},
    "repeated reset": {"RateLimit-Reset": "40, 40", "RateLimit-Remaining": "0, 0"},
    "the reset's third name (Okta)": {"X-Rate-Limit-Reset": "40", "X-Rate-Limit-Remaining": "0"},
    "the reset's fourth name (Discord)": {"X-RateLimit-Reset-After": "40.00"},
    "RateLimit": {"RateLimit": '"default";r=0;t=40'},
    "RateLimit without what is left": {"RateLimit": '"default";t=40'},
    "RateLimit of several limits": {"RateLimit": '"hour, r=0";r=9;t=3600, "burst";r=0;t=40'},
    "RateLimit of old": {"RateLimit": "limit=100, remaining=0, reset=40"},
    "RateLimit of old, repeated": {
        "RateLimit": "limit=1, remaining=0, reset=40, limit=1, reset=40"
    },
    "RateLimit that says nothing": {"RateLimit": '"default"', "X-RateLimit-Reset": "40"},
}


@pytest.mark.parametrize("headers", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_is_kept_however_it_is_written(
    serve: Serve, slept: list[float], headers: dict[str, str], status: int
) -> None:
    get(serve(answers(Answer(status=status, headers=headers), GOOD)).url)
    assert slept == [pytest.approx(40)]


def iso(moment: float, ending: str) -> str:
    at = datetime.fromtimestamp(moment, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}{ending}"


MOMENTS: dict[str, Callable[[float], str]] = {
    "Unix time": lambda at: f"{at:.0f}",
    "Unix time with decimals": lambda at: f"{at:.3f}",
    "milliseconds": lambda at: f"{at * 1e3:.0f}",
    "microseconds": lambda at: f"{at * 1e6:.0f}",
    "nanoseconds": lambda at: f"{at * 1e9:.0f}",
    "ISO": lambda at: iso(at, "Z"),
    "ISO with an offset": lambda at: iso(at + 7200, "+02:00"),
    "ISO with decimals": lambda at: iso(at, ".500Z"),
    "ISO without an offset": lambda at: iso(at, ""),
    "ISO with a space": lambda at: iso(at, " UTC").replace("T", " ", 1),
    "HTTP date": lambda at: formatdate(at, usegmt=True),
    "HTTP date, repeated": lambda at: ", ".join([formatdate(at, usegmt=True)] * 2),
}


@pytest.mark.parametrize("written", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("name", ["Retry-After", "X-RateLimit-Reset", "x-rate-limit-reset"])
def test_a_moment_is_waited_for_however_it_is_written(
    serve: Serve, slept: list[float], name: str, written: Callable[[float], str]
) -> None:
    limited = Answer(status=429, headers={name: written(time() + 100)})
    get(serve(answers(limited, GOOD)).url)
    assert slept == [pytest.approx(100, abs=5)]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Remaining": "4990", "X-RateLimit-Reset": "250"},
        {"RateLimit": '"default";r=50;t=250'},
        {"RateLimit": "limit=100, remaining=50, reset=250"},
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_reset_of_a_limit_that_is_not_reached_is_ignored(
    serve: Serve, slept: list[float], headers: dict[str, str], status: int
) -> None:
    """GitHub sends its hourly limit's end also where it means another limit."""
    get(serve(answers(Answer(status=status, headers=headers), GOOD)).url)
    assert slept[0] <= 1


@pytest.mark.parametrize("name", ["RateLimit-Reset", "X-RateLimit-Reset", "x-ratelimit-reset"])
def test_the_end_of_a_limit_may_be_a_moment(serve: Serve, slept: list[float], name: str) -> None:
    get(serve(answers(reset(name, time() + 100), GOOD)).url)
    assert slept == [pytest.approx(100, abs=5)]


@pytest.mark.parametrize("said", ["never", "", "-5", "1e3", "٣"], ids=repr)
def test_an_end_of_a_limit_that_says_nothing_is_passed_over(
    serve: Serve, slept: list[float], said: str
) -> None:
    limited = Answer(status=429, headers={"RateLimit-Reset": said.encode().decode("latin-1")})
    get(serve(answers(limited, GOOD)).url)
    assert slept[0] <= 1


# 403 responses that mean 429, as their APIs document them; the login is valid.
LIMITS: dict[str, Answer] = {
    "GitHub's second": Answer(
        b'{"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}',
        headers={"X-RateLimit-Remaining": "4990", "X-RateLimit-Reset": "99999"},
    ),
    "GitHub's first": Answer(b'{"message": "API rate limit exceeded for user ID 1."}'),
    "GitHub's of old": Answer(b'{"message": "You have triggered an abuse detection mechanism."}'),
    "Google's": Answer(b'{"error": {"errors": [{"reason": "rateLimitExceeded"}]}}'),
    "Google's for a user": Answer(b'{"error": {"errors": [{"reason": "userRateLimitExceeded"}]}}'),
    "Google's quota": Answer(b'{"error": {"errors": [{"reason": "quotaExceeded"}]}}'),
    "Google's for a day": Answer(b'{"error": {"errors": [{"reason": "dailyLimitExceeded"}]}}'),
    "Salesforce's": Answer(b'[{"errorCode": "REQUEST_LIMIT_EXCEEDED"}]'),
    "Meta's": Answer(b'{"error": {"message": "(#4) Application request limit reached"}}'),
    "AWS's": Answer(b'{"__type": "ThrottlingException", "message": "Rate exceeded"}'),
    "in words": Answer(b"<h1>Too many requests</h1>"),
    "nothing left": Answer(headers={"X-Rate-Limit-Remaining": "0"}),
    "nothing left, repeated": Answer(headers={"RateLimit-Remaining": "0, 0"}),
    "nothing left, in one header": Answer(headers={"RateLimit": '"default";r=0;t=2'}),
}


@pytest.mark.parametrize("said", LIMITS.values(), ids=LIMITS)
def test_a_403_that_is_a_limit_is_asked_again_as_a_429_is(
    serve: Serve, slept: list[float], said: Answer
) -> None:
    limited = replace(said, status=403)
    assert get(serve(answers(limited, limited, GOOD)).url).body == GOOD.body
    assert len(slept) == 2
    assert max(slept) <= 2
    with pytest.raises(UnavailableError, match=r"answered 403 .*Run it again later"):
        get(serve(answers(limited)).url, max_wait_seconds=5)


NO_LIMITS = {
    "no body": b"",
    "no permission": b'{"message": "Resource not accessible by personal access token"}',
    "about limits": b'{"message": "Your plan may not read the rate limit API"}',
    "Google's": b'{"error": {"errors": [{"reason": "insufficientPermissions"}]}}',
}


@pytest.mark.parametrize("body", NO_LIMITS.values(), ids=NO_LIMITS)
def test_any_other_403_is_a_refused_login_that_shows_the_rule(serve: Serve, body: bytes) -> None:
    server = serve(answers(Answer(body, status=403)))
    with pytest.raises(RefusedLoginError) as failure:
        get(server.url)
    assert len(server.asked) == 1
    assert "Correct the credentials of source 'shop'" in str(failure.value)
    assert 'Rule("retry", status=403, body="…")' in str(failure.value)


def test_a_status_other_than_403_is_no_limit_by_what_it_says(serve: Serve) -> None:
    server = serve(answers(Answer(b"rate limit exceeded", status=404)))
    with pytest.raises(NotFoundError):
        get(server.url)
    assert len(server.asked) == 1


def test_a_server_error_is_not_waited_for_as_a_limit(serve: Serve, slept: list[float]) -> None:
    """APIs send the end of the limit with every response; it is irrelevant to a 500."""
    get(serve(answers(reset("X-RateLimit-Reset", 250, status=500), GOOD)).url)
    assert slept[0] <= 1


def test_time_lost_in_failed_attempts_counts_as_waiting(
    serve: Serve, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a server that lets every request hang would hold a load for hours."""
    clock = [0.0]
    monkeypatch.setattr("flows.extract.client.monotonic", lambda: clock[0])

    def hang(_: Asked) -> Answer:
        clock[0] += 60
        return Answer(status=504)

    server = serve(hang)
    with pytest.raises(UnavailableError, match=r"waited \d{3} s of at most 300 s"):
        get(server.url, max_wait_seconds=300)
    assert len(server.asked) <= 5
    assert sum(slept) < 60


def post(url: str, is_repeatable: bool, **changes: Any) -> Page:
    with Client(Source("shop", url, (), **changes)) as client:
        return client.get(HttpRequest(url, "POST", body={"a": 1}), is_repeatable=is_repeatable)


@pytest.mark.parametrize("failure", [Answer(status=503), Answer(status=429), CUT], ids=str)
def test_a_post_is_not_sent_again_unless_that_is_declared(
    serve: Serve, slept: list[float], failure: Answer
) -> None:
    server = serve(answers(failure, GOOD))
    with pytest.raises(UnavailableError, match=r"not retried unless .* is_repeatable=True"):
        post(server.url, is_repeatable=False)
    assert (len(server.asked), slept) == (1, [])


def test_a_post_that_is_repeatable_is_sent_again_as_it_was(serve: Serve) -> None:
    server = serve(answers(Answer(status=503), GOOD))
    assert post(server.url, is_repeatable=True).body == GOOD.body
    assert [(asked.method, json.loads(asked.body)) for asked in server.asked] == [
        ("POST", {"a": 1})
    ] * 2


def test_a_post_that_was_never_sent_may_be_sent_again(slept: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(UnavailableError, match=r"attempt [2-9]"):
            post(f"http://127.0.0.1:{unused.getsockname()[1]}/", False, max_wait_seconds=5)
    assert slept


def test_a_request_is_sent_with_its_headers(serve: Serve) -> None:
    server = serve(answers(GOOD))
    with Client(Source("shop", server.url, ())) as client:
        client.get(HttpRequest(server.url, headers={"X-Version": "2", "Accept": "text/csv"}))
    (asked,) = server.asked
    assert (asked.method, asked.headers["X-Version"]) == ("GET", "2")
    assert asked.headers["Accept"] == "text/csv"


@pytest.mark.parametrize(
    "headers", [{"X-A": "line\nbreak"}, {"X-A": "\u20ac"}, {"X-A\n": "1"}], ids=repr
)
def test_headers_that_cannot_be_sent_are_a_configuration_error(
    serve: Serve, slept: list[float], headers: dict[str, str]
) -> None:
    server = serve(answers(GOOD))
    with (
        Client(Source("shop", server.url, ())) as client,
        pytest.raises(ConfigurationError, match="can't be requested"),
    ):
        client.get(HttpRequest(server.url, headers=headers))
    assert (server.asked, slept) == ([], [])


BUSY = Answer(b'{"error": "please come back later"}')


@pytest.mark.parametrize(
    "rule",
    [
        Rule("retry", status=200),
        Rule("retry", body="come (back|again)"),
        Rule("retry", 200, "back"),
    ],
    ids=["by status", "by body", "by both"],
)
def test_a_rule_has_an_answer_asked_for_again(serve: Serve, rule: Rule) -> None:
    server = serve(answers(BUSY, BUSY))
    with pytest.raises(UnavailableError, match=r"answered 200 OK: .*come back later"):
        get(server.url, rule, max_wait_seconds=5)
    assert len(server.asked) > 1


@pytest.mark.parametrize("then", ["ignore", "stop"])
def test_a_rule_makes_an_answer_an_empty_page(serve: Serve, then: Any) -> None:
    page = get(serve(answers(Answer(b"none", status=404))).url, Rule(then, status=404))
    assert (page.is_empty, page.is_last, page.rows) == (True, then == "stop", [])


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, BadPayloadError),
        (404, NotFoundError),
        (401, RefusedLoginError),
        (503, BadRequestError),
    ],
)
def test_a_rule_fails_with_its_message(serve: Serve, status: int, kind: type[EltError]) -> None:
    server = serve(answers(Answer(b"moved house", status=status)))
    rule = Rule("fail", body="moved", message="Call them.")
    with pytest.raises(kind, match=rf"answered {status} .*'moved house'\. Call them\.") as failure:
        get(server.url, rule)
    assert type(failure.value) is kind
    assert len(server.asked) == 1


def test_the_first_rule_that_fits_counts_and_no_other(serve: Serve) -> None:
    rules = [Rule("stop", status=404), Rule("ignore", body="none"), Rule("stop", body="none")]
    page = get(serve(answers(Answer(b"none"))).url, *rules)
    assert (page.is_empty, page.is_last) == (True, False)
    assert get(serve(answers(GOOD)).url, *rules).body == GOOD.body


def test_rules_may_be_any_iterable(serve: Serve) -> None:
    server = serve(answers(BUSY, Answer(b"none", status=404)))
    with Client(Source("shop", server.url, ())) as client:
        rules = iter([Rule("retry", body="back"), Rule("ignore", status=404)])
        assert client.get(server.url, rules).is_empty


FAILURES: dict[str, tuple[Answer, dict[str, Any], type[EltError], int | None, str]] = {
    "unavailable": (Answer(b"busy", 503), {"max_wait_seconds": 0}, UnavailableError, 503, "busy"),
    "cut": (CUT, {"max_wait_seconds": 0}, UnavailableError, None, ""),
    "refused login": (Answer(b"who?", 401), {}, RefusedLoginError, 401, "who?"),
    "not found": (Answer(b"gone", 410), {}, NotFoundError, 410, "gone"),
    "bad request": (Answer(b"what?", 422), {}, BadRequestError, 422, "what?"),
    "not implemented": (Answer(b"what?", 501), {}, BadRequestError, 501, "what?"),
    "redirected nowhere": (Answer(b"", 304), {}, BadRequestError, 304, ""),
    "bad payload": (
        Answer(b"text", headers={"Content-Encoding": "gzip"}),
        {},
        BadPayloadError,
        200,
        "",
    ),
    "too large": (Answer(b"x" * 99), {"max_body_bytes": 9}, PayloadTooLargeError, 200, ""),
    "elsewhere": (
        Answer(b"", 302, {"Location": "http://other.test/"}),
        {},
        ConfigurationError,
        None,
        "",
    ),
}


@pytest.mark.parametrize(
    ("said", "changes", "kind", "status", "start"), FAILURES.values(), ids=FAILURES
)
@pytest.mark.parametrize("copied", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
def test_an_error_keeps_what_the_api_said_wherever_it_is_sent(
    serve: Serve,
    said: Answer,
    changes: dict[str, Any],
    kind: type[EltError],
    status: int | None,
    start: str,
    copied: Any,
) -> None:
    """Prefect sends errors from process to process."""
    server = serve(answers(said))
    with pytest.raises(EltError) as failure:
        get(server.url, **changes)
    copy = copied.loads(copied.dumps(failure.value))
    assert type(copy) is kind
    assert str(copy) == str(failure.value)
    answer = copy.answer
    assert (answer.url, answer.status, answer.start) == (server.url, status, start)
    assert answer.attempts == len(server.asked) == 1


def test_an_error_counts_its_attempts(serve: Serve) -> None:
    server = serve(answers(Answer(status=503), Answer(status=503), Answer(status=404)))
    with pytest.raises(NotFoundError) as failure:
        get(server.url)
    assert failure.value.answer is not None
    assert failure.value.answer.attempts == 3


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_is_named_and_asked_once(serve: Serve, status: int) -> None:
    server = serve(answers(Answer(status=status)))
    with pytest.raises(RefusedLoginError, match="credentials of source 'shop'"):
        get(server.url)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [404, 410])
def test_a_missing_address_is_a_configuration_error(serve: Serve, status: int) -> None:
    server = serve(answers(Answer(status=status)))
    with pytest.raises(ConfigurationError, match="Correct the base URL or path of source 'shop'"):
        get(server.url)
    assert len(server.asked) == 1


def test_a_bad_request_shows_the_start_of_the_answer(serve: Serve) -> None:
    server = serve(answers(Answer(b"no such column: colour" + b"." * 999, status=400)))
    with pytest.raises(ConfigurationError) as failure:
        get(server.url)
    assert "answered 400 Bad Request: 'no such column: colour..." in str(failure.value)
    assert len(str(failure.value)) < 500
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["htp://127.0.0.1/", "127.0.0.1/orders", "http://"])
def test_an_address_that_is_none_is_a_configuration_error(url: str, slept: list[float]) -> None:
    with pytest.raises(ConfigurationError, match="Correct the source's address"):
        get(url)
    assert slept == []
