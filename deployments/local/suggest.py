"""What a first page suggests: where its records are, their key, how to page, types to cast to.

Suggestions only: a person reviews what is made of them. Knows no network.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.declaration import Page
from flows.errors import ConfigurationError
from flows.extract.pagination import next_link, value_at
from flows.load.frames import RecordFrame
from flows.load.names import column_name

NEXT_FIELDS = ("next", "next_url", "nextLink", "@odata.nextLink", "links.next", "paging.next")
DEEPEST = 3

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?")
_MONEY = re.compile(r"(^|_)(price|amount|total|cost|fee|freight|revenue|balance)(_|$)")
# https://www.postgresql.org/docs/current/sql-keywords-appendix.html, those that need quotes.
_KEYWORDS = frozenset(Path(__file__).with_name("sql_keywords.txt").read_text().split())


@dataclass(frozen=True)
class Column:
    """A raw column and what to make of it in staging.

    Attributes:
        field: as the API names it.
        type: the raw column's type.
        cast: the type to cast to in staging; empty for none.
        group: id, text, number, boolean or time.
    """

    field: str
    name: str
    type: str
    cast: str
    group: str


def records_path(document: Any) -> str | None:
    """The path of the only list of objects in a document; None where it is one object itself.

    Raises:
        ConfigurationError: when there are several lists, or nothing that could be records.
    """
    if isinstance(document, list):
        return ""
    if not isinstance(document, dict):
        raise ConfigurationError(f"The answer is {type(document).__name__}, which has no records.")
    paths = list(_lists(document, (), DEEPEST))
    if len(paths) > 1:
        raise ConfigurationError(
            f"There are several lists in the answer: {', '.join(paths)}. Say which one holds the "
            f"records: RECORDS={paths[0]}"
        )
    return paths[0] if paths else None


def _lists(document: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Sequence[str]:
    found: list[str] = []
    for name, value in document.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            found.append(".".join((*path, name)))
        elif isinstance(value, dict) and depth:
            found += _lists(value, (*path, name), depth - 1)
    return found


def key(records: Sequence[Mapping[str, Any]], resource: str) -> str | None:
    """The field that is likely to identify a record: named like an id, never null, never twice."""
    wanted = ("id", f"{singular(resource)}_id", "uuid", "key", "code")
    for name in wanted:
        for field in records[0] if records else ():
            values = [record.get(field) for record in records]
            is_plain = all(isinstance(value, str | int) for value in values)
            if column_name(field) == name and is_plain and len(set(values)) == len(values):
                return field
    return None


def paging(page: Page) -> str | None:
    """The call of `flows.extract.pagination` that follows this page's own next link, if any."""
    for field in NEXT_FIELDS if page.members else ():
        if isinstance(value_at(page, field), str):
            return f'next_url("{field}")'
    return "next_link()" if next_link()(page) else None


def columns(records: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[Column]:
    """The raw table's columns, ids first, then texts, numbers, booleans and times."""
    found = [
        _column(field, kind or "text", [record.get(field) for record in records], keys)
        for field, kind in RecordFrame(records).natural.items()
    ]
    order = ("id", "text", "number", "boolean", "time")
    return sorted(found, key=lambda column: order.index(column.group))


def _column(field: str, kind: str, values: Sequence[Any], keys: Sequence[str]) -> Column:
    name = column_name(field)
    texts = [value for value in values if isinstance(value, str)]
    cast, group = "", {"bigint": "number", "double precision": "number"}.get(kind, "text")
    if kind == "boolean":
        group = "boolean"
    elif kind == "text" and texts and all(map(_DAY.fullmatch, texts)):
        cast, group = "date", "time"
    elif kind == "text" and texts and all(map(_MOMENT.fullmatch, texts)):
        cast, group = "timestamptz", "time"
    elif group == "number" and _MONEY.search(name):
        cast = "numeric"
    if field in keys or name == "id" or name.endswith("_id"):
        group = "id"
    return Column(field, name, kind, cast, group)


def singular(resource: str) -> str:
    """The name of one record, as far as English goes."""
    if resource.endswith("ies"):
        return f"{resource[:-3]}y"
    if resource.endswith(("sses", "xes", "ches", "shes")):
        return resource[:-2]
    return resource[:-1] if resource.endswith("s") and not resource.endswith("ss") else resource


def quoted(name: str) -> str:
    """A column's name as SQL wants it."""
    is_plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name) is not None and name not in _KEYWORDS
    return name if is_plain else f'"{name}"'
