"""Loads of one recorded resource that are disturbed, and what they lose or double."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import psycopg2
import requests
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from commands.record.loads import few_pages
from commands.record.recording import Recording, read
from commands.record.replay import moved
from commands.record.scrubbing import dummy_secret
from deployments.local.postgres import libpq
from flows import sources
from flows.errors import EltError, UnavailableError
from flows.extract.client import Client
from flows.load import ledger
from flows.load.column_names import OWN_COLUMNS
from flows.load.table_schema import column_types
from flows.source import Partition, Resource, Source
from tests.chaos.victim import NAME, STEPS, Death, Moment, Session, interrupt
from tests.fault_matrix.faults import FAULTS, STATUSES, Fault

MAX_WAIT_SECONDS = 60
# Of slow answers, so that nobody waits for them as long as a load would.
TIMEOUT_SECONDS = 1.0
# Commits are what a kill could separate; of the other steps, the first ones are enough.
MOST_KILLS = {"commit": 12}
OTHER_KILLS = 3
KILL_SECONDS = 60
# A page that is believed to be empty, and one that is slow for as long as it has bytes.
LEFT_OUT = {"204", "drip"}
FAULTS_OF_ANY_API = tuple(
    fault for fault in (*STATUSES, *FAULTS) if not fault.only and fault.name not in LEFT_OUT
)
_SESSIONS = "select count(*) from pg_stat_activity where application_name = %s"


@dataclass(frozen=True)
class Case:
    """One disturbed load and, if it did not end well, the next one.

    Attributes:
        disturbance: the fault's name, or the step at which it was killed.
        error: how the disturbed load ended; empty if it went on.
        repeated: requests that an undisturbed load does not send.
        rows: of an undisturbed load.
        failure: how the next load ended if it failed as well.
    """

    resource: str
    disturbance: str
    error: str
    lost: int
    doubled: int
    repeated: int
    rows: int
    failure: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether rows are missing or too many, or the next load failed as well."""
        return bool(self.lost or self.doubled or self.failure)


@dataclass(frozen=True)
class Lab:
    """A resource with its recording as its API, and an empty database.

    Attributes:
        partitions: those that are recorded.
        folder: of the source's recordings.
    """

    url: str
    database: URL
    source: Source
    resource: Resource
    recording: Recording
    partitions: Sequence[Partition]
    folder: Path

    def load(self, partitions: Sequence[Partition], **settings: Any) -> None:
        """Load partitions; with a checkpoint after each page."""
        load(libpq(self.database), self.url, self.source, self.resource, partitions,
             self.recording, settings)  # fmt: skip

    def empty(self) -> None:
        """Forget all loads."""
        drop = sql.SQL("drop schema if exists elt, {} cascade")
        self._query(drop.format(sql.Identifier(f"raw_{self.source.name}")))

    def rows(self) -> "Counter[bytes]":
        """The rows, without the columns that differ with each load."""
        table = sql.Identifier(f"raw_{self.source.name}", self.resource.name)
        with closing(psycopg2.connect(libpq(self.database))) as opened, opened.cursor() as cursor:
            names = [name for name in column_types(cursor, table) if name not in OWN_COLUMNS]
            if not names:
                return Counter()
            columns = sql.SQL(", ").join(map(sql.Identifier, names))
            query = sql.SQL("select row({})::text from {}").format(columns, table)
            cursor.execute(query)
            return Counter(str(row).encode() for (row,) in cursor)

    def open_partitions(self) -> list[Partition]:
        """The partitions whose last load did not succeed."""
        with closing(psycopg2.connect(libpq(self.database))) as opened, opened.cursor() as cursor:
            cursor.execute("select to_regclass('elt.loads') is not null")
            if cursor.fetchone() != (True,):
                return list(self.partitions)
            states = {entry.partition: entry.state for entry in ledger.entries(cursor, 0)}
        return [each for each in self.partitions if states.get(each.name) != "succeeded"]

    def finish(self) -> str:
        """Load what is not complete; the error if even that fails."""
        try:
            self.load(self.open_partitions())
        except EltError as error:
            return str(error)
        return ""

    def plan(self, *faults: dict[str, Any]) -> None:
        """Plan faults; the log of requests begins anew."""
        response = requests.post(f"{self.url}/_faults", json=[*faults], timeout=10)
        response.raise_for_status()

    def requests(self) -> int:
        """How many came since then."""
        return len(requests.get(f"{self.url}/_requests", timeout=10).json())

    def wait_for_sessions(self) -> None:
        """Return when Postgres has noticed that a killed load is gone."""
        due_at = time.monotonic() + KILL_SECONDS
        while self._query(_SESSIONS, NAME) != [(0,)] and time.monotonic() < due_at:
            time.sleep(0.005)

    def _query(self, statement: Any, *values: object) -> list[tuple[Any, ...]]:
        url = libpq(self.database)
        with closing(psycopg2.connect(url)) as opened, opened, opened.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []


