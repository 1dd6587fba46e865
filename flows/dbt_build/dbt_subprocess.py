"""dbt's commands, one after the other, in a process that ends when its parent does.

The parent holds the other end of stdin: when it is gone, however it ended, so is dbt. The commands
are a JSON list of lists of words. What dbt says goes to stdout, an event a line, as JSON; of its
debug messages, which are thousands, only those that say how a node ended. The process fails when
one of the commands did, after all have been run.

Between two commands it says `CommandEnded` and waits for a line on stdin, so that the parent can
prepare what the next one needs.
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
    """Let every session of dbt's adapter end with its time, and with its other end.

    By statements, because PgBouncer lets no client in that names a statement_timeout at login.
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

    psycopg2.connect = connect_and_limit  # type: ignore[assignment]  # of keywords only, as dbt calls it


def _wait_for_parent(is_success: bool) -> None:
    info = {"name": COMMAND_ENDED, "level": "info", "msg": ""}
    sys.stdout.write(f"{json.dumps({'info': info, 'data': {'is_success': is_success}})}\n")
    sys.stdout.flush()
    _lines_from_parent.acquire()


def main() -> None:
    """Run the commands, and exit."""
    from dbt.cli.main import dbtRunner
    from dbt_common.events.base_types import EventMsg
    from dbt_common.events.functions import msg_to_json

    def tell(event: EventMsg) -> None:
        if event.info.level != "debug" or event.info.name == "NodeFinished":
            sys.stdout.write(f"{msg_to_json(event)}\n")
            sys.stdout.flush()

    _bound_sessions()
    commands = json.loads(sys.argv[1])
    outcomes = []
    for number, command in enumerate(commands, start=1):
        outcomes.append(dbtRunner(callbacks=[tell]).invoke([*command, *QUIET]))
        if number < len(commands):
            _wait_for_parent(outcomes[-1].success)
    for outcome in outcomes:
        if outcome.exception is not None:
            sys.stdout.write(f"{outcome.exception}\n")
    gc.freeze()  # or Python would look through all that dbt made, for a third of a second
    sys.exit(not all(outcome.success for outcome in outcomes))


if __name__ == "__main__":
    threading.Thread(target=_listen_to_parent, daemon=True).start()
    main()
