"""What the measurements need: Postgres, the API with its pages, the CSV file. All ends with it."""

import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from deployments.local import stack
from deployments.local.postgres import postgres
from deployments.local.processes import child, free_port, wait_for
from tests.benchmark import flights
from tests.benchmark.bench import Bench, csv_file
from tests.benchmark.tools import FIRST_LOAD, MERGE_CHANGED, PATHS

RENDER_SECONDS = 120


@contextmanager
def running(limit: int | None) -> Iterator[Bench]:
    """Start everything in a temporary folder, with the first `limit` flights or all of them."""
    with tempfile.TemporaryDirectory(prefix="elt-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with postgres(folder / "postgres") as server, api(folder, limit) as url:
            rows = flights.write_csv(csv_file(folder, PATHS[FIRST_LOAD]), flights.records(limit))
            changed = map(flights.changed, flights.records(limit))
            flights.write_csv(csv_file(folder, PATHS[MERGE_CHANGED]), changed)
            with urllib.request.urlopen(url) as answer:  # noqa: S310 (ours)
                served = json.load(answer)
            if rows != served["rows"]:
                raise ValueError(f"the API has {served['rows']} rows, the CSV file {rows}")
            bench = Bench(folder, server, url, served, {})
            bench.refer()
            yield bench


@contextmanager
def api(folder: Path, limit: int | None) -> Iterator[str]:
    """Run the API in a process of its own; yields its address once all pages are rendered."""
    port, log = free_port(), folder / "server.log"
    command = [sys.executable, "-m", "tests.benchmark.server", "--port", str(port)]
    if limit is not None:
        command += ["--limit", str(limit)]
    with child(command, log) as process:
        url = f"http://127.0.0.1:{port}/"
        wait_for(url, process, log, RENDER_SECONDS)
        yield url


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve in threads of this process; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def in_stack(module: str, *arguments: object) -> Any:
    """Run a module as a program in the environment of a stack; returns the answer it writes.

    The program's last argument is the file for its answer, as JSON.
    """
    with tempfile.TemporaryDirectory(prefix="elt-benchmark-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        answer, log = folder / "answer.json", folder / "measurement.log"
        with stack.running(folder / "stack", "warehouse") as started:
            started.wait()
            command = [sys.executable, "-m", module, *map(str, arguments), str(answer)]
            with child(command, log, {**os.environ, **started.environment}) as process:
                if process.wait() != 0:
                    raise RuntimeError(f"{module} failed:\n{log.read_text()[-3000:]}")
            return json.loads(answer.read_text())
