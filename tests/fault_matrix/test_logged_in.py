"""Promises of a load that logs in: refusals, tokens that end, and who gets to see a secret."""

from collections.abc import Iterable
from typing import Any

import pytest
import requests

from flows.errors import (
    BadRequestError,
    ConfigurationError,
    EltError,
    PayloadTooLargeError,
    RefusedLoginError,
    UnavailableError,
)
from flows.extract.auth import variable
from tests.fault_api.server import misbehaving
from tests.fault_matrix.faults import (
    BODY_LIMIT_BYTES,
    FAULTS,
    RETRYABLE,
    STATUSES,
    TIMEOUT_SECONDS,
    TOO_MANY_BYTES,
    WAIT_SECONDS,
    Fault,
)
from tests.fault_matrix.lab import FOR_GOOD, Lab, Trial
from tests.fault_matrix.styles import LOGGED_IN, ROWS, SECRETS, TOKEN_PATH, Style, login_of, named

pytest_plugins = ["tests.fault_matrix.fixtures"]

[OAUTH2] = named("oauth2")
EVERYTHING_KEPT = (
    "select coalesce(string_agg(concat(error, resume), ' '), '') from elt.loads"
    " left join elt.checkpoints using (source, resource, partition)"
    " where format('%%s.%%s', source, resource) = %s"
)


def rows_of_table(*names: str) -> Iterable[Fault]:
    found = [fault for fault in (*STATUSES, *FAULTS) if fault.name in names]
    assert len(found) == len(names)
    return found


@pytest.mark.sampled(3)
@pytest.mark.parametrize("fault", rows_of_table("503", "reset", "cut", "redirect-307"), ids=str)
@pytest.mark.parametrize("style", LOGGED_IN, ids=str)
def test_who_asks_again_logs_in_again(lab: Lab, style: Style, fault: Fault) -> None:
    trial = lab.trial(style)
    trial.plan(fault.strike(), fault.strike(2, skip=1))
    entry = trial.load()
    assert trial.strikes() == 3
    assert trial.rows() == ROWS
    assert trial.entries() == [entry]


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("style", LOGGED_IN, ids=str)
def test_a_refused_login_ends_the_load_and_the_next_goes_on(
    lab: Lab, style: Style, code: int
) -> None:
    """Where a new token can be had, it is tried once."""
    clean = lab.clean_requests(style)
    trial = lab.trial(style)
    trial.plan({"fault": str(code), "times": FOR_GOOD, "skip": 1})
    error = trial.load_in_vain(RefusedLoginError, f"answered {code} .*Correct the credentials")
    assert trial.strikes() == (2 if style is OAUTH2 and code == 401 else 1)
    assert (error.answer.status, error.answer.attempts, lab.naps) == (code, 1, [])
    assert_no_secret_in(trial, error)
    assert_goes_on(trial, clean[1:])


def assert_goes_on(trial: Trial, clean: list[Any]) -> None:
    trial.lift()
    assert trial.load().state == "succeeded"
    assert trial.rows() == ROWS
    assert trial.asked() == clean


def assert_no_secret_in(trial: Trial, error: EltError) -> None:
    """Nor in what is stored for the next load."""
    [(kept,)] = trial.query(EVERYTHING_KEPT)
    texts = f"{error} {error.answer} {error.__cause__} {kept}"
    assert str(error) in kept
    assert [secret for secret in SECRETS.values() if secret in texts] == []
    assert "sample-access-token" not in texts


@pytest.mark.parametrize("style", [style for style in LOGGED_IN if style is not OAUTH2], ids=str)
def test_an_api_that_repeats_a_secret_does_not_bring_it_into_the_ledger(
    lab: Lab, style: Style
) -> None:
    trial = lab.trial(style)
    login = login_of(style, "")
    body = {"error": "wrong", "you_sent": SECRETS[variable(login.secret)]}
    trial.plan({"fault": "answer", "status": 400, "body": body, "skip": 1})
    error = trial.load_in_vain(BadRequestError, r"answered 400 .*wrong")
    assert trial.strikes() == 1
    assert_no_secret_in(trial, error)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("fault", ["redirect", "next_link"])
