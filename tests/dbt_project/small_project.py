"""A dbt project of a test's own, with the macros of this one."""

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.engine import URL

from tests.dbt_project.running_dbt import PROJECT, Dbt

DECLARED = f"""
name: small
profile: warehouse
macro-paths: [{PROJECT / "macros"}]
models: {{small: {{+schema: staging}}}}
"""
SOURCES = """
sources:
  - name: shop
    schema: raw_shop
    tables: [{name: orders}]
"""


def small_project(database: URL, folder: Path, models: Mapping[str, str]) -> Dbt:
    """A project of these models, by name, on the raw table `orders`."""
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(DECLARED)
    (folder / "models" / "sources.yml").write_text(SOURCES)
    for name, text in models.items():
        (folder / "models" / f"{name}.sql").write_text(text)
    return Dbt(database, folder / "target", folder)
