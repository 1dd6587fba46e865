"""`make run-local`: run the whole pipeline once on this machine, and print a summary."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from datetime import date
from types import FrameType
from typing import Any

from commands.local_warehouse import SAMPLE, add_database_arguments, database_name
from deployments.env_file import read_environment
from deployments.local.processes import StartError
from deployments.local.stack import Stack, running
from flows import sources
from flows.errors import ConfigurationError, EltError

NO_SOURCE = """There is no source yet. Write one, from the address of what it returns:

  make new-source NAME=shop URL=https://api.example.com/v2/orders"""
REPLAY = "Loading rejected records again.\n\nStarting Postgres and a Prefect server ..."


def main() -> int:
    """Run everything once; 0 on success."""
    parser = argparse.ArgumentParser(prog="make run-local", description=__doc__)
    add_database_arguments(parser)
    parser.add_argument("--source", default="", help="load only this source")
    parser.add_argument("--resources", default="", help="only these of it: orders,lines")
    parser.add_argument("--limit", default="", help="about so many records of each, to try it")
    parser.add_argument("--since", default="", help="from this day on, 2026-01-31; moves no cursor")
    parser.add_argument("--replay", action="store_true", help="load rejected records again")
    parser.add_argument("--started-at", type=float, default=time.time(), help="when make started")
    arguments = parser.parse_args()
    read_environment()
    if not sources.names():
        print(NO_SOURCE)
        return 1
    try:
        parameters = parameters_of(arguments)
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    signal.signal(signal.SIGTERM, _stop)
    started_at = time.time()
    install_seconds = max(0.0, started_at - arguments.started_at)
    scale = arguments.scale if arguments.api == SAMPLE else None
    print(REPLAY if arguments.replay else _describe_run(arguments.source, scale), flush=True)
    database = database_name(arguments.api, arguments.scale)
    try:
        with running(arguments.home, database, scale) as stack:
            log = arguments.home / "run.log"
            times = [str(started_at), str(install_seconds)]
            given = [str(log), arguments.source, json.dumps(parameters)]
            return _run(stack, [*times, *given])
    except StartError as error:
        print(f"\nFAILED: {error}")
        return 1


def parameters_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The parameters of the flow `elt` that the arguments name.

    Raises:
        ConfigurationError: when a name or a value is wrong, or names something of no source.
    """
    names = [name for name in arguments.resources.replace(" ", "").split(",") if name]
    if names and not arguments.source:
        raise ConfigurationError("RESOURCES are those of one source: name it with SOURCE=….")
    if arguments.source:
        source = sources.find(arguments.source)
        for name in names:
            source.resource(name)
    given = {
        "resources": names,
        "limit": _limit(arguments.limit),
        "since": _day(arguments.since),
        "replay": arguments.replay,
    }
    return {name: value for name, value in given.items() if value}


def _limit(text: str) -> int | None:
    if text and not (text.isdecimal() and int(text)):
        raise ConfigurationError(f"LIMIT={text} must be a number of records, e.g. LIMIT=1000.")
    return int(text) if text else None


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError as error:
        raise ConfigurationError(f"SINCE={text} must be a day like 2026-01-31: {error}.") from error


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _describe_run(source: str, scale: int | None) -> str:
    if source:
        return f"Loading {source}.\n\nStarting Postgres and a Prefect server ..."
    if scale is None:
        found = ", ".join(sources.names())
        return f"Loading {found} from their APIs.\n\nStarting Postgres and a Prefect server ..."
    times = "" if scale == 1 else f", {scale} times the orders"
    return (
        f"Loading from the bundled sample API{times}: its data is GENERATED, not real.\n"
        "`make run-local API=live` loads from the real services instead.\n"
        "\nStarting Postgres, a Prefect server and the sample API ..."
    )


def _run(stack: Stack, arguments: list[str]) -> int:
    """Start the flows' process early, so that it imports modules while the services start."""
    quiet = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    with subprocess.Popen(
        [sys.executable, "-m", "commands.run_local_flows", *arguments],
        env={**os.environ, **stack.environment, **quiet},
        stdin=subprocess.PIPE,
    ) as flows:
        try:
            stack.wait()
            flows.communicate(b"ready\n")
        finally:
            flows.terminate()
    return flows.returncode


if __name__ == "__main__":
    sys.exit(main())
