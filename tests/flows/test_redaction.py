"""Redaction of exceptions, log records and rejects."""

import io
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection

from deployments.local.postgres import libpq
from flows.errors import Answer, BadPayloadError, ConfigurationError, EltError, UnavailableError
from flows.extract.selectors import records_at
from flows.guards import redacted, with_guards, without_secrets
from flows.load.loader import load
from flows.load.replay import replay
from flows.page import Page, Resume
from flows.redaction import Secrets, redact, redact_record, remember, start_of
from flows.source import Partition, Resource, Window

WORD = "cAn4ry"
SECRET = f"{WORD}/0123456789"


@pytest.fixture(autouse=True)
def _known() -> None:
    remember(SECRET)


def linked(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@without_secrets
def raise_from(cause: BaseException, kind: type[Exception] = UnavailableError) -> None:
    raise kind(f"it said {SECRET}") from cause


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f'column v: "xx{SECRET[:12]}..."', 'column v: "xx***..."'),
        (f"{SECRET[:12]}\u2026", "***\u2026"),
        (f"{SECRET[:12]} and more", f"{SECRET[:12]} and more"),
        (f"{SECRET[:7]}...", f"{SECRET[:7]}..."),
    ],
)
def test_a_secret_that_is_cut_off_is_redacted_as_far_as_it_goes(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_the_start_of_a_body_has_no_part_of_a_secret_that_it_cuts() -> None:
    for before in range(8150, 8200):
        remember("abcdefgh" * 300)
        assert "abc" not in start_of("abcdefgh" * 300 * 4)
        assert WORD not in start_of(" " * before + SECRET)


def test_of_many_signatures_the_oldest_are_forgotten() -> None:
    """A process may download for weeks."""
    signatures = Secrets(most=2)
    for number in range(3):
        signatures.add(f"signature-{number}")
    assert signatures.hidden_in("signature-0 signature-1 signature-2") == "signature-0 *** ***"


def test_secrets_can_be_added_by_many_threads_at_once() -> None:
    secrets = [f"secret number {number}." for number in range(200)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(remember, secrets))
    assert all(redact(secret) == "***" for secret in secrets)


def test_an_error_is_redacted_when_it_is_made() -> None:
    answer = Answer(f"http://host/?key={SECRET}", 401, f"who is {SECRET}?", 1)
    error = EltError(f"no: {SECRET}", answer)
    assert (str(error), error.args) == ("no: ***", ("no: ***",))
    assert error.answer == Answer("http://host/?key=***", 401, "who is ***?", 1)


CAUSES: dict[str, Callable[[], BaseException]] = {
    "with the text": lambda: KeyError(SECRET),
    "with the text in an attribute": lambda: OSError(2, "no file", SECRET),
    "with a document": lambda: json.JSONDecodeError("no JSON", SECRET, 0),
    "with bytes": lambda: UnicodeDecodeError("ascii", SECRET.encode(), 0, 1, "no ASCII"),
    "of Postgres": lambda: psycopg2.errors.CheckViolation(f"Failing row contains ({SECRET})"),
}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
@pytest.mark.parametrize("depth", [1, 3])
def test_no_cause_of_an_error_shows_a_secret(
    cause: Callable[[], BaseException], depth: int
) -> None:
    bottom = cause()
    error = bottom
    for number in range(depth - 1):
        above = RuntimeError(f"{number} {SECRET}")
        above.__cause__ = error
        error = above
    with pytest.raises(UnavailableError) as failure:
        raise_from(error)
    chain = list(linked(failure.value))
    assert len(chain) == depth + 1
    assert all(SECRET not in f"{each} {each!r} {vars(each)}" for each in chain)
    assert type(bottom).__name__ in str(chain[-1])


def test_an_exception_that_is_not_ours_keeps_its_traceback_and_loses_its_text() -> None:
    with pytest.raises(Exception, match=r"^ValueError: it said \*\*\*$") as failure:
        raise_from(KeyError("id"), ValueError)
    assert failure.value.__traceback__ is not None
    assert "raise_from" in "".join(traceback.format_exception(failure.value))
    assert SECRET not in "".join(traceback.format_exception(failure.value))


def test_an_exception_that_shows_no_secret_is_raised_as_it_is() -> None:
    cause, error = KeyError("id"), ValueError("no id")
    error.__cause__ = cause
    assert redacted(error) is error
    assert error.__cause__ is cause


def test_exceptions_that_are_each_others_context_are_looked_at_once() -> None:
    one, other = ValueError(SECRET), ValueError(SECRET)
    one.__context__, other.__context__ = other, one
    shown = redacted(one)
    assert all(SECRET not in str(each) for each in (shown, shown.__context__))


@pytest.mark.parametrize("name", ["records", "paging", "params", "body"])
def test_a_function_of_a_sources_own_is_named_with_its_error(name: str) -> None:
    def own(*_: object) -> Any:
        return {}[f"no {SECRET}"]

    declared: dict[str, Any] = {"records": records_at(), "method": "POST", name: own}
    orders = with_guards(with_guards(Resource("orders", "orders", **declared)))
    with pytest.raises(ConfigurationError) as failure:
        getattr(orders, name)(Page(b"[]", "http://api"))
    assert f"orders: its `{name}` function failed in own, line" in str(failure.value)
    assert f"{__file__}: KeyError: 'no ***'" in str(failure.value)
    assert failure.value.__cause__ is failure.value.__context__ is None
    assert 'return {}[f"no {SECRET}"]' in "".join(traceback.format_exception(failure.value))


def test_an_error_that_a_function_names_itself_stays() -> None:
    def own(_: Page) -> Any:
        raise BadPayloadError("the export is not ready")

    orders = with_guards(Resource("orders", "orders", own))
    with pytest.raises(BadPayloadError, match="the export is not ready"):
        orders.records(Page(b"[]", "http://api"))


@pytest.mark.parametrize("name", ["flows.sources.shop", "prefect.shop", "another"])
def test_log_records_are_redacted_whatever_the_logger(name: str) -> None:
    log, lines = logging.getLogger(name), io.StringIO()
    handler = logging.StreamHandler(lines)
    log.addHandler(handler)
    try:
        log.error("it said %s", SECRET)
        try:
            raise KeyError(SECRET)
        except KeyError:
            log.exception("it failed")
    finally:
        log.removeHandler(handler)
    said = lines.getvalue()
    assert "it said ***" in said
    assert "KeyError: '***'" in said
    assert "raise KeyError" in said
    assert SECRET not in said


def test_a_log_record_whose_arguments_do_not_fit_is_left_to_the_handlers() -> None:
    made = logging.getLogRecordFactory()("flows", logging.INFO, "", 1, "%d", ("none",), None)
    assert (made.msg, made.args) == ("%d", ("none",))


def test_a_record_without_a_secret_is_rejected_unchanged() -> None:
    record = '{"url":"http://shop","mail":"me@shop"}'
    assert redact_record(record) == record


def test_a_reject_that_was_redacted_can_be_read_but_not_replayed(
    connection: Connection,
    query: Callable[..., list[tuple[Any, ...]]],
    database: Any,
) -> None:
    """A replay would store *** as if the API had sent it."""

    def pages(_: Window, __: Resume | None) -> Iterator[Page]:
        yield Page(json.dumps([{"v": SECRET}, {"v": "other"}]).encode(), "http://api")

    orders = Resource("orders", "orders", records_at(), key=("id",))
    with pytest.raises(BadPayloadError, match="2 records could not be stored"):
        load(connection, "shop", orders, Partition(), pages)
    [[shown], [other]] = query("select record from elt.rejects order by reject_id")
    assert json.loads(json.loads(shown)) == {"v": "***"}
    assert json.loads(other) == {"v": "other"}

    keyed_by_v = Resource("orders", "orders", records_at(), key=("v",))
    with pytest.raises(BadPayloadError, match="1 records could not be stored"):
        replay(partial(psycopg2.connect, libpq(database)), "shop", keyed_by_v, Partition())
    assert query("select v from raw_shop.orders") == [("other",)]