@pytest.mark.parametrize("style", LOGGED_IN, ids=str)
def test_another_host_that_the_api_leads_to_is_not_asked_at_all(
    lab: Lab, style: Style, fault: str
) -> None:
    """Another port is another host."""
    trial = lab.trial(style)
    with misbehaving() as other:
        trial.plan({"fault": fault, "location": f"{other}{style.target}", "times": FOR_GOOD})
        error = trial.load_in_vain(ConfigurationError, "is not on the host of source 'sample'")
        assert requests.get(f"{other}/_requests", timeout=10).json() == []
    assert trial.strikes() == 1
    assert_no_secret_in(trial, error)
    trial.lift()
    trial.load()
    assert trial.rows() == ROWS


def test_a_token_that_expires_is_renewed_once_and_the_request_repeated(lab: Lab) -> None:
    trial = lab.trial(OAUTH2)
    trial.plan({"fault": "expired_tokens"}, {"fault": "expired_tokens", "skip": 1})
    entry = trial.load()
    assert trial.strikes() == 2
    assert trial.rows() == ROWS
    assert trial.entries() == [entry]
    assert lab.naps == []


@pytest.mark.parametrize("status", [400, 403])
@pytest.mark.parametrize("place", ["body", "header"])
def test_a_token_refused_without_a_401_is_renewed_once(lab: Lab, status: int, place: str) -> None:
    body = {"error": "invalid_token" if place == "body" else "refused"}
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'} if place == "header" else {}
    refusal = {"fault": "answer", "status": status, "body": body, "headers": headers}
    trial = lab.trial(OAUTH2)
    trial.plan(refusal, {**refusal, "skip": 1})
    entry = trial.load()
    assert trial.strikes() == 2
    assert trial.rows() == ROWS
    assert (trial.entries(), lab.naps) == ([entry], [])

    trial = lab.trial(OAUTH2)
    trial.plan({**refusal, "times": FOR_GOOD})
    error = trial.load_in_vain(RefusedLoginError, f"answered {status} .*Correct the credentials")
    assert trial.strikes() == 2
    assert_no_secret_in(trial, error)
    assert_goes_on(trial, lab.clean_requests(OAUTH2))


def test_a_renewed_token_that_is_refused_too_ends_the_load(lab: Lab) -> None:
    clean = lab.clean_requests(OAUTH2)
    trial = lab.trial(OAUTH2)
    trial.plan({"fault": "expired_tokens", "skip": 1, "times": FOR_GOOD})
    error = trial.load_in_vain(RefusedLoginError, "answered 401")
    assert trial.strikes() == 2
    assert trial.rows() == ROWS[:10]
    assert_no_secret_in(trial, error)
    assert_goes_on(trial, clean[1:])


@pytest.mark.parametrize("expires_in", [3600, 0])
def test_a_token_valid_for_one_request_is_renewed_for_each_page(lab: Lab, expires_in: int) -> None:
    """Whatever it promises."""
    trial = lab.trial(OAUTH2)
    fault = {"fault": "short_token", "requests": 1, "expires_in": expires_in, "times": FOR_GOOD}
    trial.plan({"path": TOKEN_PATH, **fault})
    entry = trial.load()
    assert trial.strikes() == 3
    assert trial.rows() == ROWS
    assert trial.entries() == [entry]
    assert lab.naps == []


def test_a_token_that_is_good_for_nothing_ends_the_load(lab: Lab) -> None:
    trial = lab.trial(OAUTH2)
    trial.plan({"path": TOKEN_PATH, "fault": "short_token", "requests": 0, "times": FOR_GOOD})
    trial.load_in_vain(RefusedLoginError, "answered 401")
    assert trial.strikes() == 2
    assert_goes_on(trial, lab.clean_requests(OAUTH2))


