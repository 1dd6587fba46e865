"""The settings of the server that `make up` runs, for a `make deploy` beside it.

Must not import Prefect, which reads its settings at import.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deployments.local.processes import is_alive

HOME = Path(__file__).resolve().parents[2] / ".local"
_FILE = "up.json"


@contextmanager
def announced(home: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """Let others find these settings during the block; only this user may read them."""
    file = home / _FILE
    file.touch(mode=0o600)
    file.write_text(json.dumps({"process": os.getpid(), "settings": dict(settings)}))
    try:
        yield
    finally:
        file.unlink()


def find(home: Path = HOME) -> Mapping[str, str]:
    """The settings of the running server; none if no `make up` is running."""
    try:
        found = json.loads((home / _FILE).read_text())
    except FileNotFoundError:
        return {}
    settings: Mapping[str, str] = found["settings"]
    return settings if is_alive(found["process"]) else {}
