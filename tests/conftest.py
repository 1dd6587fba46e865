"""Real services for the tests: Postgres, HTTP servers on loopback, the whole local stack."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="elt-tests-prefect-")
os.environ.pop("PREFECT_API_URL", None)

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL

from deployments.local.postgres import ensure_database, libpq, postgres

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """The embedded Postgres, one for all tests."""
    with postgres(tmp_path_factory.mktemp("postgres") / "data") as server:
        yield server


@pytest.fixture
def database(postgres_server: URL) -> URL:
    """An empty database of the test's own."""
    return ensure_database(postgres_server, f"test_{next(_numbers)}")


@pytest.fixture
def connection(database: URL) -> Iterator[Connection]:
    """A connection to the test's own database, as a load gets it."""
    with closing(psycopg2.connect(libpq(database))) as opened:
        yield opened


@pytest.fixture
def query(database: URL) -> Callable[..., list[tuple]]:
    """Run one statement on the test's own database and return its rows."""

    def run(statement: str, *values: object) -> list[tuple]:
        with (
            closing(psycopg2.connect(libpq(database))) as opened,
            opened,
            opened.cursor() as cursor,
        ):
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    return run


@dataclass(frozen=True)
class Answer:
    """What a test's server says: `body` as it is, `declared_length` to cut it short."""

    body: bytes = b"[]"
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    declared_length: int | None = None


@dataclass
class Server:
    """A test's HTTP server on loopback; `asked` lists the paths with their queries, in order."""

    url: str
    asked: list[str]


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str], Answer]], Server]]:
    """Start HTTP servers that answer GET with what a function of the path returns."""
    with ExitStack() as servers:

        def start(answer: Callable[[str], Answer]) -> Server:
            asked: list[str] = []

            class Handler(BaseHTTPRequestHandler):
                protocol_version = "HTTP/1.1"

                def do_GET(self) -> None:
                    asked.append(self.path)
                    said = answer(self.path)
                    self.send_response(said.status)
                    for name, value in said.headers.items():
                        self.send_header(name, value)
                    length = said.declared_length or len(said.body)
                    self.send_header("Content-Length", str(length))
                    self.end_headers()
                    self.wfile.write(said.body)
                    self.close_connection = length != len(said.body)

                def log_message(self, *_: object) -> None:
                    """Say nothing."""

            http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            servers.callback(http.server_close)
            servers.callback(thread.join)
            servers.callback(http.shutdown)
            return Server(f"http://127.0.0.1:{http.server_port}/", asked)

        yield start
