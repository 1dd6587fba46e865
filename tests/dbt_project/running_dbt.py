"""dbt's command line on a test's own database."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from blocks.warehouse import Warehouse
from flows.dbt_build import dbt_project

# The tests' project; of this repository where pytest does not run, as in `tests/benchmark`.
PROJECT = dbt_project.PROJECT
SECONDS = 300


@dataclass(frozen=True)
class Dbt:
    """Runs dbt on one database; its artifacts are kept in `target`."""

    database: URL
    target: Path
    project: Path = PROJECT

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command; its exit code and all it printed."""
        settings = {
            "DBT_PROJECT_DIR": str(self.project),
            "DBT_PROFILES_DIR": str(PROJECT),
            "DBT_TARGET_PATH": str(self.target),
            "DBT_LOG_PATH": str(self.target),
            "DBT_USE_COLORS": "false",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        }
        done = subprocess.run(
            [sys.executable, "-c", "from dbt.cli.main import cli; cli()", *arguments],
            env={**os.environ, **settings, **Warehouse(self.database).dbt_environment()},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        return done.returncode, done.stdout + done.stderr

    def succeed(self, *arguments: str) -> None:
        """Run a command that must not fail."""
        code, printed = self.run(*arguments)
        assert code == 0, printed

    def artifact(self, name: str) -> Any:
        """What the last command left in `<name>.json`."""
        return json.loads((self.target / f"{name}.json").read_text())
