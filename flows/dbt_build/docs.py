"""dbt's documentation of the published models: columns, tests and lineage."""

import gzip
import tempfile
from collections.abc import Mapping
from pathlib import Path

from flows.dbt_build import dbt_runner
from flows.errors import BuildError


def write(
    environment: Mapping[str, str], project: Path, folder: Path, timeout_seconds: float
) -> None:
    """Write index.html and its data into a folder, with the current columns.

    Raises:
        BuildError: when dbt failed.
    """
    pages = [folder / name for name in ("index.html", "manifest.json", "catalog.json")]
    for page in pages:
        page.unlink(missing_ok=True)
    where = ["--project-dir", str(project), "--profiles-dir", str(project)]
    command = ["docs", "generate", "--static", *where, "--target-path", str(folder)]
    events = dbt_runner.run({**environment, "DBT_LOG_PATH": str(folder)}, timeout_seconds, command)
    errors = [each["info"]["msg"] for each in events if each["info"]["level"] == "error"]
    if errors or not all(page.exists() for page in pages):
        message = dbt_runner.last_errors(errors)
        raise BuildError(f"dbt could not write its documentation: {message}")


def packed(environment: Mapping[str, str], project: Path, timeout_seconds: float) -> bytes:
    """The documentation as one HTML page, gzip.

    Raises:
        BuildError: as `write` does.
    """
    with tempfile.TemporaryDirectory() as name:
        write(environment, project, Path(name), timeout_seconds)
        return gzip.compress(Path(name, "static_index.html").read_bytes())
