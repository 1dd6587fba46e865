"""TLS settings of a client that shows a certificate."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import NamedTemporaryFile

from urllib3.util.ssl_ import create_urllib3_context

from flows.errors import RefusedLoginError


def tls_with(certificate: str, name: str) -> ssl.SSLContext:
    """Settings with a certificate and its private key, in PEM; `name` is that of their secret.

    Raises:
        RefusedLoginError: the secret is something else.
    """
    settings = create_urllib3_context()
    try:
        with _file(certificate) as path:
            settings.load_cert_chain(path, password=_no_password)
        return settings
    except (OSError, ValueError):
        # Not the cause: some versions of OpenSSL quote what they can't read.
        problem = RefusedLoginError(
            f"The secret {name!r} is not a certificate with its private key, both in PEM and "
            "without a password. Store it again."
        )
    raise problem


def _no_password() -> str:
    """Instead of asking whoever sits at the terminal."""
    raise ValueError


@contextmanager
def _file(text: str) -> Iterator[str]:
    """A file for OpenSSL, which reads nothing else; in memory, where the system has such files."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("certificate"), "w") as file:
            file.write(text)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            yield file.name
