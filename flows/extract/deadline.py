"""An end to every answer: also to one that comes byte by byte, in its headers or in its body.

A socket's own timeout starts again with each byte.
"""

import http.client
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

_due_at: ContextVar[float] = ContextVar("due_at")


@contextmanager
def deadline(within_seconds: float) -> Iterator[None]:
    """What an `Adapter` reads in here must have come by then, or reading it times out."""
    outer = _due_at.set(monotonic() + within_seconds)
    try:
        yield
    finally:
        _due_at.reset(outer)


def check_deadline() -> None:
    """Raise TimeoutError when the deadline has passed."""
    if monotonic() >= _due_at.get():
        raise TimeoutError("the answer took too long")


class Adapter(HTTPAdapter):
    """Sends what requests sends; its connections heed the deadline."""

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        """A pool of connections."""
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = _SecureConnection if pool.scheme == "https" else _PlainConnection
        return pool


class _Incoming(io.RawIOBase):
    """What comes in on a socket until the deadline."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._stream = connected.makefile("rb", buffering=0)
        self._silence_seconds = connected.gettimeout() or 0.0
        self._due_at = _due_at.get()
        self.has_ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Receive some bytes; afterwards, the socket's timeout is what it was."""
        left_seconds = self._due_at - monotonic()
        if left_seconds <= 0:
            raise TimeoutError("the answer took too long")
        self._socket.settimeout(min(self._silence_seconds, left_seconds))
        try:
            count = self._stream.readinto(buffer)
        finally:
            self._socket.settimeout(self._silence_seconds)
        self.has_ended = count == 0
        return count

    def close(self) -> None:
        """Let go of the socket."""
        self._stream.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, connected: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(connected, *args, **options)
        self.fp.close()
        self._incoming = _Incoming(connected)
        self.fp = io.BufferedReader(self._incoming)

    def begin(self) -> None:
        """Read the headers; http.client takes those that are cut, or broken, for all there are."""
        super().begin()
        if self._incoming.has_ended:
            raise http.client.RemoteDisconnected("its headers are cut short")
        if not self.msg.is_multipart() and self.msg.get_payload():
            raise http.client.HTTPException("one of its headers is none")


class _PlainConnection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response
