"""A load that is killed at whatever step goes on with the job that it submitted.

By default at a few steps; with CHAOS=full at every occurrence of each, before and after.
"""

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count, product
from typing import Any, get_args

import psycopg2
import pytest
from conftest import rows
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.source import Disposition
from tests.chaos.job_victim import load_exports, order
from tests.chaos.outcomes import entries
from tests.chaos.processes import was_killed
from tests.chaos.test_killed_loads import DEADLINE_SECONDS, IS_FULL, ROOT
from tests.chaos.victim import STEPS, Death, Moment
from tests.http_servers import Answer, Asked, Serve, Server

WANTED = [(number, f"name {number}") for number in range(40)]
RECORDS = [{"id": number, "name": name} for number, name in WANTED]
RESUME = "select resume ->> 'url' from elt.checkpoints where resume is not null"
HAS_CHECKPOINTS = "select to_regclass('elt.checkpoints') is not null"

FEW: list[tuple[Disposition, Death]] = [
    ("merge", Death("after", "page", 1)),
    ("merge", Death("after", "remember", 1)),
    ("append", Death("after", "page", 2)),
    ("append", Death("before", "end", 1)),
    ("replace", Death("after", "page", 3)),
]


@dataclass
class Jobs:
    """An API that numbers its jobs."""

    numbers: Any = field(default_factory=lambda: count(1))

    def __call__(self, asked: Asked) -> Answer:
        if asked.method == "POST":
            return Answer(json.dumps({"id": next(self.numbers)}).encode(), 202)
        if asked.endswith("result"):
            return Answer(json.dumps({"records": RECORDS}).encode())
        return Answer(json.dumps({"state": "done", "url": f"{asked}/result"}).encode())


def dies(server: Server, database: URL, writes: Disposition, death: Death) -> bool:
    """Kill a load and check that the next one completes it; False when it ended before."""
    rows(database, "drop schema if exists elt, raw_shop cascade")
    server.asked.clear()
    argument = order(libpq(database), server.url, writes, death)
    command = [sys.executable, "-m", "tests.chaos.job_victim", argument]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    died = was_killed(process, database, DEADLINE_SECONDS)
    before = [f"{asked.method} {asked}" for asked in server.asked]
    has_succeeded = any(entry.state == "succeeded" for entry in entries_of(database))
    kept = rows(database, RESUME) if rows(database, HAS_CHECKPOINTS) == [(True,)] else []
    if not has_succeeded:
        assert died
        assert len(before) < 2 or kept, "the job's status was requested before it was committed"
        server.asked.clear()
        with closing(psycopg2.connect(libpq(database))) as connection:
            load_exports(connection, server.url, writes)
        assert server.asked[0].method == ("GET" if kept else "POST")
        assert [asked.method for asked in server.asked].count("POST") == (0 if kept else 1)
    assert rows(database, "select id::int, name from raw_shop.items order by id") == WANTED
    found = entries_of(database)
    assert sum(entry.inserted for entry in found) == sum(entry.extracted for entry in found) == 40
    assert sum(entry.pages for entry in found) == 1
    return died


def entries_of(database: URL) -> list[Any]:
    known = rows(database, "select to_regclass('elt.loads') is not null")
    return entries(database) if known == [(True,)] else []


@pytest.mark.parametrize(("writes", "death"), FEW, ids=str)
def test_a_killed_load_goes_on_with_its_job(
    serve: Serve, database: URL, writes: Disposition, death: Death
) -> None:
    assert dies(serve(Jobs()), database, writes, death), "the load took fewer steps of this kind"


@pytest.mark.parametrize(
    ("writes", "moment", "step"),
    [*product(get_args(Disposition), get_args(Moment), STEPS)] if IS_FULL else (),
)
def test_a_load_of_a_job_killed_at_any_step_goes_on(
    serve: Serve, database: URL, writes: Disposition, moment: Moment, step: str
) -> None:
    server, times = serve(Jobs()), 1
    while dies(server, database, writes, Death(moment, step, times)):
        times += 1
