"""OData v4 query options over lists of records: filter, order, page, select.

Knows neither HTTP nor the data.
"""

from __future__ import annotations

import functools
import operator
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Value = str | int | float | bool | datetime | None
Record = tuple[Any, ...]
Rank = tuple[Any, ...]
Compare = Callable[[Any, Any], bool]
Condition = tuple[int, Compare, Value]
Order = list[tuple[int, bool]]

OPTIONS = {"$filter", "$orderby", "$select", "$top", "$skip", "$count", "$skiptoken"}
CONSTANTS: dict[str, Value] = {"null": None, "true": True, "false": False}
OPERATORS: dict[str, Compare] = {
    name: getattr(operator, name) for name in ("eq", "ne", "gt", "ge", "lt", "le")
}
LITERAL = (
    r"null|true|false|'(?:[^']|'')*'"
    r"|\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)"
    r"|-?\d+(?:\.\d+)?"
)
CONDITION = re.compile(
    rf"\s*(?P<property>\w+)\s+(?P<operator>{'|'.join(OPERATORS)})\s+(?P<literal>{LITERAL})"
    r"(?:(?P<and>\s+and\s+)|\s*$)"
)


class QueryError(ValueError):
    """The query is invalid: correct it. Sent with status 400."""


@dataclass(frozen=True, eq=False)
class EntitySet:
    """Records of one kind; each record holds its values in the order of `properties`."""

    name: str
    page_size: int
    key: tuple[str, ...]
    properties: tuple[str, ...]
    records: list[Record]

    def column(self, name: str) -> int:
        if name not in self.properties:
            raise QueryError(f"Could not find a property named '{name}' on '{self.name}'.")
        return self.properties.index(name)

    @functools.cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each property, from its first value that is not null."""
        columns = range(len(self.properties))
        return tuple(
            next((k for k in (kind_of(r[c]) for r in self.records) if k != "null"), "null")
            for c in columns
        )


@dataclass(frozen=True)
class Page:
    """One response; `next_options` are those of the next page, None on the last page."""

    properties: tuple[str, ...]
    rows: list[dict[str, Value]]
    count: int | None
    next_options: dict[str, str] | None


@dataclass(frozen=True)
class Descending:
    """Reverses the sort order of a rank."""

    rank: Rank

    def __lt__(self, other: Descending) -> bool:
        return other.rank < self.rank


def read_page(entity_set: EntitySet, options: Mapping[str, str]) -> Page:
    """Raises: QueryError when an option is unknown or cannot be understood."""
    _refuse_unknown(options)
    orderby = options.get("$orderby")
    records, ranks = _select(entity_set, options.get("$filter"), orderby)
    order = _parse_orderby(entity_set, orderby)
    properties = _parse_select(entity_set, options.get("$select"))
    start = _natural(options, "$skip") or 0
    if "$skiptoken" in options:
        start += bisect_right(ranks, _parse_token(entity_set, order, options["$skiptoken"]))
    top = _natural(options, "$top")
    size = entity_set.page_size if top is None else min(top, entity_set.page_size)
    rows = records[start : start + size]
    more = start + size < len(records) and (top is None or top > size)
    return Page(
        properties=properties,
        rows=_as_dicts(entity_set, properties, rows),
        count=len(records) if _parse_count(options) else None,
        next_options=_next_options(options, top, len(rows), order, rows[-1]) if more else None,
    )


@functools.lru_cache(maxsize=4)
def _select(
    entity_set: EntitySet, filter_text: str | None, orderby: str | None
) -> tuple[list[Record], list[Rank]]:
    """The matching records in order, and their ranks; cached, so paging does not sort again."""
    conditions = _parse_filter(entity_set, filter_text)
    order = _parse_orderby(entity_set, orderby)
    ranked = [
        (_rank([record[column] for column, _ in order], order), record)
        for record in entity_set.records
        if all(_holds(record[column], compare, value) for column, compare, value in conditions)
    ]
    ranked.sort(key=operator.itemgetter(0))
    return [record for _, record in ranked], [rank for rank, _ in ranked]


def _rank(values: list[Value], order: Order) -> Rank:
    """A record's sort key: nulls come first in ascending order, as in the real service."""
    ranks = [(value is not None, value) for value in values]
    return tuple(
        Descending(rank) if descending else rank
        for rank, (_, descending) in zip(ranks, order, strict=True)
    )


