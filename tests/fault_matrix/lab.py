"""Loads of one style from a misbehaving API into a real database, and their results."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from types import FrameType
from typing import Any
from urllib.parse import parse_qsl

import psycopg2
import pytest
import requests
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import ensure_database, libpq
from flows.deletes import DELETED_AT
from flows.errors import EltError
from flows.extract.ahead import THREAD_NAME
from flows.extract.client import Client
from flows.extract.fetch import read_pages
from flows.load import checkpoints, ledger
from flows.load import loader as loading
from flows.load.column_names import OWN_COLUMNS
from flows.load.ledger import Address, Entry
from flows.load.options import DEFAULT_OPTIONS, LoadOptions
from flows.load.table_schema import column_types
from flows.source import Source
from tests.fault_api.server import misbehaving
from tests.fault_matrix.styles import NOW, Row, Style, login_of

BUDGET_SECONDS = 10
# The times of a lasting fault: a number, so the remainder shows how often it struck.
FOR_GOOD = 1000
SOURCE = "sample"

_numbers = count(1)


@dataclass(frozen=True)
class Nap:
    """A call of `sleep`: its seconds, its time (Unix time), and its thread."""

    at: float
    seconds: float
    thread: int = field(default_factory=threading.get_ident)


@dataclass(frozen=True)
class Asked:
    """A request as the API got it, without its login."""

    method: str
    target: str
    token: str
    body: str

    @property
    def words(self) -> list[str]:
        """Its distinguishing parts; an error that names the request contains them all."""
        is_form = self.body and not self.body.startswith(("{", "["))
        fields = [value for _, value in parse_qsl(self.body)] if is_form else [self.body]
        return [word for word in (self.target, self.token, *fields) if word]


@dataclass
class Trial:
    """Loads of one resource with a unique name, so that trials can share a database.

    Attributes:
        connection: for checks; each load has its own.
        declared: arguments of the resource, besides those of its style.
        settings: of the source.
        loads_before: the number of the newest load that is not one of these.
    """

    url: str
    session: requests.Session
    database: URL
    connection: Connection
    style: Style
    declared: dict[str, Any]
    settings: dict[str, Any]
    loads_before: int
    name: str = field(default_factory=lambda: f"items_{next(_numbers)}")
    planned: list[dict[str, Any]] = field(default_factory=list)

    def plan(self, *faults: Mapping[str, Any]) -> None:
        """Plan faults for this style's requests, or for those at the path that they name."""
        self.planned = [{"path": self.style.target, **fault} for fault in faults]
        response = self.session.post(f"{self.url}/_faults", json=self.planned, timeout=10)
        assert response.status_code == 200, response.text

    def lift(self) -> None:
        """Let the API behave from now on, with its first rows; clear the log."""
        self.plan()

    def strikes(self) -> int:
        """How often the planned faults have struck; each of them has to, at least once."""
        shown = self.session.get(f"{self.url}/_faults", timeout=10).json()
        struck = [
            planned.get("times", 1) - fault["times"]
            for planned, fault in zip(self.planned, shown, strict=True)
        ]
        assert struck, "no fault is planned"
        assert all(struck), f"planned {self.planned}, but they struck {struck} times"
        return sum(struck)

    def planned_strikes(self) -> int:
        """How often they were to strike."""
        return sum(fault.get("times", 1) for fault in self.planned)

    def asked(self) -> list[Asked]:
        """The requests for pages since faults were planned or lifted."""
        log = self.session.get(f"{self.url}/_requests", timeout=10).json()
        return [
            Asked(
                request["method"],
                request["path"],
                request["headers"].get("x-page-token", ""),
                request["body"],
            )
            for request in log
            if request["path"].startswith(self.style.target)
        ]

    def load(self, request: LoadOptions = DEFAULT_OPTIONS) -> Entry:
        """Load the style's rows once more, at its time."""
        request = replace(request, now=NOW)
        partition = self.style.partition
        resource = self.style.resource(self.name, **self.declared)
        login = login_of(self.style, self.url)
        settings = {"concurrency": self.style.concurrency, **self.settings}
        source = Source(SOURCE, self.url, (resource,), login, **settings)
        with closing(psycopg2.connect(libpq(self.database))) as opened, Client(source) as client:
            pages = partial(read_pages, client, source, resource, partition)
            try:
                return loading.load(opened, SOURCE, resource, partition, pages, request)
            finally:
                _wait_for_requests_under_way()

    def load_in_vain(self, kind: type[EltError], says: str) -> EltError:
        """A load that has to end in exactly this error, also by the ledger."""
        with pytest.raises(kind, match=says) as failure:
            self.load()
        assert type(failure.value) is kind
        entry = self.entries()[-1]
        assert (entry.state, entry.error) == ("failed", str(failure.value))
        return failure.value

    def entries(self) -> list[Entry]:
        """The ledger's entries of this resource's loads, in order; all must have ended."""
        with self.connection.cursor() as cursor:
            later = ledger.entries(cursor, self.loads_before)
        entries = [entry for entry in later if entry.resource == self.name]
        assert {entry.state for entry in entries} <= {"succeeded", "failed"}
        return entries

    def has_resume_point(self) -> bool:
        """Whether the next load resumes where the last one ended."""
        address = Address(SOURCE, self.name, self.style.partition.name)
        with self.connection.cursor() as cursor:
            return checkpoints.read(cursor, address).resume is not None

    def rows(self) -> list[Row]:
        """The raw table's rows without the load's own columns, by id; none without a table.

        Of `_deleted_at`, whether it is set.
        """
        table = sql.Identifier(f"raw_{SOURCE}", self.name)
        with self.connection.cursor() as cursor:
            names = [name for name in column_types(cursor, table) if name not in OWN_COLUMNS]
            if not names:
                return []
            columns = sql.SQL(", ").join(
                sql.SQL("{} is not null" if name == DELETED_AT else "{}").format(
                    sql.Identifier(name)
                )
                for name in names
            )
            query = sql.SQL("select {} from {} order by id::bigint")
            cursor.execute(query.format(columns, table))
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def ids(self) -> list[int]:
        """The ids in the raw table, in order, each as often as it is there."""
        return [int(row["id"]) for row in self.rows()]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a statement about this resource: %s stands for its address."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, [str(Address(SOURCE, self.name, ""))])
            return cursor.fetchall()