WHERE_TOKENS_ARE = [
    *((code, {}, {}) for code in map(str, RETRYABLE)),
    ("429", {"header": "retry_after", "seconds": WAIT_SECONDS}, {}),
    ("503", {"header": "retry_after_date", "seconds": WAIT_SECONDS}, {}),
    *((name, {}, {}) for name in ("hang_up", "reset_at_once", "reset", "cut", "cut_chunked")),
    ("latency", {"seconds": 2.0}, {"read_timeout_seconds": TIMEOUT_SECONDS}),
    ("drip", {"seconds": 0.02}, {"answer_timeout_seconds": TIMEOUT_SECONDS}),
    ("drip_headers", {"seconds": 0.02}, {"answer_timeout_seconds": TIMEOUT_SECONDS}),
]


def place(options: dict[str, Any]) -> str:
    return options.get("header", "plain")


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("fault", "options", "settings"),
    [pytest.param(*row, id=f"{row[0]}-{place(row[1])}") for row in WHERE_TOKENS_ARE],
)
def test_a_fault_where_tokens_are_given_passes_as_everywhere(
    lab: Lab, fault: str, options: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Before the first page, and when the token is to be renewed; or it ends as unavailable."""
    trial = lab.trial(OAUTH2, **settings)
    at_tokens = {"path": TOKEN_PATH, "fault": fault, **options}
    trial.plan(at_tokens, {**at_tokens, "skip": 1}, {"fault": "expired_tokens", "skip": 1})
    entry = trial.load()
    assert trial.strikes() == 3
    assert trial.rows() == ROWS
    assert trial.entries() == [entry]
    if "header" in options:
        assert all(nap.seconds > WAIT_SECONDS - 1 for nap in lab.naps)
    assert len(lab.naps) == 2 or settings

    trial = lab.trial(OAUTH2, max_wait_seconds=2, **settings)
    trial.plan({**at_tokens, "times": FOR_GOOD})
    error = trial.load_in_vain(UnavailableError, "Run it again later")
    assert trial.strikes() >= 1
    assert trial.asked() == []
    assert_no_secret_in(trial, error)
    assert_goes_on(trial, lab.clean_requests(OAUTH2))


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        *((code, {}) for code in ("400", "401", "403", "404", "410", "422")),
        *((body, {}) for body in ("empty", "204", "html", "html_as_json", "cut_json")),
        ("answer", {"body": []}),
        ("answer", {"body": {"access_token": None}}),
        ("answer", {"status": 302, "headers": {"Location": "/oauth/other"}}),
        ("answer", {"status": 307, "headers": {"Location": "http://localhost/oauth/token"}}),
    ],
)
def test_an_answer_without_a_token_is_a_refused_login(
    lab: Lab, fault: str, options: dict[str, Any]
) -> None:
    assert_gives_no_token(lab, RefusedLoginError, {"fault": fault, **options})


@pytest.mark.parametrize("fault", ["huge", "gzip_bomb"])
def test_a_token_response_that_is_too_large_is_not_read_to_its_end(lab: Lab, fault: str) -> None:
    assert_gives_no_token(lab, PayloadTooLargeError, {"fault": fault, "size_bytes": TOO_MANY_BYTES})


def assert_gives_no_token(lab: Lab, kind: type[EltError], fault: dict[str, Any]) -> None:
    """It ends in this error, requests no page and shows no secret; the next load reads all."""
    clean = lab.clean_requests(OAUTH2)
    trial = lab.trial(OAUTH2, max_body_bytes=BODY_LIMIT_BYTES)
    trial.plan({"path": TOKEN_PATH, "times": FOR_GOOD, **fault})
    error = trial.load_in_vain(kind, TOKEN_PATH)
    assert trial.strikes() == 1
    assert (trial.asked(), lab.naps) == ([], [])
    assert_no_secret_in(trial, error)
    assert_goes_on(trial, clean)
