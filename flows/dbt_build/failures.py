"""Details of failed dbt tests: the first rows that each found."""

from collections.abc import Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build.manifests import Json
from flows.dbt_build.node_results import FAIL, WARN

SHOWN_ROWS = 3
SHOWN_CHARACTERS = 300


def first_rows(cursor: Cursor, manifest: Json, results: Sequence[Json]) -> dict[str, list[str]]:
    """The first failing rows of each test, if dbt stored them, by the test's id."""
    found: dict[str, list[str]] = {}
    for node in results:
        stored = manifest["nodes"].get(node["unique_id"], {}).get("relation_name")
        if node["status"] in (FAIL, WARN) and stored and _exists(cursor, stored):
            statement = sql.SQL("select to_jsonb(failed)::text from {} as failed limit %s")
            cursor.execute(statement.format(sql.SQL(_local(stored))), [SHOWN_ROWS])
            found[node["unique_id"]] = [row[:SHOWN_CHARACTERS] for (row,) in cursor]
    return found


def _exists(cursor: Cursor, relation: str) -> bool:
    cursor.execute("select to_regclass(%s) is not null", [_local(relation)])
    return bool(cursor.fetchall()[0][0])


def _local(relation: str) -> str:
    """A relation's quoted name without the database."""
    return relation.split(".", 1)[1]
