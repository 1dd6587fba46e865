"""The settings of the server that `make up` runs, for a `make deploy` beside it.

Must not import Prefect, which reads its settings at import.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from deployments.local.processes import command_of

HOME = Path(__file__).resolve().parents[2] / ".local"
_FILE = "up.json"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0"})  # noqa: S104 (nothing binds)


def announce(home: Path, settings: Mapping[str, str]) -> None:
    """Let others find these settings while this process runs; only this user may read them."""
    file, process = home / f"{_FILE}.part", os.getpid()
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    found = {"process": process, "command": command_of(process), "settings": dict(settings)}
    file.write_text(json.dumps(found))
    file.replace(home / _FILE)


def withdraw(home: Path) -> None:
    """Let nobody find them any more."""
    (home / _FILE).unlink(missing_ok=True)


def find(home: Path = HOME) -> Mapping[str, str]:
    """The settings of the running server; none if no `make up` is running."""
    try:
        found = json.loads((home / _FILE).read_text())
    except FileNotFoundError:
        return {}
    settings: Mapping[str, str] = found["settings"]
    # Another program may have got the process id of a `make up` that was killed.
    return settings if command_of(found["process"]) == found["command"] else {}


def is_same(url: str, other: str) -> bool:
    """Whether both are the address of the same server, however this machine is called."""
    return _place(url) == _place(other)


def _place(url: str) -> tuple[str, int | None, str]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return "loopback" if host in _LOOPBACK else host, parts.port, parts.path.rstrip("/")
