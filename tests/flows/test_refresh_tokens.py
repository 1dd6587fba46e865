"""Promises of refresh tokens: exchanged once, stored before they are used, never lost by a kill.

The provider here is one that rotates: it hands out a new refresh token with every access token, and
from then on refuses the earlier one.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

import psycopg2
import pytest
from conftest import rows
from sqlalchemy.engine import URL

from commands.preview import first_page
from deployments.local.postgres import libpq
from flows import redaction, refresh_tokens
from flows.errors import (
    BadRequestError,
    ConfigurationError,
    RefusedLoginError,
    UnavailableError,
)
from flows.extract.client import Client
from flows.extract.selectors import records_at
from flows.load import ledger
from flows.source import Partition, Resource
from tests.flows.refreshing import Order, client, source
from tests.http_servers import Answer, Asked, Serve

REPOSITORY = Path(__file__).parents[2]
WORD = "cAn4ry"
FIRST = f"{WORD}-refresh-0"
PATIENCE_SECONDS = 60
WAITING = (
    "select count(*) from pg_stat_activity"
    " where datname = current_database() and wait_event_type = 'Lock'"
)
END_SESSIONS = (
    "select pg_terminate_backend(pid) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid()"
)

pytestmark = pytest.mark.usefixtures("slept")


class Provider:
    """An API and its OAuth2 provider; `before_answer` is called when new tokens are made.

    Attributes:
        refresh_token: the only one that is accepted, besides the earlier one within `grace`.
        exchanged: the refresh tokens that were shown, in order.
        answers: what the token endpoint answers instead, in order.
    """

    def __init__(self, serve: Serve) -> None:
        self.refresh_token, self.access_token = FIRST, ""
        self.exchanged: list[str] = []
        self.answers: list[Answer] = []
        self.grace = self.rotates = True
        self.expires_in: float | None = 3600
        self.before_answer: Callable[[], None] = lambda: None
        self._earlier = ""
        self._lock = threading.Lock()
        server = serve(self._answer)
        self.url, self.asked = server.url, server.asked

    def _answer(self, asked: Asked) -> Answer:
        if asked == "/token":
            return self.exchange(parse_qs(asked.body.decode()))
        return self.let_in(asked)

    def let_in(self, asked: Asked) -> Answer:
        is_known = asked.headers["Authorization"] == f"Bearer {self.access_token}"
        return Answer(b'[{"id": 1}]') if is_known else Answer(b"{}", 401)

    def revoke(self) -> None:
        """Refuse the access token; the refresh token stays."""
        self.access_token = "revoked"  # noqa: S105 (no token at all)

    def exchange(self, form: dict[str, list[str]]) -> Answer:
        assert form["grant_type"] == ["refresh_token"]
        with self._lock:
            [shown] = form["refresh_token"]
            self.exchanged.append(shown)
            if self.answers:
                return self.answers.pop(0)
            if shown not in {self.refresh_token, self._earlier if self.grace else ""}:
                said = {"error": "invalid_grant", "error_description": f"{shown} was used"}
                return Answer(json.dumps(said).encode(), 400)
            made = {"access_token": f"{WORD}-access-{len(self.exchanged)}"}
            self.access_token = made["access_token"]
            if self.expires_in is not None:
                made["expires_in"] = self.expires_in  # type: ignore[assignment]
            if self.rotates:
                made["refresh_token"] = f"{WORD}-refresh-{len(self.exchanged)}"
                self._earlier, self.refresh_token = shown, made["refresh_token"]
        self.before_answer()
        return Answer(json.dumps(made).encode())


@pytest.fixture
def provider(serve: Serve) -> Provider:
    return Provider(serve)


@pytest.fixture
def opened(database: URL, provider: Provider) -> Iterator[Callable[..., Client]]:
    """New clients, each as in a worker of its own."""
    with ExitStack() as clients:
        yield lambda first=FIRST, **changes: clients.enter_context(
            client(libpq(database), source(provider.url, **changes), first)
        )


def test_the_first_token_is_exchanged_and_the_next_ones_are_used(
    database: URL, provider: Provider, opened: Callable[..., Client]
) -> None:
    opened().get(provider.url)
    assert provider.exchanged == [FIRST]
    opened().get(provider.url)
    assert provider.exchanged == [FIRST], "another worker uses the access token that is stored"
    provider.revoke()
    opened().get(provider.url)
    opened().get(provider.url)
    assert provider.exchanged == [FIRST, f"{WORD}-refresh-1"]
    stored = "select secret, renewals, usable_until - renewed_at > '58 min' from elt.refresh_tokens"
    assert rows(database, stored) == [("shop-refresh-token", 2, True)]


def test_a_ledger_that_another_role_made_is_named_and_no_token_is_exchanged(
    database: URL, provider: Provider
) -> None:
    role = f"loader_{os.getpid()}"
    rows(database, f"create role {role} login; grant usage on schema elt to {role}")
    try:
        theirs = client(libpq(database.set(username=role)), source(provider.url), FIRST)
        with theirs as opened, pytest.raises(ConfigurationError, match="privilege") as failure:
            opened.get(provider.url)
    finally:
        rows(database, f"drop owned by {role}; drop role {role}")
    assert "'shop-refresh-token'" in str(failure.value)
    assert "own the schema elt" in str(failure.value)
    assert "hand them over with blocks/roles.sql" in str(failure.value)
    assert provider.exchanged == []


@pytest.mark.parametrize(("expires_in", "exchanges"), [(None, 1), (3600, 1), (0.001, 2)])
def test_a_stored_token_is_used_until_it_ends(
    provider: Provider,
    opened: Callable[..., Client],
    expires_in: float | None,
    exchanges: int,
) -> None:
    provider.expires_in = expires_in
    opened().get(provider.url)
    opened().get(provider.url)
    assert len(provider.exchanged) == exchanges


def test_a_refresh_token_that_is_not_replaced_stays(
    provider: Provider, opened: Callable[..., Client]
) -> None:
    provider.rotates = False
    for _ in range(3):
        provider.revoke()
        opened().get(provider.url)
    assert provider.exchanged == [FIRST] * 3


def test_tokens_are_stored_before_they_are_used(
    database: URL, provider: Provider, opened: Callable[..., Client]
) -> None:
    counted: list[Any] = []
    let_in = provider.let_in

    def look(asked: Asked) -> Answer:
        counted.extend(rows(database, "select renewals from elt.refresh_tokens"))
        return let_in(asked)

    provider.let_in = look  # type: ignore[method-assign]
    opened().get(provider.url)
    provider.revoke()
    opened().get(provider.url)
    assert counted == [(1,), (1,), (2,)]


def test_another_first_token_begins_anew(
    database: URL, provider: Provider, opened: Callable[..., Client]
) -> None:
    """As after the owner has authorized the client again."""
    opened().get(provider.url)
    provider.revoke()
    provider.refresh_token, provider.grace = "new", False
    with pytest.raises(RefusedLoginError) as failure:
        opened().get(provider.url)
    assert "authorize the client again and store the new refresh token as 'shop-refresh-token'" in (
        str(failure.value)
    )
    opened("new").get(provider.url)
    assert provider.exchanged == [FIRST, f"{WORD}-refresh-1", "new"]
    assert rows(database, "select count(*) from elt.refresh_tokens") == [(2,)]


def test_a_provider_that_is_down_is_asked_again_with_the_same_token(
    provider: Provider, opened: Callable[..., Client]
) -> None:
    provider.answers = [Answer(b"oops", 503), Answer(b"{", declared_length=99)]
    opened().get(provider.url)
    assert provider.exchanged == [FIRST] * 3


def test_a_refused_exchange_changes_nothing(
    database: URL, provider: Provider, opened: Callable[..., Client]
) -> None:
    opened().get(provider.url)
    before = rows(database, "select * from elt.refresh_tokens")
    provider.revoke()
    provider.answers = [Answer(b'{"error": "invalid_client"}', 401)]
    with pytest.raises(RefusedLoginError, match="Correct the client or its secret 'shop-secret'"):
        opened().get(provider.url)
    assert rows(database, "select * from elt.refresh_tokens") == before
    opened().get(provider.url)


def test_without_a_store_nothing_is_exchanged(provider: Provider) -> None:
    with (
        Client(source(provider.url), lambda _: FIRST) as alone,
        pytest.raises(ConfigurationError, match="set WAREHOUSE_URL to the warehouse"),
    ):
        alone.get(provider.url)
    assert provider.exchanged == []


def test_a_preview_stores_the_next_token_where_loads_find_it(
    database: URL,
    provider: Provider,
    opened: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It exchanges the newest one that a load has stored, and the other way round."""
    provider.grace = False
    shop = replace(source(provider.url), resources=(Resource("orders", "", records_at()),))
    secrets = {"SHOP_SECRET": "cAn4ryC13nt", "SHOP_REFRESH_TOKEN": FIRST}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WAREHOUSE_URL", raising=False)
    with pytest.raises(ConfigurationError, match="set WAREHOUSE_URL"):
        first_page(shop, shop.resources[0], Partition())
    monkeypatch.setenv("WAREHOUSE_URL", libpq(database))
    opened().get(provider.url)
    provider.revoke()
    first_page(shop, shop.resources[0], Partition())
    provider.revoke()
    opened().get(provider.url)
    assert provider.exchanged == [FIRST, *(f"{WORD}-refresh-{n}" for n in (1, 2))]


