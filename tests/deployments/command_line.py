"""Runs commands as a person does, in the tests' project, against the tests' Prefect server."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from conftest import TREE

from deployments.local.stack import Stack

SECONDS = 120


def prefect(stack: Stack, *arguments: str) -> str:
    """Run Prefect's command line, and return what it prints."""
    return run_module(stack, "prefect", "--no-prompt", *arguments)


def run_module(stack: Stack, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a module, and return its output if it succeeds."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=TREE,
        env={**os.environ, **stack.environment, **(environment or {}), "PWD": str(TREE)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_in(root: Path, *command: str, **environment: str) -> str:
    """Run Python in a copy of the checkout, and return its output if it succeeds.

    dbt writes into that copy, also after a test whose stack names other folders for its files.
    """
    target = root / "dbt_project" / "target"
    folders = {"DBT_TARGET_PATH": str(target), "DBT_LOG_PATH": str(target)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), **folders, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