def _holds(value: Value, compare: Compare, literal: Value) -> bool:
    """Null equals only null, and is neither greater nor less than anything (OData v4.0, part 2)."""
    if compare in (operator.eq, operator.ne):
        return compare(value, literal)
    return value is not None and literal is not None and compare(value, literal)


def _parse_filter(entity_set: EntitySet, text: str | None) -> list[Condition]:
    conditions: list[Condition] = []
    position = 0
    while text is not None:
        match = CONDITION.match(text, position)
        if not match:
            raise QueryError(f"Syntax error at position {position} in $filter '{text}'.")
        column, value = entity_set.column(match["property"]), parse_literal(match["literal"])
        _refuse_other_kind(entity_set, column, value)
        conditions.append((column, OPERATORS[match["operator"]], value))
        if not match["and"]:
            break
        position = match.end()
    return conditions


def _parse_orderby(entity_set: EntitySet, text: str | None) -> Order:
    """Columns to sort by, True for descending; the key comes last and breaks ties."""
    order: dict[int, bool] = {}
    for part in text.split(",") if text is not None else []:
        name, *direction = part.split() or [""]
        if direction not in ([], ["asc"], ["desc"]):
            raise QueryError(f"Syntax error in $orderby '{text}'.")
        order.setdefault(entity_set.column(name), direction == ["desc"])
    for name in entity_set.key:
        order.setdefault(entity_set.column(name), False)
    return list(order.items())


def _parse_select(entity_set: EntitySet, text: str | None) -> tuple[str, ...]:
    if text is None:
        return entity_set.properties
    names = tuple(name.strip() for name in text.split(","))
    return tuple(entity_set.properties[entity_set.column(name)] for name in names)


def _parse_count(options: Mapping[str, str]) -> bool:
    text = options.get("$count", "false")
    if text not in ("true", "false"):
        raise QueryError(f"$count is '{text}'; expected true or false.")
    return text == "true"


def _parse_token(entity_set: EntitySet, order: Order, text: str) -> Rank:
    """A token is the last record's literals in sort order, key included: `'London',10447`."""
    if not re.fullmatch(rf"(?:{LITERAL})(?:,(?:{LITERAL}))*", text):
        raise QueryError(f"Error in $skiptoken '{text}'.")
    values = [parse_literal(literal) for literal in re.findall(LITERAL, text)]
    if len(values) != len(order):
        raise QueryError(f"$skiptoken '{text}' does not fit $orderby.")
    for (column, _), value in zip(order, values, strict=True):
        _refuse_other_kind(entity_set, column, value)
    return _rank(values, order)


def _next_options(
    options: Mapping[str, str],
    top: int | None,
    row_count: int,
    order: Order,
    last: Record,
) -> dict[str, str]:
    kept = {name: text for name, text in options.items() if name not in ("$skip", "$skiptoken")}
    if top is not None:
        kept["$top"] = str(top - row_count)
    token = ",".join(format_literal(last[column]) for column, _ in order)
    return {**kept, "$skiptoken": token}


def _as_dicts(
    entity_set: EntitySet, properties: tuple[str, ...], rows: list[Record]
) -> list[dict[str, Value]]:
    columns = [(name, entity_set.column(name)) for name in properties]
    return [{name: row[column] for name, column in columns} for row in rows]


def _refuse_unknown(options: Mapping[str, str]) -> None:
    """Options without a dollar sign are the caller's own, and services ignore them."""
    for name in options:
        if name.startswith("$") and name not in OPTIONS:
            raise QueryError(f"The query option '{name}' is not one of {sorted(OPTIONS)}.")


def _refuse_other_kind(entity_set: EntitySet, column: int, value: Value) -> None:
    expected = entity_set.kinds[column]
    if kind_of(value) not in (expected, "null"):
        name = entity_set.properties[column]
        raise QueryError(f"'{name}' is a {expected} and cannot be compared with {value!r}.")


def _natural(options: Mapping[str, str], name: str) -> int | None:
    text = options.get(name)
    if text is not None and not re.fullmatch(r"[0-9]{1,9}", text):
        raise QueryError(f"{name} is '{text}'; expected a whole number, 0 or more.")
    return None if text is None else int(text)


def kind_of(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "date-time"


def parse_literal(text: str) -> Value:
    """Raises: QueryError for a date that is not in the calendar."""
    if text in CONSTANTS:
        return CONSTANTS[text]
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    if "T" not in text:
        return float(text) if "." in text else int(text)
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise QueryError(f"'{text}' is not a date and time.") from error


def format_literal(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)
