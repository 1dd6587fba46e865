"""The wire: an answer's bytes on a connection, in time or not, whole or not."""

import socket
import struct
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from threading import Event

from tests.fault_api.exchange import Answer

BODILESS = {204, 304}
LINGER_NOT = struct.pack("ii", 1, 0)


class Wire:
    """One connection; `is_closed` once the client has to open another one."""

    def __init__(self, connection: socket.socket, stopped: Event) -> None:
        self._connection = connection
        self._stopped = stopped
        self.is_closed = False

    def send(self, answer: Answer) -> None:
        """Send an answer as it ought to be sent."""
        self.write(head(answer) + answer.body)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._connection.sendall(data)

    def drip(self, data: bytes, seconds: float) -> None:
        """Send one byte at a time, and wait before each."""
        for place in range(len(data)):
            self.wait(seconds)
            self.write(data[place : place + 1])

    def write_chunks(self, chunks: Iterable[bytes]) -> None:
        """Send a body in chunks (RFC 9112, 7.1), and say at the end that it is complete."""
        for chunk in chunks:
            if chunk:
                self.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.write(b"0\r\n\r\n")

    def wait(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            ConnectionAbortedError: when the server is stopped meanwhile.
        """
        if self._stopped.wait(seconds):
            raise ConnectionAbortedError("the server is stopped")

    def close(self) -> None:
        """End the connection in an orderly way (FIN), whatever is still missing."""
        self.is_closed = True

    def reset(self) -> None:
        """Break the connection (RST): closed at once, without lingering (socket(7), SO_LINGER)."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        socket.close(self._connection.detach())
        self.is_closed = True


def head(answer: Answer, length: int | None = None) -> bytes:
    """Status line and headers; `length` to announce another length than the body's."""
    headers = {**answer.headers, "Date": formatdate(usegmt=True)}
    if answer.status not in BODILESS and "Transfer-Encoding" not in headers:
        headers["Content-Length"] = str(len(answer.body) if length is None else length)
    lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
