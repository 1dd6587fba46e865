"""A TCP proxy in front of Postgres that cuts a connection before the reply to a COMMIT."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy.engine import URL

_COMMITTED = b"COMMIT\0"  # the tag of the server's reply


@dataclass
class CuttingProxy:
    """`url` leads to the database; the reply to the COMMIT number `cuts_at` is not delivered."""

    database: URL
    url: URL
    cuts_at: int = 0
    commits: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)

    def plan(self, cuts_at: int) -> None:
        """Count from here, and cut once."""
        self.cuts_at, self.commits = cuts_at, 0

    @property
    def has_cut(self) -> bool:
        return self.commits >= self.cuts_at

    def accept(self, listener: socket.socket) -> None:
        """Relay each client's bytes until the listener is shut down."""
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                pair = client, _connected(self.database)
                self._start(self._relay, *pair)
                self._start(self._relay_answers, *pair)

    def _start(self, target: object, *sockets: socket.socket) -> None:
        thread = threading.Thread(target=target, args=sockets)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while sent := client.recv(1 << 16):
                server.sendall(sent)
        _end(server)

    def _relay_answers(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, suppress(OSError):
            while said := server.recv(1 << 16):
                self.commits += said.count(_COMMITTED)
                if _COMMITTED in said and self.commits == self.cuts_at:
                    break
                client.sendall(said)
            _end(client)
            _end(server)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)


@contextmanager
def cutting_proxy(database: URL) -> Iterator[CuttingProxy]:
    """A proxy on loopback that relays until it is planned to cut."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        url = database.set(host="127.0.0.1", port=port, query={"sslmode": "disable"})
        proxy = CuttingProxy(database, url)
        accepting = threading.Thread(target=proxy.accept, args=[listener])
        accepting.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(10)
    proxy.join()


def _connected(database: URL) -> socket.socket:
    host, port = str(database.host or database.query["host"]), database.port or 5432
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    server = socket.socket(socket.AF_UNIX)
    server.connect(f"{host}/.s.PGSQL.{port}")
    return server


def _end(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
