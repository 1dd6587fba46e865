"""The file `.env`: what this machine knows and Git must not, read by every command that needs it.

Must not import Prefect, which reads its settings at import.
"""

import os
import re
from pathlib import Path

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = "ENVIRONMENT"
PRODUCTION = "production"

_set: dict[str, str] = {}


def environment_name() -> str:
    """The environment that commands are for: `ENVIRONMENT`, or production."""
    return os.environ.get(ENVIRONMENT) or PRODUCTION


def env_file(root: Path = ROOT) -> Path:
    """`.env`, or `.env.staging` with ENVIRONMENT=staging.

    Raises:
        SystemExit: when the environment's name is not one, or its file is missing.
    """
    name = environment_name()
    if name == PRODUCTION:
        return root / ".env"
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise SystemExit(
            f"FAILED: ENVIRONMENT={name}: a name has lower-case letters, digits, - and _ only."
        )
    file = root / f".env.{name}"
    if not file.exists():
        raise SystemExit(
            f"FAILED: ENVIRONMENT={name}, but there is no {file}: copy deployments/example.env to "
            "it, and fill in this environment's addresses."
        )
    return file


def read_environment(file: Path | None = None) -> None:
    """Set the variables of `file`, or of `env_file()`, that the environment lacks.

    Empty values count as absent. Called again, it also replaces and removes what it has set before.
    """
    file = file or env_file()
    for name, value in _set.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _set.clear()
    for name, text in dotenv_values(file, interpolate=False).items():
        if text and name not in os.environ:
            os.environ[name] = _set[name] = text
