"""Plain COPY of a ready CSV file: no HTTP, no JSON, nothing merged. What Postgres itself takes."""

from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.load.table_schema import create_table
from tests.benchmark.flights import INTEGERS, KEY, TEXTS
from tests.benchmark.tools import TOOLS, Task

COPY = sql.SQL("copy {table} ({columns}) from stdin (format csv)")


def load(task: Task) -> None:
    """Create the table that this project makes, key and own columns too, and fill it."""
    table, csv = sql.Identifier(*TOOLS["copy"].table), Path(task.csv)
    with (
        closing(psycopg2.connect(task.database)) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        types = {**dict.fromkeys(INTEGERS, "bigint"), **dict.fromkeys(TEXTS, "text")}
        names = columns_of(csv)
        create_table(cursor, table, {name: types[name] for name in names}, list(KEY))
        cursor.execute("select set_config('elt.load_id', '1', true)")
        copy(cursor, table, csv)


def columns_of(csv: Path) -> list[str]:
    """The names in the first line."""
    with csv.open(encoding="utf-8") as file:
        return file.readline().strip().split(",")


def copy(cursor: Cursor, table: sql.Identifier, csv: Path) -> None:
    """Copy all lines but the first."""
    columns = sql.SQL(", ").join(map(sql.Identifier, columns_of(csv)))
    with csv.open(encoding="utf-8") as file:
        file.readline()
        cursor.copy_expert(COPY.format(table=table, columns=columns), file)