@contextmanager
def process(database: URL, provider: Provider, dies: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A worker of its own."""
    order = str(Order(libpq(database), provider.url, FIRST, dies))
    command = [sys.executable, "-m", "tests.flows.refreshing", order]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as started:
        try:
            yield started
        finally:
            started.kill()


def end_of(started: subprocess.Popen[bytes]) -> int:
    _, said = started.communicate(timeout=PATIENCE_SECONDS)
    assert started.returncode in {0, -signal.SIGKILL}, said.decode()
    assert WORD not in said.decode()
    return started.returncode


def until(database: URL, statement: str, wanted: int) -> None:
    ends_at = monotonic() + PATIENCE_SECONDS
    while rows(database, statement) != [(wanted,)]:
        assert monotonic() < ends_at, statement


@pytest.mark.parametrize("earlier", [0, 1], ids=["the first login", "a refused token"])
def test_of_two_processes_at_once_one_exchanges_and_both_log_in(
    database: URL, provider: Provider, opened: Callable[..., Client], earlier: int
) -> None:
    """The provider answers when the other one waits for the lock."""
    prepare(database)
    for _ in range(earlier):
        opened().get(provider.url)
    provider.revoke()
    provider.grace = False
    provider.before_answer = lambda: until(database, WAITING, 1)
    with process(database, provider) as one, process(database, provider) as other:
        assert (end_of(one), end_of(other)) == (0, 0)
    assert provider.exchanged == [FIRST, f"{WORD}-refresh-1"][: earlier + 1]


def prepare(database: URL) -> None:
    with psycopg2.connect(libpq(database)) as connection, connection.cursor() as cursor:
        ledger.prepare(cursor, "elt")


def test_a_kill_while_the_provider_answers_releases_the_lock(
    database: URL, provider: Provider, opened: Callable[..., Client]
) -> None:
    """Without a new token yet: the provider was asked, but had not decided."""
    prepare(database)
    has_asked, may_answer = threading.Event(), threading.Event()
    exchange = provider.exchange

    def wait(form: dict[str, list[str]]) -> Answer:
        has_asked.set()
        assert may_answer.wait(PATIENCE_SECONDS)
        return Answer(b"too late", 503)

    provider.exchange = wait  # type: ignore[method-assign]
    with process(database, provider) as victim:
        assert has_asked.wait(PATIENCE_SECONDS)
        victim.kill()
        assert end_of(victim) == -signal.SIGKILL
    provider.exchange = exchange  # type: ignore[method-assign]
    opened().get(provider.url)
    may_answer.set()
    assert provider.exchanged == [FIRST]


@pytest.mark.parametrize("earlier", [0, 1], ids=["the first login", "a later one"])
@pytest.mark.parametrize("grace", [True, False], ids=["grace", "no grace"])
def test_a_kill_before_the_tokens_are_stored_tries_the_earlier_one(
    database: URL, provider: Provider, opened: Callable[..., Client], grace: bool, earlier: int
) -> None:
    """The one window that can't be closed; a provider with a period of grace closes it."""
    for _ in range(earlier):
        opened().get(provider.url)
    provider.revoke()
    provider.grace = grace
    known = provider.refresh_token
    with process(database, provider, dies="before") as victim:
        assert end_of(victim) == -signal.SIGKILL
    provider.revoke()
    if grace:
        opened().get(provider.url)
    else:
        with pytest.raises(RefusedLoginError, match="authorize the client again"):
            opened().get(provider.url)
    assert provider.exchanged[earlier:] == [known, known]


def test_a_kill_after_the_tokens_are_stored_loses_nothing(
    database: URL, provider: Provider, opened: Callable[..., Client]
) -> None:
    provider.grace = False
    with process(database, provider, dies="after") as victim:
        assert end_of(victim) == -signal.SIGKILL
    opened().get(provider.url)
    assert provider.exchanged == [FIRST]
    provider.revoke()
    opened().get(provider.url)
    assert provider.exchanged == [FIRST, f"{WORD}-refresh-1"]


@pytest.mark.long
@pytest.mark.parametrize("kills", range(5))
def test_workers_that_are_killed_at_any_time_leave_a_token_that_works(
    database: URL, provider: Provider, opened: Callable[..., Client], kills: int
) -> None:
    """With a period of grace, as providers that rotate recommend."""
    provider.expires_in = 0.001
    with ExitStack() as processes:
        workers = [processes.enter_context(process(database, provider)) for _ in range(4)]
        until_asked = len(provider.asked) + kills
        while len(provider.asked) < until_asked and workers[0].poll() is None:
            pass
        workers[0].kill()
        for worker in workers:
            end_of(worker)
    opened().get(provider.url)


@pytest.mark.parametrize("earlier", [0, 1], ids=["the first login", "a later one"])
def test_postgres_that_goes_away_meanwhile_gets_the_tokens_when_it_is_back(
    database: URL,
    provider: Provider,
    opened: Callable[..., Client],
    earlier: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refresh_tokens, "PAUSE_SECONDS", 0)
    for _ in range(earlier):
        opened().get(provider.url)
    provider.revoke()
    provider.grace = False
    provider.before_answer = lambda: rows(database, END_SESSIONS)
    opened().get(provider.url)
    assert len(provider.exchanged) == earlier + 1
    opened().get(provider.url)
    assert len(provider.exchanged) == earlier + 1
    assert rows(database, "select renewals from elt.refresh_tokens") == [(earlier + 1,)]


def test_tokens_that_are_stored_late_do_not_replace_newer_ones(
    database: URL,
    provider: Provider,
    opened: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lock was lost with Postgres, so another worker came first."""
    monkeypatch.setattr(refresh_tokens, "PAUSE_SECONDS", 0)

    def overtake() -> None:
        provider.before_answer = lambda: None
        rows(database, END_SESSIONS)
        opened().get(provider.url)

    provider.before_answer = overtake
    opened().get(provider.url)
    assert provider.exchanged == [FIRST, FIRST]
    provider.revoke()
    provider.grace = False
    opened().get(provider.url)
    assert provider.exchanged == [FIRST, FIRST, f"{WORD}-refresh-2"]


def test_postgres_that_stays_away_is_named(
    database: URL,
    provider: Provider,
    opened: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refresh_tokens, "PAUSE_SECONDS", 0)
    prepare(database)
    real = refresh_tokens._store

    def gone(connection: Any, values: Any) -> Any:
        connection.close()
        return real(connection, values)

    monkeypatch.setattr(refresh_tokens, "_store", gone)
    monkeypatch.setattr(refresh_tokens, "STORE_SECONDS", 0.05)
    with pytest.raises(UnavailableError, match="authorize the client again") as failure:
        opened().get(provider.url)
    assert "could not be stored" in str(failure.value)
    assert_hidden(failure.value)


def test_a_slow_exchange_elsewhere_is_waited_for_and_then_named(
    database: URL,
    provider: Provider,
    opened: Callable[..., Client],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refresh_tokens, "STORE_SECONDS", 0)
    opened().get(provider.url)
    provider.revoke()
    with psycopg2.connect(libpq(database)) as holder, holder.cursor() as cursor:
        cursor.execute("select * from elt.refresh_tokens for update")
        with pytest.raises(UnavailableError, match="for too long"):
            opened(answer_timeout_seconds=0.05).get(provider.url)
    assert provider.exchanged == [FIRST]


def assert_hidden(error: BaseException) -> None:
    texts = [*traceback.format_exception(error), repr(vars(error))]
    assert WORD not in "".join(texts)


def test_no_token_is_shown_or_stored_in_plain_text(
    database: URL,
    provider: Provider,
    opened: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if the provider repeats a refresh token that another process has received."""
    caplog.set_level(logging.DEBUG)
    opened().get(provider.url)
    monkeypatch.setattr(redaction, "_known", redaction.Secrets())
    provider.revoke()
    provider.refresh_token, provider.grace = "other", False
    with pytest.raises(RefusedLoginError, match=r"\*\*\* was used") as failure:
        opened().get(provider.url)
    assert_hidden(failure.value)
    assert WORD not in "".join(caplog.handler.format(record) for record in caplog.records)
    stored = str(rows(database, "select refresh_tokens::text from elt.refresh_tokens"))
    assert "shop-refresh-token" in stored
    assert WORD not in stored


def test_an_api_that_repeats_the_new_refresh_token_does_not_show_it(
    provider: Provider, opened: Callable[..., Client]
) -> None:
    """Which it should not know; but it may be the provider itself."""
    provider.let_in = lambda _: Answer(  # type: ignore[method-assign]
        f"{provider.refresh_token} {provider.access_token}".encode(), 400
    )
    with pytest.raises(BadRequestError, match=r"\*\*\* \*\*\*") as failure:
        opened().get(provider.url)
    assert_hidden(failure.value)


def test_tokens_that_somebody_changed_are_named(
    database: URL, provider: Provider, opened: Callable[..., Client]
) -> None:
    opened().get(provider.url)
    rows(database, "update elt.refresh_tokens set tokens = 'x'")
    with pytest.raises(ConfigurationError, match="were changed by somebody else"):
        opened().get(provider.url)
