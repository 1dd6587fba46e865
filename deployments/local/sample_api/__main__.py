"""Command line of the sample API: `python -m deployments.local.sample_api --port N --scale S`."""

from __future__ import annotations

import argparse
import signal
import sys

import uvicorn

from deployments.local.sample_api.app import create_app

HOST = "127.0.0.1"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.local.sample_api",
        description="Serve GENERATED sample data under the contracts of the Northwind OData "
        "service and the Open-Meteo archive. None of it comes from the real services.",
    )
    parser.add_argument("--port", type=int, default=8010, help="TCP port (default: 8010)")
    parser.add_argument(
        "--scale", type=_positive, default=1, help="times 830 orders are generated (default: 1)"
    )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def main() -> None:
    """Serves until SIGTERM or Ctrl-C, then exits with status 0.

    uvicorn raises the signal again after its shutdown, hence a handler that only exits.
    """
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = create_app(scale=arguments.scale)
    uvicorn.run(app, host=HOST, port=arguments.port, log_level="warning")


if __name__ == "__main__":
    main()
