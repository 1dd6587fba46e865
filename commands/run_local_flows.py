"""Runs the flows once and prints a summary: the part of `make run-local` that imports Prefect.

A separate process, so that Prefect sends everything before the server stops. Its environment
contains the addresses of Postgres, the Prefect server and the APIs.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
from prefect.client.schemas.objects import State
from psycopg2.errors import UndefinedTable

from blocks import warehouse
from commands.load_progress import COUNTED, heading, watch
from deployments.local.stack import REPORTER_URL_VARIABLE
from flows.dbt_build.node_results import PASSED, outcome_of
from flows.elt import elt
from flows.sources import names
from flows.transform import transform

# The output fits a screen; the log has all.
MODELS_SHOWN = 8
# Belongs to the example, which `make remove-example` removes.
REPORT = Path(__file__).parents[1] / "deployments" / "local" / "sample_api" / "report.sql"


def main(
    begun_at: float, install_seconds: float, log: Path, source: str, parameters: Mapping[str, Any]
) -> int:
    """Wait for a line on stdin, sent when the services are up, then run the flows; 0 on success.

    Args:
        begun_at: when the services began to start, as a Unix time.
        install_seconds: the duration of the installation before that.
        log: the file for the logs of Prefect and the flows.
        source: the only source to load; all of them if it is empty.
        parameters: of the flow `elt`, beside the source.
    """
    if not sys.stdin.readline():
        return 1
    seconds = {"install": install_seconds, "services": time.time() - begun_at}
    models = _ShowModels(MODELS_SHOWN if source else 0)
    _log_to(log, models)
    warehouse.save()
    dsn = os.environ[warehouse.URL_VARIABLE]
    problems: list[str] = []
    say("\n" + heading())
    with _timed(seconds, "load"), watch(dsn, say) as totals, ThreadPoolExecutor() as pool:
        load, chosen = partial(_load, parameters), [source] if source else names()
        for name, state in zip(chosen, pool.map(load, chosen), strict=True):
            _note(problems, name, state)
    say(_format_totals(totals))
    say("\nBuilding and testing with dbt ...")
    with _timed(seconds, "dbt"):
        state = transform(return_state=True)
        models.say_rest()
        _note(problems, "dbt", state)
    if not source and REPORT.exists():
        _show_report(os.environ[REPORTER_URL_VARIABLE])
    say("\nSeconds: " + ", ".join(f"{phase} {spent:.1f}" for phase, spent in seconds.items()))
    for problem in problems:
        say(f"\nFAILED: {problem}")
    limit = parameters.get("limit")
    say(_next_steps(log, bool(problems), source, limit))
    return 1 if problems else 0


def _load(parameters: Mapping[str, Any], source: str) -> State[Any]:
    return elt(source=source, transform=False, return_state=True, **parameters)


def say(text: str) -> None:
    """Print without buffering, also into a pipe."""
    print(text, flush=True)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[phase] = time.monotonic() - started


def _log_to(path: Path, models: logging.Handler) -> None:
    """Log Prefect and the flows to a file, with tracebacks; hand dbt's nodes to `models`."""
    everything = logging.FileHandler(path)
    everything.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("prefect", "flows"):
        logging.getLogger(name).addHandler(everything)
    nodes = logging.getLogger("flows.transform")
    nodes.setLevel(logging.DEBUG)
    nodes.addHandler(models)


class _ShowModels(logging.Handler):
    """Prints the first models that are built, and every node that fails or warns."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most
        self._rest = 0
        self._first = "  … and" if most else " "

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        _, _, status = message.rpartition(": ")
        is_model = message.startswith("model ")
        if outcome_of(status) != PASSED or (is_model and self._left > 0):
            say(f"  {message}")
            self._left -= is_model
        else:
            self._rest += is_model

    def say_rest(self) -> None:
        """Print how many models were not printed."""
        if self._rest:
            say(f"{self._first} {self._rest} models")


def _note(problems: list[str], what: str, state: State[Any]) -> None:
    """Add a failed flow's message to the problems, or print a completed flow's summary."""
    if not state.is_completed():
        error = state.result(raise_on_failure=False)
        problems.append(f"{what}: {error if isinstance(error, Exception) else state.message}")
    elif isinstance(summary := state.result(), str):
        say(f"  {summary}")


def _format_totals(totals: Mapping[str, int]) -> str:
    if totals["inserted"] + totals["updated"] == 0:
        return "Nothing new: 0 inserted, 0 updated."
    return "In all: " + ", ".join(f"{totals[name]:,} {name}" for name in COUNTED)


def _show_report(dsn: str) -> None:
    """Print the example's report under the comment that it begins with, if it could be built."""
    statement = REPORT.read_text(encoding="utf-8")
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(statement)
        except UndefinedTable:
            return
        names = [column.name for column in cursor.description or ()]
        say("\n" + statement.partition("\n")[0].removeprefix("-- "))
        for row in [names, *cursor.fetchall()]:
            say("  " + "".join(f"{value!s:>14}" for value in row))


def _next_steps(log: Path, failed: bool, source: str, limit: int | None) -> str:
    if failed:
        return f"\nCommitted rows are kept. The full log, with tracebacks: {log}"
    again = f"make run-local SOURCE={source}" if source else "make run-local"
    if limit:
        return f"\nThe full log: {log}\nOnly the first records were read; {again!r} reads all."
    lines = (
        f"\nThe full log: {log}",
        "Next:",
        '  make psql SQL="select * from elt.loads"',
        f"  {again:38} again: only what is new is loaded",
        "  make report                            charts of the loads and the marts, as a page",
        "  make deploy-plan                       what would be deployed: docs/deploy.md",
    )
    return "\n".join(lines)


if __name__ == "__main__":
    begun, installed, log_file, chosen_source, given = sys.argv[1:]
    times = (float(begun), float(installed))
    sys.exit(main(*times, Path(log_file), chosen_source, json.loads(given)))