@dataclass
class Lab:
    """A misbehaving API and a database, for successive trials.

    Attributes:
        naps: the client's calls of `sleep` during this test.
    """

    url: str
    session: requests.Session
    database: URL
    connection: Connection
    naps: list[Nap] = field(default_factory=list)
    _clean: dict[str, list[Asked]] = field(default_factory=dict)

    def trial(
        self, style: Style, declared: Mapping[str, Any] | None = None, **settings: Any
    ) -> Trial:
        """A trial of a style, of which nothing is loaded yet; the API behaves."""
        place = (self.url, self.session, self.database, self.connection)
        with self.connection.cursor() as cursor:
            loads_before = ledger.newest(cursor)
        trial = Trial(*place, style, dict(declared or {}), settings, loads_before)
        trial.lift()
        return trial

    def clean_requests(self, style: Style) -> list[Asked]:
        """The requests of a load of the style when nothing goes wrong, in its pages' order."""
        if style.name not in self._clean:
            trial = self.trial(style)
            trial.load()
            assert trial.rows() == style.rows
            asked = trial.asked()
            assert len(asked) == style.pages
            if style.concurrency > 1:
                in_order = self.clean_requests(replace(style, name=f"{style}-1", concurrency=1))
                assert sorted(asked, key=str) == sorted(in_order, key=str)
                asked = in_order
            self._clean[style.name] = asked
        return self._clean[style.name]


def _wait_for_requests_under_way() -> None:
    """A load that fails does not wait for them; here they would reach the next plan's log."""
    for thread in threading.enumerate():
        if thread.name == THREAD_NAME:
            thread.join()


@contextmanager
def opened(server: URL) -> Iterator[Lab]:
    """A lab with its own API and database."""
    database = ensure_database(server, f"misbehaving_{time.time_ns()}")
    with (
        misbehaving() as url,
        requests.Session() as session,
        closing(psycopg2.connect(libpq(database))) as connection,
    ):
        session.trust_env = False  # it would look for proxies at each request
        connection.autocommit = True
        yield Lab(url, session, database, connection)


@contextmanager
def within_budget(seconds: float = BUDGET_SECONDS) -> Iterator[None]:
    """Fail a test that does not come to an end."""

    def give_up(_: int, __: FrameType | None) -> None:
        pytest.fail(f"not over after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
