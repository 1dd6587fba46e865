"""`make run-local`: run the whole pipeline once on this machine, and print a summary."""

import argparse
import os
import signal
import subprocess
import sys
import time
from types import FrameType

from commands.local_warehouse import SAMPLE, add_database_arguments, database_name
from deployments.local.processes import StartError
from deployments.local.stack import Stack, running
from flows import sources

NO_SOURCE = """There is no source yet. Write one, from the address of what it returns:

  make new-source NAME=shop URL=https://api.example.com/v2/orders"""
REPLAY = "Loading rejected records again.\n\nStarting Postgres and a Prefect server ..."


def main() -> int:
    """Run everything once; 0 on success."""
    parser = argparse.ArgumentParser(prog="make run-local", description=__doc__)
    add_database_arguments(parser)
    parser.add_argument("--source", default="", help="load only this source")
    parser.add_argument("--replay", action="store_true", help="load rejected records again")
    parser.add_argument("--started-at", type=float, default=time.time(), help="when make started")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    if refused := _refusal(arguments.source):
        print(refused)
        return 1
    started_at = time.time()
    install_seconds = max(0.0, started_at - arguments.started_at)
    scale = arguments.scale if arguments.api == SAMPLE else None
    print(REPLAY if arguments.replay else _describe_run(arguments.source, scale), flush=True)
    database = database_name(arguments.api, arguments.scale)
    try:
        with running(arguments.home, database, scale) as stack:
            log = arguments.home / "run.log"
            replay = ["replay"] if arguments.replay else []
            times = [str(started_at), str(install_seconds)]
            return _run(stack, [*times, str(log), arguments.source, *replay])
    except StartError as error:
        print(f"\nFAILED: {error}")
        return 1


def _refusal(source: str) -> str:
    """Why nothing can be loaded; empty if something can."""
    if not (names := sources.names()):
        return NO_SOURCE
    if source and source not in names:
        return f"FAILED: There is no source {source!r}. There are: {', '.join(names)}."
    return ""


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
