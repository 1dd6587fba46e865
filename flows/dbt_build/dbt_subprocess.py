"""Runs dbt commands one after the other, in a process that ends when its parent does.

The parent holds the other end of stdin: when the parent ends, however it ended, dbt ends too. The
commands are a JSON list of lists of words. dbt's events go to stdout, one JSON object per line; of
its thousands of debug events, only those that report how a node ended. The process fails if one of
the commands failed, after all have run.

Between two commands it writes `CommandEnded` and waits for a line on stdin, so that the parent can
prepare the next one.
"""

import gc
import json
import os
import sys
import threading
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

from flows.postgres import session

PARENT_IS_GONE = 3
QUIET = ("--log-level", "none", "--log-level-file", "debug")
COMMAND_ENDED = "CommandEnded"

_lines_from_parent = threading.Semaphore(0)


def _listen_to_parent() -> None:
    for _ in sys.stdin:
        _lines_from_parent.release()
    os._exit(PARENT_IS_GONE)


def _bound_sessions() -> None:
    """Give every session of dbt's adapter a statement timeout and keepalives.

    By statements, because PgBouncer refuses clients that set statement_timeout at login.
    """
    limits = {
        **session.KEEPALIVES,
        "statement_timeout": os.environ["WAREHOUSE_STATEMENT_TIMEOUT"],
    }
    keepalives = json.loads(os.environ.get("WAREHOUSE_KEEPALIVES", "{}"))
    connect = psycopg2.connect

    def connect_and_limit(**arguments: Any) -> Connection:
        connection: Connection = connect(**{**keepalives, **arguments})
        with connection:
            session.configure(connection, limits)
        return connection

    psycopg2.connect = connect_and_limit  # type: ignore[assignment]  # dbt passes keywords only


def _wait_for_parent(is_success: bool) -> None:
    info = {"name": COMMAND_ENDED, "level": "info", "msg": ""}
    sys.stdout.write(f"{json.dumps({'info': info, 'data': {'is_success': is_success}})}\n")
    sys.stdout.flush()
    _lines_from_parent.acquire()


def main() -> None:
    from dbt.cli.main import dbtRunner
    from dbt_common.events.base_types import EventMsg
    from dbt_common.events.functions import msg_to_json

    def write(event: EventMsg) -> None:
        if event.info.level != "debug" or event.info.name == "NodeFinished":
            sys.stdout.write(f"{msg_to_json(event)}\n")
            sys.stdout.flush()

    _bound_sessions()
    commands = json.loads(sys.argv[1])
    outcomes = []
    for number, command in enumerate(commands, start=1):
        outcomes.append(dbtRunner(callbacks=[write]).invoke([*command, *QUIET]))
        if number < len(commands):
            _wait_for_parent(outcomes[-1].success)
    for outcome in outcomes:
        if outcome.exception is not None:
            sys.stdout.write(f"{outcome.exception}\n")
    gc.freeze()  # skips a garbage collection of a third of a second at exit
    sys.exit(not all(outcome.success for outcome in outcomes))


if __name__ == "__main__":
    threading.Thread(target=_listen_to_parent, daemon=True).start()
    main()
