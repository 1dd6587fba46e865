"""A scratch database is gone after its use, also if the process that made it was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import rows
from sqlalchemy.engine import URL

from commands.record.scratch import scratch_database
from deployments.local.postgres import libpq

REPOSITORY = Path(__file__).parents[2]
NAME = "killed scratch"
KILLED = """
import os, signal, sys
from sqlalchemy.engine import make_url
from commands.record.scratch import scratch_database
with scratch_database(make_url(sys.argv[1])) as url:
    print(url.database, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def exists(server: URL, name: str | None) -> bool:
    return rows(server, "select 1 from pg_database where datname = %s", name) != []


def test_it_is_dropped_and_leaves_others_that_are_in_use(postgres_server: URL) -> None:
    with scratch_database(postgres_server) as first:
        with scratch_database(postgres_server) as second:
            assert first != second
            assert exists(postgres_server, first.database)
        assert not exists(postgres_server, second.database)
        assert rows(first, "select 1") == [(1,)]
    assert not exists(postgres_server, first.database)


def test_what_a_killed_process_left_is_dropped_by_the_next(postgres_server: URL) -> None:
    command = [sys.executable, "-c", KILLED, libpq(postgres_server)]
    named = {**os.environ, "PGAPPNAME": NAME}
    done = subprocess.run(command, cwd=REPOSITORY, env=named, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    left = done.stdout.strip()
    assert exists(postgres_server, left)
    wait_until_its_sessions_have_ended(postgres_server)
    with scratch_database(postgres_server):
        assert not exists(postgres_server, left)


def wait_until_its_sessions_have_ended(server: URL) -> None:
    """Postgres notices soon that the process is gone; only then is its lock free."""
    sessions = "select count(*) from pg_stat_activity where application_name = %s"
    due_at = time.monotonic() + 60
    while rows(server, sessions, NAME) != [(0,)]:
        assert time.monotonic() < due_at
