"""HTTP servers on loopback, which answer what a test says."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext


@dataclass(frozen=True)
class Answer:
    """What a test's server says: `body` as it is, `declared_length` to cut it short.

    `wire` is sent instead of all that, piece by piece; then the connection is closed.
    """

    body: bytes = b"[]"
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    declared_length: int | None = None
    wire: Iterable[bytes] | None = None


class Asked(str):
    """What a test's server was asked for: the path with its query, and what came with it."""

    method: str
    headers: Message
    body: bytes


@dataclass
class Server:
    """A test's HTTP server on loopback; `asked` lists what it was asked for, in order."""

    url: str
    asked: list[Asked]


Serve = Callable[..., Server]


@contextmanager
def serving() -> Iterator[Serve]:
    """Start HTTP servers that answer what a function of the path returns; with TLS, if wanted."""
    with ExitStack() as servers:

        def start(answer: Callable[[Asked], Answer], tls: SSLContext | None = None) -> Server:
            asked: list[Asked] = []
            http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answer, asked))
            if tls is not None:
                http.socket = tls.wrap_socket(http.socket, server_side=True)
            thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.002})
            thread.start()
            servers.callback(http.server_close)
            servers.callback(thread.join)
            servers.callback(http.shutdown)
            return Server(f"http{'s' if tls else ''}://127.0.0.1:{http.server_port}/", asked)

        yield start


def _handler(answer: Callable[[Asked], Answer], asked: list[Asked]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle(self) -> None:
            # Who asks may be gone before all is said.
            with suppress(ConnectionError):
                super().handle()

        def do_GET(self) -> None:
            request = Asked(self.path)
            request.method, request.headers = self.command, self.headers
            request.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(request)
            self.say(answer(request))

        do_POST = do_GET  # noqa: N815 (the base class looks for this name)

        def say(self, said: Answer) -> None:
            if said.wire is not None:
                self.close_connection = True
                for piece in said.wire:
                    self.wfile.write(piece)
                return
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            # A body after "no content" would be read as the start of the next response.
            body = b"" if said.status == HTTPStatus.NO_CONTENT else said.body
            length = said.declared_length or len(body)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = length != len(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
