"""The file .env: the local commands read it, and `make deploy` stores its values as blocks.

An environment beside production has its own: `.env.staging`. Must not import Prefect, which reads
its settings at import.
"""

import os
import re
from pathlib import Path

from dotenv import dotenv_values

from blocks import environment

ROOT = Path(__file__).resolve().parents[1]
POOL = "PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME"
LONGEST = 30

_set: dict[str, str] = {}


def env_file(root: Path = ROOT) -> Path:
    """`.env`, or `.env.staging` with ENVIRONMENT=staging.

    Raises:
        SystemExit: when the environment's name can't be part of a block's name.
    """
    if environment.is_production():
        return root / ".env"
    name = environment.name()
    if len(name) > LONGEST or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise SystemExit(
            f"FAILED: {environment.VARIABLE}={name} is not a name: use lower-case letters, digits "
            f"and single dashes, at most {LONGEST} characters, e.g. staging or pr-12."
        )
    return root / f".env.{name}"


def read_environment(file: Path | None = None) -> None:
    """Set the variables of `file`, or of `env_file()`, that the environment lacks.

    Empty values count as absent. Called again, it also replaces and removes what it has set before.
    An environment's work pool is `elt-staging` if neither names another.

    Raises:
        SystemExit: when the file is not UTF-8, or names another environment than the shell.
    """
    file = file or env_file()
    for name, value in _set.items():
        if os.environ.get(name) == value:
            del os.environ[name]
    _set.clear()
    try:
        values = dotenv_values(file, interpolate=False)
    except UnicodeDecodeError:
        raise SystemExit(f"FAILED: {file} is not UTF-8. Save it with that encoding.") from None
    if values.get(environment.VARIABLE, environment.name()) != environment.name():
        raise SystemExit(
            f"FAILED: {file} sets {environment.VARIABLE}, which says what file to read. Remove "
            f"that line, and run `{environment.VARIABLE}=… make …`."
        )
    if not environment.is_production():
        values.setdefault(POOL, environment.own("elt"))
    for name, text in values.items():
        if text and name not in os.environ:
            os.environ[name] = _set[name] = text
