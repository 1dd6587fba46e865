"""Commands as a person types them in the checkout, against the tests' Prefect server."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from deployments.local.stack import Stack

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 120


def prefect(stack: Stack, *arguments: str) -> str:
    """Run Prefect's command line, and return what it prints."""
    return run_module(stack, "prefect", "--no-prompt", *arguments)


def run_module(stack: Stack, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a module; what it prints, when it succeeds."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **stack.environment, **(environment or {}), "PWD": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
