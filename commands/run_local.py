"""`make run-local`: run the whole pipeline once on this machine, and print a summary."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from deployments.local.processes import StartError
from deployments.local.stack import Stack, running

HOME = Path(__file__).resolve().parents[1] / ".local"
SAMPLE = "sample"
LIVE = "live"
REPLAY = "Loading rejected records again.\n\nStarting Postgres and a Prefect server ..."


def add_database_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select the local database (see `database_name`)."""
    parser.add_argument("--api", choices=[SAMPLE, LIVE], default=SAMPLE)
    parser.add_argument("--scale", type=int, default=1, help="times 830 sample orders")
    parser.add_argument("--home", type=Path, default=HOME, help="where data and logs are kept")


def main() -> int:
    """Run everything once; 0 on success."""
    parser = argparse.ArgumentParser(prog="make run-local", description=__doc__)
    add_database_arguments(parser)
    parser.add_argument("--replay", action="store_true", help="load rejected records again")
    parser.add_argument("--started-at", type=float, default=time.time(), help="when make started")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    started_at = time.time()
    install_seconds = max(0.0, started_at - arguments.started_at)
    scale = arguments.scale if arguments.api == SAMPLE else None
    print(REPLAY if arguments.replay else _describe_run(scale), flush=True)
    database = database_name(arguments.api, arguments.scale)
    try:
        with running(arguments.home, database, scale) as stack:
            log = arguments.home / "run.log"
            replay = ["replay"] if arguments.replay else []
            return _run(stack, [str(started_at), str(install_seconds), str(log), *replay])
    except StartError as error:
        print(f"\nFAILED: {error}")
        return 1


def database_name(api: str, scale: int) -> str:
    """One database per API and scale: generated rows never mix with real ones."""
    return api if api == LIVE or scale == 1 else f"{api}_x{scale}"


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _describe_run(scale: int | None) -> str:
    if scale is None:
        return (
            "Loading from the public services services.odata.org and archive-api.open-meteo.com.\n"
            "\nStarting Postgres and a Prefect server ..."
        )
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
