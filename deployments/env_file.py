"""The file `.env`: what this machine knows and Git must not, read by every command that needs it.

Must not import Prefect, which reads its settings at import.
"""

import os
from pathlib import Path

from dotenv import dotenv_values

ENV_FILE = Path(__file__).resolve().parents[1] / ".env"

_set: dict[str, str] = {}


def read_environment(file: Path = ENV_FILE) -> None:
    """Set the file's variables that the environment lacks; empty values count as absent.

    Called again, it also replaces and removes what it has set before.
    """
    for name, value in _set.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _set.clear()
    for name, text in dotenv_values(file, interpolate=False).items():
        if text and name not in os.environ:
            os.environ[name] = _set[name] = text
