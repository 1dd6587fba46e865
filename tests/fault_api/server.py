"""The server that can misbehave: an API on a socket of which every byte can be spoiled.

Faults are planned over HTTP, at /_faults and /_requests, by whoever can reach loopback.
"""

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from threading import Event, Thread
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from tests.fault_api import wrong_answers, wrong_lists, wrong_wires
from tests.fault_api.catalogue.items import ITEM_COUNT, items
from tests.fault_api.catalogue.listing import Listing
from tests.fault_api.catalogue.resources import Catalogue
from tests.fault_api.exchange import Answer, Ask, AskError, as_json, refusal
from tests.fault_api.plan import Plan
from tests.fault_api.turn import Api, Turn
from tests.fault_api.wire import Wire
from tests.project.api import answer

HOST = "127.0.0.1"
FAULTS = {**wrong_answers.FAULTS, **wrong_lists.FAULTS, **wrong_wires.FAULTS}


class Server(ThreadingTCPServer):
    """A thread per connection; closing it ends its connections too, also those that wait."""

    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, app: ASGIApp, port: int, item_count: int, is_alone: bool = False) -> None:
        self.api = Api(app, Catalogue(Listing(items(item_count))), is_alone)
        self.plan = Plan(FAULTS)
        self.stopped = Event()
        self._connections: set[socket.socket] = set()
        super().__init__((HOST, port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Keep the connection in mind."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong, unless it is a client that has gone away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """End every connection, then wait for their threads."""
        self.stopped.set()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class Handler(BaseHTTPRequestHandler):
    """Requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        """Answer a request of any method."""
        wire = Wire(self.connection, self.server.stopped)
        try:
            self._respond(self._ask(), wire)
        except ConnectionError:
            wire.close()
        self.close_connection = self.close_connection or wire.is_closed

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 (http.server asks for them)

    def log_message(self, *_: object) -> None:
        """Say nothing: /_requests tells what came."""

    def _ask(self) -> Ask:
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known}, {value}"
        body = self.rfile.read(int(headers.get("content-length", 0)))
        host = headers.get("host", "{}:{}".format(*self.server.server_address))
        return Ask(self.command, self.path, headers, body, f"http://{host}")

    def _respond(self, ask: Ask, wire: Wire) -> None:
        try:
            if ask.path in {"/_faults", "/_requests"}:
                wire.send(self._control(ask))
            else:
                self._take_turn(Turn(ask, self.server.api, wire))
        except AskError as error:
            wire.send(refusal(error))

    def _take_turn(self, turn: Turn) -> None:
        due = self.server.plan.take(turn.ask)
        if due is None:
            turn.send(turn.answer())
        else:
            FAULTS[due.fault](turn, **due.options)

    def _control(self, ask: Ask) -> Answer:
        plan, api = self.server.plan, self.server.api
        match ask.method, ask.path:
            case "POST", "/_faults":
                plan.replace(_parsed(ask.body))
                api.restore()
            case "DELETE", "/_faults":
                plan.end()
                api.restore()
            case "GET", "/_requests":
                return as_json(plan.requests())
            case "GET", "/_faults":
                pass
            case _:
                raise AskError(f"{ask.path} knows no {ask.method}.", 405)
        return as_json(plan.faults())


def _parsed(body: bytes) -> object:
    try:
        parsed: object = json.loads(body)
    except ValueError as error:
        raise AskError(f"The body is no JSON: {error}.") from error
    return parsed


async def project_api(scope: Scope, receive: Receive, send: Send) -> None:
    """The API of the tests' project, as an ASGI app."""
    said = answer(f"{scope['path']}?{scope['query_string'].decode()}")
    headers = [(name.lower().encode(), value.encode()) for name, value in said.headers.items()]
    await send({"type": "http.response.start", "status": said.status, "headers": headers})
    await send({"type": "http.response.body", "body": said.body})


@contextmanager
def misbehaving(
    app: ASGIApp | None = None,
    item_count: int = ITEM_COUNT,
    port: int = 0,
    is_alone: bool = False,
) -> Iterator[str]:
    """Serve in threads of this process; yields the URL, without a slash at its end.

    Args:
        app: answers what is not in the catalogue; the API of the tests' project unless given.
        item_count: how many rows the catalogue has.
        port: of loopback; 0 is a free one.
        is_alone: the app answers the catalogue's paths as well.
    """
    with Server(app or project_api, port, item_count, is_alone) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield "http://{}:{}".format(*server.server_address)
        finally:
            server.shutdown()
            thread.join()
