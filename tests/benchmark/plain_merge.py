"""Plain SQL over a table that plain COPY filled: the merge that one would write by hand.

`update` copies the CSV file into a temporary table, then updates what it has and inserts what is
new: every row that is sent, changed or not. `rebuild` fills a new table, adds what the old one has
besides, and takes its place: readers have to wait, and views on the old table would be lost.
"""

from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.load.primary_key import definition
from flows.load.table_schema import exists
from tests.benchmark import plain_copy
from tests.benchmark.flights import KEY
from tests.benchmark.tools import TOOLS, Task

NEW = sql.Identifier("public", "new_flights")
STAGE = sql.Identifier("pg_temp", "stage")

CREATE_STAGE = sql.SQL("create temporary table stage as select {columns} from {table} limit 0")
UPDATE = sql.SQL(
    "update {table} as present set {assignments}, _loaded_at = now(), _load_id = 2"
    " from {stage} as latest where {same_key}"
)
INSERT = sql.SQL(
    "insert into {table} ({columns}, _loaded_at, _load_id) select {columns}, now(), 2"
    " from {stage} as latest where not exists (select from {table} as present where {same_key})"
)
CREATE_NEW = sql.SQL("create table {new} (like {table} including defaults)")
ADD_KEY = sql.SQL("alter table {new} add {key}")
KEEP = sql.SQL(
    "insert into {new} select * from {table} as latest"
    " where not exists (select from {new} as present where {same_key})"
)
TAKE_PLACE = sql.SQL("drop table {table}; alter table {new} rename to flights")


def load(task: Task) -> None:
    """Merge the CSV file into the table; if there is none yet, fill it by plain COPY."""
    write = {"update": update, "rebuild": rebuild}[task.tool]
    table = sql.Identifier(*TOOLS[task.tool].table)
    with closing(psycopg2.connect(task.database)) as connection:
        with connection, connection.cursor() as cursor:
            is_first = not exists(cursor, table)
        if is_first:
            plain_copy.load(task)
            return
        with connection, connection.cursor() as cursor:
            write(cursor, table, Path(task.csv))


def update(cursor: Cursor, table: sql.Identifier, csv: Path) -> None:
    """Copy the rows into a stage; write all of them to the table."""
    parts = parts_of(table, plain_copy.columns_of(csv))
    cursor.execute(CREATE_STAGE.format(**parts))
    plain_copy.copy(cursor, STAGE, csv)
    cursor.execute(UPDATE.format(**parts))
    cursor.execute(INSERT.format(**parts))


def rebuild(cursor: Cursor, table: sql.Identifier, csv: Path) -> None:
    """Copy the rows into a new table; it takes the place of the old one."""
    parts = parts_of(table, plain_copy.columns_of(csv))
    cursor.execute("select set_config('elt.load_id', '2', true)")
    cursor.execute(CREATE_NEW.format(**parts))
    plain_copy.copy(cursor, NEW, csv)
    cursor.execute(ADD_KEY.format(new=NEW, key=definition(KEY)))
    cursor.execute(KEEP.format(**parts))
    cursor.execute(TAKE_PLACE.format(**parts))


def parts_of(table: sql.Identifier, names: list[str]) -> dict[str, sql.Composable]:
    """What the statements are made of."""
    set_one, same = sql.SQL("{0} = latest.{0}"), sql.SQL("present.{0} = latest.{0}")
    rest = [sql.Identifier(name) for name in names if name not in KEY]
    return {
        "table": table,
        "stage": STAGE,
        "new": NEW,
        "columns": sql.SQL(", ").join(map(sql.Identifier, names)),
        "assignments": sql.SQL(", ").join(set_one.format(name) for name in rest),
        "same_key": sql.SQL(" and ").join(same.format(sql.Identifier(name)) for name in KEY),
    }
