"""Compares two versions of a relation: rows, columns, keys, values; returns readable lines."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build.manifests import Json
from flows.dbt_build.publish import RelationName

SHOWN_ROWS = 3
_COLUMNS = """
select attname, format_type(atttypid, atttypmod) from pg_attribute
where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped
order by attnum
"""
_COUNTS = """
select
    count(old.{first}), count(new.{first}),
    count(*) filter (where {added}), count(*) filter (where {gone}),
    count(*) filter (where {changed})
from {old} as old full join {new} as new using ({key})
"""
_ROWS = """
select to_jsonb(old)::text, to_jsonb(new)::text
from {old} as old full join {new} as new using ({key})
where {kind} order by {key} limit %s
"""

Row = Mapping[str, Any]


def key_of(manifest: Json, unique_id: str) -> list[str]:
    """The key of a model by its `unique` or `unique_combination` test; empty if it has none."""
    for test in manifest["nodes"].values():
        if test.get("attached_node") == unique_id and (metadata := test.get("test_metadata")):
            if metadata["name"] == "unique":
                return [metadata["kwargs"]["column_name"]]
            if metadata["name"] == "unique_combination":
                return list(metadata["kwargs"]["columns"])
    return []


def compare(cursor: Cursor, old: RelationName, new: RelationName, key: Sequence[str]) -> list[str]:
    """The differences of `new` from `old`, one per line, after a heading."""
    before, after = _columns(cursor, old), _columns(cursor, new)
    title = ".".join(old)
    if not before:
        return [f"{title}: new, {_count(cursor, new):,} rows"]
    changes = _changed_columns(before, after)
    if not key or not before.keys() >= set(key) <= after.keys():
        rows = f"{_count(cursor, old):,} → {_count(cursor, new):,} rows"
        return [
            f"{title}: {rows}",
            *changes,
            "  no tested key in both versions: values not compared",
        ]
    compared = [
        name for name, kind in after.items() if before.get(name) == kind and name not in key
    ]
    statement = _Comparison(cursor, old, new, key, compared)
    rows_before, rows_after, *counts = statement.counts()
    if not changes and not any(counts):
        return [f"{title}: {rows_after:,} rows, the same"]
    lines = [f"{title}: {rows_before:,} → {rows_after:,} rows", *changes]
    added, gone, changed = counts
    lines.append(f"  key {', '.join(key)}: {added:,} new, {gone:,} gone, {changed:,} changed")
    for kind in ("added", "gone", "changed"):
        lines += [f"    {line}" for line in statement.rows(kind)]
    return lines


class _Comparison:
    """Statements on two relations with a common key."""

    def __init__(
        self,
        cursor: Cursor,
        old: RelationName,
        new: RelationName,
        key: Sequence[str],
        compared: Sequence[str],
    ) -> None:
        self._cursor, self._key, self._compared = cursor, key, compared
        first = sql.Identifier(key[0])
        self._parts = {
            "old": old.quoted,
            "new": new.quoted,
            "key": sql.SQL(", ").join(map(sql.Identifier, key)),
            "first": first,
            "added": sql.SQL("old.{} is null").format(first),
            "gone": sql.SQL("new.{} is null").format(first),
            "changed": sql.SQL(
                "old.{first} is not null and new.{first} is not null and {distinct}"
            ).format(first=first, distinct=_distinct(compared)),
        }

    def counts(self) -> list[int]:
        """Rows before and after; then new, gone and changed keys."""
        self._cursor.execute(sql.SQL(_COUNTS).format(**self._parts))
        return list(self._cursor.fetchall()[0])

    def rows(self, kind: str) -> list[str]:
        """The first rows of a kind: added, gone or changed."""
        statement = sql.SQL(_ROWS).format(**self._parts, kind=self._parts[kind])
        self._cursor.execute(statement, [SHOWN_ROWS])
        return [self._line(_parse(old), _parse(new)) for old, new in self._cursor.fetchall()]

    def _line(self, old: Row, new: Row) -> str:
        if not (old and new):
            row, sign = (new, "+") if new else (old, "-")
            return f"{sign} {_format(row, self._key)}: {_format(row, self._compared)}"
        changes = [
            f"{name} {old[name]} → {new[name]}" for name in self._compared if old[name] != new[name]
        ]
        return f"~ {_format(new, self._key)}: {', '.join(changes)}"


def _distinct(columns: Sequence[str]) -> sql.Composable:
    if not columns:
        return sql.SQL("false")
    sides = [
        sql.SQL(", ").join(sql.Identifier(side, name) for name in columns)
        for side in ("old", "new")
    ]
    return sql.SQL("row({}) is distinct from row({})").format(*sides)


def _columns(cursor: Cursor, name: RelationName) -> dict[str, str]:
    cursor.execute(_COLUMNS, [name.quoted.as_string(cursor)])
    return dict(cursor.fetchall())


def _changed_columns(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    changes = [f"+ {name} {kind}" for name, kind in after.items() if name not in before]
    changes += [f"- {name} {kind}" for name, kind in before.items() if name not in after]
    changes += [
        f"{name} {kind} → {after[name]}"
        for name, kind in before.items()
        if after.get(name, kind) != kind
    ]
    return [f"  columns: {', '.join(changes)}"] if changes else []


def _count(cursor: Cursor, name: RelationName) -> int:
    cursor.execute(sql.SQL("select count(*) from {}").format(name.quoted))
    return int(cursor.fetchall()[0][0])


def _parse(row: str | None) -> Row:
    """A row with its numbers as Postgres prints them; empty for null."""
    parsed: Row = json.loads(row, parse_float=str, parse_int=str) if row else {}
    return parsed


def _format(row: Row, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {row[name]}" for name in names)
