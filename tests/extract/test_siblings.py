"""Promises about several threads that share a client: its concurrency, pauses and login."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from flows.errors import ConfigurationError
from flows.extract import client as clients
from flows.extract.auth import OAuth2
from flows.extract.client import Client
from flows.source import Source
from tests.http_servers import Answer, Asked, Serve

GOOD = Answer(b"[]")
THREADS = 6


def get_in_threads(client: Client, url: str, times: int = 4) -> None:
    """Ask from several threads, each with a sibling."""

    def work(_: int) -> None:
        with client.sibling() as own:
            for _ in range(times):
                own.get(url)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_are_under_way_than_the_source_allows(
    serve: Serve, concurrency: int
) -> None:
    """Each answer waits a moment for more requests than are allowed."""
    under_way: list[int] = []
    most: list[int] = []
    changed = threading.Condition()

    def answer(_: Asked) -> Answer:
        with changed:
            under_way.append(1)
            most.append(len(under_way))
            changed.notify_all()
            changed.wait_for(lambda: max(most) > concurrency, timeout=0.05)
        with changed:
            under_way.pop()
        return GOOD

    server = serve(answer)
    source = Source(f"at-once-{concurrency}", server.url, (), concurrency=concurrency)
    with Client(source) as client:
        get_in_threads(client, server.url)
    assert max(most) == concurrency
    assert len(server.asked) == 4 * THREADS


def test_a_concurrency_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="concurrency"):
        Source("shop", "https://api.example.com/", (), concurrency=0)


def test_a_pause_that_the_api_asks_of_one_thread_is_kept_by_all(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is a 429 with a wait of 30 s; the other thread asks after it."""
    clock = [monotonic()]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(clients, "sleep", sleep)
    monkeypatch.setattr(clients, "monotonic", lambda: clock[0])
    monkeypatch.setattr("flows.extract.rate_limit.monotonic", lambda: clock[0])
    said = [Answer(status=429, headers={"Retry-After": "30"})]
    server = serve(lambda _: said.pop() if said else GOOD)
    with Client(Source("pausing", server.url, ())) as client, client.sibling() as other:
        ended: list[float] = []

        def ask_meanwhile(seconds: float) -> None:
            """In the place of the first thread's wait, the second one asks."""
            if not ended:
                ended.append(clock[0])
                other.get(server.url)
            sleep(seconds)

        monkeypatch.setattr(clients, "sleep", ask_meanwhile)
        client.get(server.url)
    assert len(server.asked) == 3
    assert [round(wait) for wait in waits] == [30, 30]


def test_all_threads_use_one_token_and_renew_it_once(serve: Serve) -> None:
    """A new token makes the earlier one invalid, as with many servers."""
    tokens = ["first"]
    fetched: list[str] = []
    answered = threading.Lock()

    def answer(asked: Asked) -> Answer:
        with answered:
            if asked == "/token":
                fetched.append(tokens[-1])
                return Answer(json.dumps({"access_token": tokens[-1]}).encode())
            if len(server.asked) == 10:
                tokens.append("second")
            is_valid = asked.headers["Authorization"] == f"Bearer {tokens[-1]}"
            return GOOD if is_valid else Answer(status=401)

    server = serve(answer)
    login = OAuth2(f"{server.url}token", "client", "shop-secret")
    with Client(Source("tokens", server.url, (), login), _read_secret) as client:
        get_in_threads(client, server.url)
    assert fetched == ["first", "second"]


def _read_secret(name: str) -> str:
    return "a-long-client-secret"
