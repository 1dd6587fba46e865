"""Postgres holds the values of the JSON: a property, tested with generated records."""

import json
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from flows.load.loader import load
from flows.load.table_schema import column_types
from flows.source import Partition
from tests.load.memory_api import MemoryApi, items

SOURCES = (f"made_up_{number}" for number in count())
TYPES = {int: "number", float: "number", dict: "nested", list: "nested"}
SINGLE = {
    frozenset({int}): {"bigint"},
    frozenset({float}): {"double precision"},
    frozenset({int, float}): {"double precision"},
    frozenset({bool}): {"boolean"},
    frozenset({str}): {"text"},
    frozenset({dict}): {"jsonb"},
    frozenset({list}): {"jsonb"},
    frozenset({dict, list}): {"jsonb"},
}

texts = st.one_of(
    st.sampled_from(
        ["", "\\N", "\\.", "\t", "\n", "\r\n", "\\", "\\t", '"', "'", "null", "1", "é😀"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
)
whole = st.integers(-(2**63), 2**63 - 1)
exact = st.integers(-(2**53), 2**53)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(texts, exact, floats, st.booleans())
nested = st.recursive(
    st.one_of(st.none(), texts, whole, floats, st.booleans()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
).filter(lambda value: isinstance(value, dict | list))
columns = st.sampled_from([
    whole, exact, floats, exact | floats, st.booleans(), texts, nested, scalars,
    whole | texts, whole | st.booleans(), texts | nested, exact | floats | nested, scalars | nested,
])  # fmt: skip


@st.composite
def records(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Records in which every field has a kind of values of its own, or lacks them."""
    kinds = {name: draw(columns) for name in "abcd"}
    fields = {name: st.none() | kind for name, kind in kinds.items()}
    record = st.fixed_dictionaries({"id": st.integers(1, 6)}, optional=fields)
    return draw(st.lists(record, min_size=1, max_size=8))


def same(stored: Any, said: Any) -> bool:
    """Whether two JSON values are equal; Postgres may write 1.0 as 1, and 1e22 with all zeros."""
    if isinstance(said, dict):
        return stored.keys() == said.keys() and all(same(stored[key], said[key]) for key in said)
    if isinstance(said, list):
        return len(stored) == len(said) and all(map(same, stored, said))
    if isinstance(said, float):
        return type(stored) in {int, float} and float(stored) == said
    return type(stored) is type(said) and bool(stored == said)


def written_out(stored: Any, said: Any) -> bool:
    """Whether `stored` is a scalar of another type than string as JSON writes it."""
    return isinstance(stored, str) and not isinstance(said, str) and same(json.loads(stored), said)


def kept(stored: Any, said: Any, kind: str, mixed: bool) -> bool:
    """Whether the column of type `kind` holds the value of the JSON."""
    if said is None:
        return stored is None
    if kind == "text" or (kind == "jsonb" and mixed and isinstance(stored, str)):
        return written_out(stored, said) or same(stored, said)
    return same(stored, said) or (kind == "double precision" and stored == said)


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(records(), st.integers(1, 3), st.integers(1, 3), st.sampled_from([True, False]))
def test_postgres_holds_what_json_says(
    connection: Connection,
    rows: list[dict[str, Any]],
    page_rows: int,
    checkpoint_rows: int,
    escaped: bool,
) -> None:
    source = next(SOURCES)
    pages = [
        json.dumps(rows[start : start + page_rows], ensure_ascii=escaped).encode()
        for start in range(0, len(rows), page_rows)
    ]
    resource = items(checkpoint_rows=checkpoint_rows)
    entry = load(connection, source, resource, Partition(), MemoryApi(pages))
    said = {row["id"]: row for page in pages for row in json.loads(page)}
    table = sql.Identifier(f"raw_{source}", "items")
    with connection, connection.cursor() as cursor:
        kinds = column_types(cursor, table)
        cursor.execute(sql.SQL("select * from {}").format(table))
        stored = {row["id"]: row for row in (dict(zip(kinds, v, strict=True)) for v in cursor)}
    assert stored.keys() == said.keys()
    assert entry.extracted == len(rows)
    fields = {name for row in rows for name in row}
    assert kinds.keys() == fields | {"_loaded_at", "_load_id"}
    for name in fields:
        types = frozenset(type(row[name]) for row in rows if row.get(name) is not None)
        assert kinds[name] in SINGLE.get(types, {"text", "jsonb", kinds[name]})
        mixed = len({TYPES.get(kind, kind.__name__) for kind in types} - {"nested"}) > 1
        for key, row in said.items():
            assert kept(stored[key][name], row.get(name), kinds[name], mixed), (name, key)
