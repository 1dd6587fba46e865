"""dbt's documentation of the published models: columns, tests and lineage."""

import gzip
import tempfile
from collections.abc import Mapping
from pathlib import Path

from flows.dbt_build import dbt_project, dbt_runner
from flows.dbt_build.dbt_project import MANIFEST, DbtProject
from flows.errors import BuildError


def write(
    environment: Mapping[str, str], project: Path, folder: Path, timeout_seconds: float
) -> None:
    """Write index.html and its data into a folder, with the current columns.

    Raises:
        BuildError: when dbt failed.
    """
    pages = [folder / name for name in ("index.html", MANIFEST, "catalog.json")]
    for page in pages:
        page.unlink(missing_ok=True)
    errors = dbt_project.run(
        DbtProject(project, target=folder),
        {**environment, "DBT_LOG_PATH": str(folder)},
        timeout_seconds,
        [["docs", "generate", "--static"]],
    )
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
