"""A deadline for every response, even if it arrives byte by byte, in its headers or its body.

A socket's own timeout restarts with each byte.
"""

import http.client
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ssl import SSLContext
from time import monotonic
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

_due_at: ContextVar[float] = ContextVar("due_at")


@contextmanager
def deadline(within_seconds: float) -> Iterator[None]:
    """Time out reads of an `Adapter` in this block after so many seconds in all."""
    outer = _due_at.set(monotonic() + within_seconds)
    try:
        yield
    finally:
        _due_at.reset(outer)


def check_deadline() -> None:
    """Raise TimeoutError when the deadline has passed."""
    if monotonic() >= _due_at.get():
        raise TimeoutError("the response took too long")


class Adapter(HTTPAdapter):
    """An HTTPAdapter whose connections respect the deadline.

    Attributes:
        tls: the settings of new connections, if they show a certificate.
    """

    tls: SSLContext | None = None

    def build_connection_pool_key_attributes(self, *args: Any, **options: Any) -> Any:
        host, settings = super().build_connection_pool_key_attributes(*args, **options)
        if self.tls is not None:
            settings["ssl_context"] = self.tls
        return host, settings

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = _SecureConnection if pool.scheme == "https" else _PlainConnection
        return pool


class _Incoming(io.RawIOBase):
    """Reads a socket until the deadline."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._stream = connected.makefile("rb", buffering=0)
        self._silence_seconds = connected.gettimeout() or 0.0
        self._due_at = _due_at.get()
        self.has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Receive some bytes, then restore the socket's timeout."""
        left_seconds = self._due_at - monotonic()
        if left_seconds <= 0:
            raise TimeoutError("the response took too long")
        self._socket.settimeout(min(self._silence_seconds, left_seconds))
        try:
            count = self._stream.readinto(buffer)
        finally:
            self._socket.settimeout(self._silence_seconds)
        self.has_ended = count == 0
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, connected: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(connected, *args, **options)
        self.fp.close()
        self._incoming = _Incoming(connected)
        self.fp = io.BufferedReader(self._incoming)

    def begin(self) -> None:
        """Read the headers; http.client alone accepts truncated or malformed ones as complete."""
        super().begin()
        if self._incoming.has_ended:
            raise http.client.RemoteDisconnected("its headers are truncated")
        if not self.msg.is_multipart() and self.msg.get_payload():
            raise http.client.HTTPException("one of its headers is malformed")


class _PlainConnection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response
