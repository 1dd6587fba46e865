"""The file `.env`: what this machine knows and Git must not, read by every command that needs it.

Must not import Prefect, which reads its settings at import.
"""

import os
from pathlib import Path

from dotenv import dotenv_values

ENV_FILE = Path(__file__).resolve().parents[1] / ".env"


def read_environment(file: Path = ENV_FILE) -> None:
    """Set the file's variables that the environment lacks; empty values count as absent."""
    for name, value in dotenv_values(file, interpolate=False).items():
        if value and name not in os.environ:
            os.environ[name] = value
