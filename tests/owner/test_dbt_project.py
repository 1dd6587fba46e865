"""The dbt project with the owner's models, as dbt reads it."""

from pathlib import Path

import pytest

from flows.dbt_build import dbt_runner

PROJECT = Path(__file__).resolve().parents[2] / "dbt_project"
NOWHERE = {"WAREHOUSE_HOST": "nobody", "WAREHOUSE_USER": "x", "WAREHOUSE_DATABASE": "x"}


@pytest.mark.long
def test_dbt_can_read_it(tmp_path: Path) -> None:
    """Without a database."""
    folders = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
    command = ["parse", *folders, "--target-path", str(tmp_path)]
    said = list(dbt_runner.run({**NOWHERE, "DBT_LOG_PATH": str(tmp_path)}, 300, command))
    errors = [each["info"]["msg"] for each in said if each["info"]["level"] == "error"]
    assert errors == []
    assert (tmp_path / "manifest.json").exists()
