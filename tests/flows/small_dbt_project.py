"""What tests of small dbt projects share, beside their fixtures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from sqlalchemy.engine import URL

from blocks.warehouse import Warehouse
from flows.dbt_build import dbt_project, dbt_runner
from flows.errors import EltError

Ask = Callable[..., list[tuple]]
Write = Callable[[str, str], None]

SOURCE = """
sources:
  - name: shop
    schema: raw_shop
    tables: [{name: visits}]
"""
VISIT = "insert into raw_shop.visits values (%s, timestamptz '2026-01-01' + %s * interval '1 day')"


def run_plain_dbt(database: URL, folder: Path, command: str = "run") -> None:
    """`dbt run` in the published schemas, as by hand."""
    project = str(dbt_project.PROJECT)
    where = ["--project-dir", project, "--profiles-dir", project]
    environment = {**Warehouse(database).dbt_environment(), "DBT_LOG_PATH": str(folder)}
    words = [command, *where, "--target-path", str(folder / "plain")]
    said = [each["info"]["msg"] for each in dbt_runner.run(environment, 300, words)]
    assert "Completed successfully" in said, said


def error_of(state: State[Any]) -> str:
    error = state.result(raise_on_failure=False)
    assert isinstance(error, EltError)
    return str(error)
