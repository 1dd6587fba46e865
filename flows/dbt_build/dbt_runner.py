"""Runs dbt in a process of its own, and yields its log events.

Knows how dbt is run, but not what it builds.
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
APPLICATION = "elt dbt"  # application_name of dbt's sessions
_END_SESSIONS = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name = %s and datname = current_database() and usename = current_user
"""
_QUIET = {"DBT_USE_COLORS": "false", "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}

SHOWN_ERRORS = 20
LISTING = ("ls", "--output", "json", "--output-keys", "unique_id")
_LISTING_EVENT = "PrintEvent"

LogEvent = Mapping[str, Any]


def run(
    environment: Mapping[str, str], timeout_seconds: float, *commands: Sequence[str]
) -> Generator[LogEvent, None, None]:
    """Run dbt commands one after the other, and yield their log events as they arrive.

    dbt is stopped when the caller closes the generator, or when the caller's process ends. Between
    two commands it yields `COMMAND_ENDED`, and waits until the caller requests the next event.

    Raises:
        BuildError: when dbt ran longer than the timeout and was stopped.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "flows.dbt_build.dbt_subprocess", json.dumps(commands)],
        cwd=ROOT,
        env={**os.environ, **_QUIET, **_with_limits(environment, timeout_seconds)},
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
            for event in map(_parse_event, process.stdout or ()):
                yield event
                if event["info"]["name"] == COMMAND_ENDED:
                    _start_next_command(process)
            process.wait()
        finally:
            timer.cancel()
            process.kill()
    if is_late.is_set():
        raise BuildError(
            f"dbt ran for more than {timeout_seconds:.0f} s (timeout_seconds) and was stopped; "
            "nothing was published. Speed up its slowest models, or raise the timeout."
        )


def _start_next_command(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # dbt was stopped, and so is its output
            os.write(process.stdin.fileno(), b"\n")


def after_listing(
    events: Generator[LogEvent, None, None], prepare: Callable[[Sequence[str]], None]
) -> Generator[LogEvent, None, None]:
    """Pass the ids that the first command lists to `prepare`, before the next command starts.

    Yields all other events. The first command must start with `LISTING`; if it fails, dbt is
    stopped.
    """
    ids: list[str] = []
    is_listing = True
    with closing(events):
        for event in events:
            name = event["info"]["name"]
            if is_listing and name == _LISTING_EVENT:
                ids += _parse_ids(event["info"]["msg"])
            elif is_listing and name == COMMAND_ENDED:
                if not event["data"]["is_success"]:
                    return
                prepare(ids)
                is_listing = False
            else:
                yield event


def _parse_ids(line: str) -> list[str]:
    """The id in a listed line; empty for text that a macro of the project prints."""
    try:
        return [json.loads(line)["unique_id"]]
    except (ValueError, KeyError, TypeError):
        return []


def _with_limits(environment: Mapping[str, str], timeout_seconds: float) -> dict[str, str]:
    """Set a statement timeout, so that Postgres ends the queries of a dbt that was killed."""
    limit = {"WAREHOUSE_STATEMENT_TIMEOUT": f"{timeout_seconds:.0f}s"}
    return {"WAREHOUSE_APPLICATION": APPLICATION, **environment, **limit}


def _parse_event(line: str) -> LogEvent:
    """One log line of dbt; a line that is not JSON (a Python traceback) becomes an error event."""
    try:
        event = json.loads(line)
    except ValueError:
        return {"info": {"name": "NoJson", "level": "error", "msg": line.rstrip()}, "data": {}}
    return event if isinstance(event, dict) else _parse_event("")


def last_errors(errors: Sequence[str]) -> str:
    """The last of dbt's error messages, as one text."""
    return "\n".join(errors[-SHOWN_ERRORS:])


def end_sessions(cursor: Cursor) -> None:
    """End sessions of a dead dbt in this database; the caller must be the only build."""
    cursor.execute(_END_SESSIONS, [APPLICATION])
