"""dbt's process: what it says while it works, and its end.

Knows how dbt is run and nothing of what it builds.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from threading import Event, Timer
from typing import Any

from psycopg2.extensions import cursor as Cursor

from flows.dbt_build.dbt_subprocess import COMMAND_ENDED
from flows.errors import BuildError

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = "elt dbt"  # what Postgres calls dbt's sessions
_END_SESSIONS = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name = %s and datname = current_database() and usename = current_user
"""
_QUIET = {"DBT_USE_COLORS": "false", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}

SHOWN_ERRORS = 20
LISTING = ("ls", "--output", "json", "--output-keys", "unique_id")
_LISTED = "PrintEvent"

LogEvent = Mapping[str, Any]


def run(
    environment: Mapping[str, str], timeout_seconds: float, *commands: Sequence[str]
) -> Generator[LogEvent, None, None]:
    """Run commands of dbt's, one after the other, and yield their log events as they come.

    dbt ends when the caller stops listening, and when the caller's process ends. Between two
    commands it says `COMMAND_ENDED`, and waits until the caller asks for the next event.

    Raises:
        BuildError: when it takes longer than the timeout; it is over then.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "flows.dbt_build.dbt_subprocess", json.dumps(commands)],
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
            for said in map(_said, process.stdout or ()):
                yield said
                if said["info"]["name"] == COMMAND_ENDED:
                    _start_next_command(process)
            process.wait()
        finally:
            timer.cancel()
            process.kill()
    if is_late.is_set():
        raise BuildError(
            f"dbt was at work for more than {timeout_seconds:.0f} s (timeout_seconds) and was "
            "ended; nothing was published. Look at its slowest models, or allow it more time."
        )


def _start_next_command(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # it was ended: so does what it says, and the caller's loop
            os.write(process.stdin.fileno(), b"\n")


def after_listing(
    events: Generator[LogEvent, None, None], prepare: Callable[[Sequence[str]], None]
) -> Generator[LogEvent, None, None]:
    """Hand the ids that the first command lists to `prepare`, before the next command begins.

    Yields all other events. The first command is made of `LISTING`; where it fails, dbt is ended.
    """
    ids: list[str] = []
    is_listing = True
    with closing(events):
        for said in events:
            name = said["info"]["name"]
            if is_listing and name == _LISTED:
                ids += _listed_ids(said["info"]["msg"])
            elif is_listing and name == COMMAND_ENDED:
                if not said["data"]["is_success"]:
                    return
                prepare(ids)
                is_listing = False
            else:
                yield said


def _listed_ids(line: str) -> list[str]:
    """The id in a line of a list; none in what a macro of the project prints."""
    try:
        return [json.loads(line)["unique_id"]]
    except (ValueError, KeyError, TypeError):
        return []


def _limited(environment: Mapping[str, str], timeout_seconds: float) -> dict[str, str]:
    """Let Postgres end what dbt asks for too, where dbt was ended and could not say so."""
    limit = {"WAREHOUSE_STATEMENT_TIMEOUT": f"{timeout_seconds:.0f}s"}
    return {"WAREHOUSE_APPLICATION": APPLICATION, **environment, **limit}


def _said(line: str) -> LogEvent:
    """A log line of dbt; what is no JSON (a Python traceback) counts as an error it reports."""
    try:
        event = json.loads(line)
    except ValueError:
        return {"info": {"name": "NoJson", "level": "error", "msg": line.rstrip()}, "data": {}}
    return event if isinstance(event, dict) else _said("")


def last_errors(errors: Sequence[str]) -> str:
    """The end of what dbt said of errors, for a message of ours."""
    return "\n".join(errors[-SHOWN_ERRORS:])


def end_sessions(cursor: Cursor) -> None:
    """End what a dbt that is gone still does in this database; the caller builds alone."""
    cursor.execute(_END_SESSIONS, [APPLICATION])
