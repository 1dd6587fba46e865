"""Plain COPY of a ready CSV file: no HTTP, no JSON, nothing merged. What Postgres itself takes."""

from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg2 import sql

from tests.benchmark.flights import INTEGERS, KEY, TEXTS
from tests.benchmark.tools import TOOLS, Task

CREATE = sql.SQL("create table {table} ({columns}, primary key ({key}))")
COPY = sql.SQL("copy {table} ({columns}) from stdin (format csv)")


def load(task: Task) -> None:
    """Create the table with the types and the key that this project gives it, and fill it."""
    table = sql.Identifier(*TOOLS["copy"].table)
    with (
        Path(task.csv).open(encoding="utf-8") as file,
        closing(psycopg2.connect(task.database)) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        columns = file.readline().strip().split(",")
        cursor.execute(CREATE.format(table=table, columns=_typed(columns), key=_listed(KEY)))
        cursor.copy_expert(COPY.format(table=table, columns=_listed(columns)), file)


def _listed(columns: tuple[str, ...] | list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _typed(columns: list[str]) -> sql.Composed:
    types = {**dict.fromkeys(INTEGERS, "bigint"), **dict.fromkeys(TEXTS, "text")}
    typed = (sql.SQL("{} " + types[name]).format(sql.Identifier(name)) for name in columns)
    return sql.SQL(", ").join(typed)
