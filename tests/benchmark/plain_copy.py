"""Plain COPY of a ready CSV file: no HTTP, no JSON, nothing merged. What Postgres itself takes."""

from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg2 import sql

from flows.load.table_schema import create_table
from tests.benchmark.flights import INTEGERS, KEY, TEXTS
from tests.benchmark.tools import TOOLS, Task

COPY = sql.SQL("copy {table} ({columns}) from stdin (format csv)")


def load(task: Task) -> None:
    """Create the table that this project makes, key and own columns too, and fill it."""
    table = sql.Identifier(*TOOLS["copy"].table)
    with (
        Path(task.csv).open(encoding="utf-8") as file,
        closing(psycopg2.connect(task.database)) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        columns = file.readline().strip().split(",")
        types = {**dict.fromkeys(INTEGERS, "bigint"), **dict.fromkeys(TEXTS, "text")}
        create_table(cursor, table, {name: types[name] for name in columns}, list(KEY))
        cursor.execute("select set_config('elt.load_id', '1', true)")
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        cursor.copy_expert(COPY.format(table=table, columns=listed), file)