def load(
    dsn: str,
    url: str,
    source: Source,
    resource: Resource,
    partitions: Sequence[Partition],
    recording: Recording,
    settings: dict[str, Any],
    factory: type[Connection] | None = None,
) -> None:
    """Load partitions from a recording, with a checkpoint after each page.

    Raises:
        EltError: the first error.
    """
    there = replace(moved(source, url, recording.base_path), max_wait_seconds=MAX_WAIT_SECONDS)
    there = replace(there, **settings)
    connect = partial(
        psycopg2.connect, dsn, connection_factory=factory, application_name=factory and NAME
    )
    with Client(there, dummy_secret) as client:
        few = few_pages(connect, client, there, recording)
        few.load(replace(there.resource(resource.name), checkpoint_rows=1), partitions)


def under_faults(lab: Lab, wanted: "Counter[bytes]", usual: int) -> Iterator[Case]:
    """Each fault at each request of the undisturbed load; a slow one at the first request only."""
    largest = max(len(answer.content) for answer in lab.recording.answers)
    for fault in FAULTS_OF_ANY_API:
        for skip in range(1 if fault.takes_time else usual):
            strike = {**fault.strike(1, skip), "path": "/"}
            if "size_bytes" in strike:
                strike["size_bytes"] = 10 * (largest + 100_000)
            lab.empty()
            lab.plan(strike)
            error = ""
            try:
                lab.load(lab.partitions, **_settings(fault, largest))
            except EltError as failure:
                error = f"{type(failure).__name__}: {failure}"
            asked = lab.requests()
            lab.plan()
            failure_of_next = lab.finish() if error else ""
            asked += lab.requests()
            yield _case(lab, fault.name, error, wanted, asked - usual, failure_of_next)


def _settings(fault: Fault, largest: int) -> dict[str, Any]:
    limits: dict[str, Any] = {
        "max_body_bytes": 2 * (largest + 100_000),
        "read_timeout_seconds": TIMEOUT_SECONDS,
        "answer_timeout_seconds": TIMEOUT_SECONDS,
    }
    return {name: limits.get(name, value) for name, value in fault.settings.items()}


def under_kills(lab: Lab, wanted: "Counter[bytes]", usual: int) -> Iterator[Case]:
    """SIGKILL before and after the first few occurrences of each step of a load.

    Raises:
        UnavailableError: a load ended otherwise than by its kill.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    for step in STEPS:
        for moment in get_args(Moment):
            for times in range(1, MOST_KILLS.get(step, OTHER_KILLS) + 1):
                death = Death(moment, step, times, in_lockstep=True)
                lab.empty()
                lab.plan()
                arguments = (libpq(lab.database), lab.url, lab.source.name, lab.resource.name)
                its = [*lab.partitions]
                victim = processes.Process(target=die, args=(*arguments, its, lab.folder, death))
                victim.start()
                victim.join()
                lab.wait_for_sessions()
                if victim.exitcode == 0:  # it has no such step
                    break
                if victim.exitcode != -signal.SIGKILL:
                    raise UnavailableError(
                        f"A load of {lab.resource.name} that should be killed {death} ended with "
                        f"code {victim.exitcode} before: nothing is proved. See its error above."
                    )
                failure = lab.finish()
                repeated = lab.requests() - usual
                yield _case(lab, f"killed at {step}", "SIGKILL", wanted, repeated, failure)


def die(
    dsn: str,
    url: str,
    source: str,
    resource: str,
    partitions: list[Partition],
    folder: Path,
    death: Death,
) -> None:
    """Load these partitions, and end by SIGKILL at a step."""
    interrupt(death, lambda: os.kill(os.getpid(), signal.SIGKILL))
    found, recorded = sources.find(source), read(folder)[resource]
    load(dsn, url, found, found.resource(resource), partitions, recorded, {}, Session)


def _case(
    lab: Lab, name: str, error: str, wanted: "Counter[bytes]", repeated: int, failure: str
) -> Case:
    found = lab.rows()
    lost, doubled = (wanted - found).total(), (found - wanted).total()
    repeated = max(0, repeated)
    return Case(lab.resource.name, name, error, lost, doubled, repeated, wanted.total(), failure)
