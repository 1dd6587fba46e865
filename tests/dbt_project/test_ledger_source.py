"""The dbt source `elt` and the ledger it describes have the same columns."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from psycopg2.extensions import connection as Connection

from flows.load import ledger

STAGING = Path(__file__).parents[2] / "dbt_project/models/staging"
(SOURCE,) = yaml.safe_load((STAGING / "elt/_elt__sources.yml").read_text())["sources"]
TABLES = {table["name"]: table for table in SOURCE["tables"]}


@pytest.mark.parametrize("table", ["loads", "partitions", "rejects", "schema_changes"])
def test_every_column_of_the_ledger_is_described(
    table: str, connection: Connection, query: Callable[..., list[tuple]]
) -> None:
    with connection, connection.cursor() as cursor:
        ledger.prepare(cursor, "raw_shop")
    columns = query(
        "select column_name from information_schema.columns"
        " where (table_schema, table_name) = (%s, %s)",
        SOURCE["schema"],
        table,
    )
    described = TABLES[table]["columns"]
    assert columns
    assert {column["name"] for column in described} == {name for (name,) in columns}
    assert all(column["description"] for column in described)
