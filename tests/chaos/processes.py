"""Processes that the chaos tests start and kill."""

import signal
import subprocess
import time

from conftest import rows
from sqlalchemy.engine import URL

from tests.chaos.victim import NAME

_SESSIONS = (
    "select count(*) from pg_stat_activity"
    " where datname = current_database() and application_name = %s"
)


def was_killed(process: subprocess.Popen[bytes], database: URL, deadline_seconds: float) -> bool:
    """Wait for the process and its sessions to end; whether it was killed."""
    with process:
        try:
            _, said = process.communicate(timeout=deadline_seconds)
        finally:
            process.kill()
    assert process.returncode in {0, -signal.SIGKILL}, said.decode()
    deadline = time.monotonic() + deadline_seconds
    while rows(database, _SESSIONS, NAME) != [(0,)]:
        assert time.monotonic() < deadline, "Postgres did not notice that its client is gone"
    return process.returncode != 0
