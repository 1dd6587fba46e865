"""Details of failed dbt tests: the first rows that each found."""

from collections.abc import Sequence

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build.manifests import Json
from flows.dbt_build.node_results import FAIL, WARN
from flows.dbt_build.publish import RelationName, exists

_ROWS = "select to_jsonb(failed)::text from {} as failed limit {}"
SHOWN_ROWS = 3
SHOWN_CHARACTERS = 300


def first_rows(cursor: Cursor, manifest: Json, results: Sequence[Json]) -> dict[str, list[str]]:
    """The first failing rows of each test, if dbt stored them, by the test's id."""
    found: dict[str, list[str]] = {}
    for result in results:
        test = manifest["nodes"].get(result["unique_id"], {})
        if result["status"] in (FAIL, WARN) and test.get("relation_name"):
            stored = RelationName(test["schema"], test["alias"])
            if exists(cursor, stored):
                cursor.execute(sql.SQL(_ROWS).format(stored.quoted, sql.Literal(SHOWN_ROWS)))
                found[result["unique_id"]] = [row[:SHOWN_CHARACTERS] for (row,) in cursor]
    return found
