"""The tables that a recording fills, as text to compare: rows, columns and types."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.dbt_build.dbt_project import PROJECT
from flows.errors import BuildError
from flows.postgres import connection_url

DBT_SECONDS = 300
_COLUMNS = """
select attname, format_type(atttypid, atttypmod) from pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum
"""
_STAGING = """
select table_name from information_schema.tables
where table_schema = 'staging' and starts_with(table_name, %s) order by table_name
"""


def build_staging(database: URL, recorded: Mapping[str, list[str]]) -> None:
    """Build the staging views of these resources, by their sources, in one run of dbt.

    Resources of which no row was recorded have no table, and no view.

    Raises:
        BuildError: with what dbt printed.
    """
    with closing(psycopg2.connect(libpq(database))) as connection, connection.cursor() as cursor:
        selected = [
            f"source:{source}.{resource}+1,path:models/staging"
            for source, resources in recorded.items()
            for resource in resources
            if _exists(cursor, sql.Identifier(f"raw_{source}", resource))
        ]
    if not selected:
        return
    login = connection_url.from_url(database, "The local Postgres").dbt_environment()
    with tempfile.TemporaryDirectory(prefix="recorded-") as target:
        folders = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
        folders += ["--target-path", target, "--log-path", target]
        words = ["--quiet", "run", "--select", *selected, *folders]
        done = subprocess.run(
            [sys.executable, "-c", "from dbt.cli.main import cli; cli()", *words],
            env={**os.environ, **login, "DBT_USE_COLORS": "false"},
            capture_output=True,
            text=True,
            timeout=DBT_SECONDS,
            check=False,
        )
    if done.returncode:
        raise BuildError(f"dbt can't build the staging views:\n{done.stdout}{done.stderr}")


def described(database: URL, source: str, resources: list[str]) -> str:
    """The raw tables of these resources and the source's staging views."""
    with closing(psycopg2.connect(libpq(database))) as connection, connection.cursor() as cursor:
        cursor.execute(_STAGING, [f"stg_{source}__"])
        views = [("staging", name) for (name,) in cursor.fetchall()]
        tables = [(f"raw_{source}", name) for name in resources]
        return "\n".join(_table(cursor, *table) for table in [*tables, *views])


def _table(cursor: Cursor, schema: str, name: str) -> str:
    table = sql.Identifier(schema, name)
    if not _exists(cursor, table):
        return f"{schema}.{name}: 0 rows, so no table\n"
    cursor.execute(_COLUMNS, [table.as_string(cursor)])
    columns = cursor.fetchall()
    cursor.execute(sql.SQL("select count(*) from {}").format(table))
    (count,) = cursor.fetchone() or (0,)
    lines = [f"{schema}.{name}: {count} rows"]
    return "\n".join([*lines, *(f"  {column:<32} {kind}" for column, kind in columns), ""])


def _exists(cursor: Cursor, table: sql.Identifier) -> bool:
    cursor.execute("select to_regclass(%s) is not null", [table.as_string(cursor)])
    return cursor.fetchone() == (True,)
