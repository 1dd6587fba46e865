"""dbt's process: what it says while it works, and its end.

Knows how dbt is run and nothing of what it builds.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Event, Timer
from typing import Any

from psycopg2.extensions import cursor as Cursor

from flows.errors import BuildError

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = "elt dbt"  # what Postgres calls dbt's sessions
_END_SESSIONS = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name = %s and datname = current_database() and usename = current_user
"""
_QUIET = {"DBT_USE_COLORS": "false", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}

SHOWN_ERRORS = 20

Said = Mapping[str, Any]


def run(
    environment: Mapping[str, str], timeout_seconds: float, *commands: Sequence[str]
) -> Iterator[Said]:
    """Run commands of dbt's, one after the other, and yield their log events as they come.

    dbt ends when the caller stops listening, and when the caller's process ends.

    Raises:
        BuildError: when it takes longer than the timeout; it is over then.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "flows.dbt_build.child", json.dumps(commands)],
        cwd=ROOT,
        env={**os.environ, **_QUIET, **_limited(environment, timeout_seconds)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        is_late = Event()

        def end() -> None:
            is_late.set()
            process.kill()

        timer = Timer(timeout_seconds, end)
        timer.start()
        try:
            yield from map(_said, process.stdout or ())
            process.wait()
        finally:
            timer.cancel()
            process.kill()
    if is_late.is_set():
        raise BuildError(
            f"dbt was at work for more than {timeout_seconds:.0f} s (timeout_seconds) and was "
            "ended; nothing was published. Look at its slowest models, or allow it more time."
        )


def _limited(environment: Mapping[str, str], timeout_seconds: float) -> dict[str, str]:
    """Let Postgres end what dbt asks for too, where dbt was ended and could not say so."""
    limit = {"WAREHOUSE_STATEMENT_TIMEOUT": f"{timeout_seconds:.0f}s"}
    return {"WAREHOUSE_APPLICATION": APPLICATION, **environment, **limit}


def _said(line: str) -> Said:
    """A log line of dbt; what is no JSON (a Python traceback) counts as an error it reports."""
    try:
        event = json.loads(line)
    except ValueError:
        return {"info": {"name": "NoJson", "level": "error", "msg": line.rstrip()}, "data": {}}
    return event if isinstance(event, dict) else _said("")


def last_words(errors: Sequence[str]) -> str:
    """The end of what dbt said of errors, for a message of ours."""
    return "\n".join(errors[-SHOWN_ERRORS:])


def end_sessions(cursor: Cursor) -> None:
    """End what a dbt that is gone still does in this database; the caller builds alone."""
    cursor.execute(_END_SESSIONS, [APPLICATION])
