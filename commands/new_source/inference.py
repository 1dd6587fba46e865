"""Infers from a first page: the records' path, their key, the paging style, the types to cast to.

These are suggestions, which a person reviews. Knows nothing of the network.
"""

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

from commands.new_source.literals import Call
from flows.errors import ConfigurationError
from flows.extract.paginators import next_link, value_at
from flows.load.batch import RecordBatch
from flows.load.column_names import column_name, column_names
from flows.page import Page

NEXT_FIELDS = ("next", "next_url", "nextLink", "@odata.nextLink", "links.next", "paging.next")
DEEPEST = 3
# RECORDS=. means that the whole response is one record.
WHOLE = "."
LOADED_AT = "loaded_at"

# Usual names of the field with the records, apart from the resource's name.
_USUAL = re.compile(
    "content|data|entries|hits|items|objects|records|results|rows|values?", re.IGNORECASE
)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?")
_MONEY = re.compile(r"(^|_)(price|amount|total|cost|fee|freight|revenue|balance)(_|$)")
# Usual names of fields about a person; the last word of `customer_email` or `billingPhone` counts.
_PERSONAL = re.compile(
    "(.*_)?(e?mail|e_mail|email_address|phone|phone_number|mobile|mobile_number|first_name|"
    "last_name|full_name|given_name|family_name|surname|birthday|birth_date|date_of_birth|dob|"
    "ssn|iban|ip_address|passport_number|tax_id)"
)
# Of a plain name: the time of a record's last change.
CHANGED = re.compile(r"(?:last)?(updated|modified|changed)(?:at|date|time|on)?")
# Plain names of the token that asks for the next page.
TOTAL_PAGES = frozenset({"totalpages", "pagecount", "lastpage", "pages", "numpages"})
NEXT_TOKENS = frozenset({
    "nextcursor", "nextpagetoken", "nexttoken", "continuationtoken", "endcursor", "nextmarker",
    "nextpagecursor", "nextstartingafter", "cursor", "continuation", "continue",
})  # fmt: skip
# https://www.postgresql.org/docs/current/sql-keywords-appendix.html, those that need quotes.
_KEYWORDS = frozenset(Path(__file__).with_name("sql_keywords.txt").read_text().split())


@dataclass(frozen=True)
class Column:
    """A raw column and its staging cast.

    Attributes:
        field: the API's name.
        type: the raw column's type.
        cast: the type to cast to in staging; empty for none.
        group: id, text, number, boolean or time.
        about: what the API's document says, with a space at its end.
        is_certain: a record has it, so the raw table does.
    """

    field: str
    name: str
    type: str
    cast: str
    group: str
    about: str = ""
    is_certain: bool = True


def records_path(document: Any) -> str | None:
    """The path of the only list of objects in a document; None if the document is one record.

    Raises:
        ConfigurationError: when the path is ambiguous: there are several lists, or empty ones, or
            objects by name.
    """
    if isinstance(document, list):
        return ""
    if not isinstance(document, dict):
        raise ConfigurationError(
            f"The response is {type(document).__name__}, which has no records."
        )
    paths = _places(document, _is_list_of_objects)
    if len(paths) > 1:
        raise ConfigurationError(
            f"There are several lists in the response: {', '.join(map(repr, paths))}. Name the one "
            f"with the records: RECORDS={paths[0]}"
        )
    if not paths:
        _check_is_record(document)
        return None
    _check_is_only_place(document, paths[0])
    return paths[0]


def _check_is_only_place(document: dict[str, Any], path: str) -> None:
    """Refuse e.g. a list of errors next to `items` that are empty today."""
    others = _usual_places(
        document,
        lambda value: _is_nothing(value) or isinstance(value, list) or _is_object_of_objects(value),
    )
    if others and not is_usual(path):
        raise ConfigurationError(
            f"The only list of objects in the response is {path!r}, and the records may be at "
            f"{others[0]!r}. If they are not, use RECORDS={path}. If they are, use parameters "
            "that return some, in a list."
        )


def _check_is_record(document: dict[str, Any]) -> None:
    """Refuse a document that may not be one record."""
    remedy = f"If the whole response is one record, use RECORDS={WHOLE}"
    if empty := _places(document, lambda value: value == []):
        raise ConfigurationError(
            f"There is an empty list in the response: {empty[0]!r}. If it holds the records, use "
            f"parameters that return some. {remedy}"
        )
    if named := _places({"": document}, _is_object_of_objects):
        place = repr(named[0].strip(".")) if named[0] else "the response"
        raise ConfigurationError(
            f"There are objects by name under {place}. If they are the records, declare the "
            f"resource by hand with keyed_at({place}): see docs/sources.md, Bodies. {remedy}"
        )
    _check_usual_places(document, remedy)


def _check_usual_places(document: dict[str, Any], remedy: str) -> None:
    """Refuse a document without objects at the usual places of records."""
    if nothing := _usual_places(document, _is_nothing):
        raise ConfigurationError(
            f"There is nothing at {nothing[0]!r} in the response. If the records belong there, use "
            f"parameters that return some. {remedy}"
        )
    if others := _usual_places(document, lambda value: isinstance(value, list)):
        raise ConfigurationError(
            f"Not everything in the list {others[0]!r} of the response has fields. If it holds the "
            f"records, declare the resource by hand with rows_at({others[0]!r}) or a `records` "
            f"function of your own: see docs/sources.md, Bodies. {remedy}"
        )


def _usual_places(document: Mapping[str, Any], matches: Callable[[Any], bool]) -> list[str]:
    return [path for path in _places(document, matches) if is_usual(path)]


def is_usual(path: str) -> bool:
    return _USUAL.fullmatch(path.rpartition(".")[2]) is not None


def _places(
    document: Mapping[str, Any], matches: Callable[[Any], bool], path: tuple[str, ...] = ()
) -> list[str]:
    """The paths of the matching values, down to the depth `DEEPEST`."""
    found: list[str] = []
    for name, value in document.items():
        if matches(value):
            found.append(".".join((*path, name)))
        elif isinstance(value, dict) and len(path) < DEEPEST:
            found += _places(value, matches, (*path, name))
    return found


def _is_nothing(value: Any) -> bool:
    return value is None or value == {}


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _is_object_of_objects(value: Any) -> bool:
    """True if it looks like records by key: names with digits, or objects that share a field."""
    if not isinstance(value, dict) or not value:
        return False
    if not all(isinstance(item, dict) and item for item in value.values()):
        return False
    is_by_number = all(re.search(r"\d", name) for name in value)
    return is_by_number or (len(value) > 1 and bool(set.intersection(*map(set, value.values()))))


def key(records: Sequence[Mapping[str, Any]], resource: str) -> str | None:
    """The likely key: a field that is named like an id, never null, and unique."""
    wanted = ("id", f"{singular(resource)}_id", "uuid", "key", "code")
    for name in wanted:
        for field in records[0] if records else ():
            values = [record.get(field) for record in records]
            is_plain = all(isinstance(value, str | int) for value in values)
            if column_name(field) == name and is_plain and len(set(values)) == len(values):
                return field
    return None


def paging(page: Page) -> Call | None:
    """The call of `flows.extract.paginators` for the page's next link; None without one."""
    for field in NEXT_FIELDS if page.members else ():
        if isinstance(value_at(page, field), str):
            return Call("next_url", (field,))
    return Call("next_link") if next_link()(page) else None


def next_token(page: Page) -> str | None:
    """The path of what looks like the next page's token; its parameter is in no response."""
    if not page.members:
        return None
    found = _places(page.document, lambda value: isinstance(value, str) and bool(value))
    tokens = [path for path in found if plain(path.rpartition(".")[2]) in NEXT_TOKENS]
    return tokens[0] if tokens else None


def total_pages(page: Page) -> str | None:
    """The path of what looks like the number of pages; their parameter is in no response."""
    if not page.members:
        return None
    found = _places(page.document, lambda value: type(value) is int and value > 0)
    totals = [path for path in found if plain(path.rpartition(".")[2]) in TOTAL_PAGES]
    return totals[0] if totals else None


def plain(name: str) -> str:
    """A name without case and punctuation."""
    return re.sub("[^a-z0-9]", "", name.lower())


def is_personal(field: str) -> bool:
    """Whether a field, or one inside of an object (`customer.email`), is data about a person.

    That is told by its name.
    """
    return _PERSONAL.fullmatch(column_name(field.rpartition(".")[2])) is not None


def inner_fields(value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """The paths of the fields inside of objects and lists, down to the depth `DEEPEST`."""
    for each in value if isinstance(value, list) else [value]:
        for name, inner in each.items() if isinstance(each, dict) else ():
            if path:
                yield ".".join((*path, name))
            if len(path) < DEEPEST:
                yield from inner_fields(inner, (*path, name))


def is_change_time(column: Column) -> bool:
    """Whether a column is named like the time of a record's last change, and is one or a number."""
    return column.group in ("time", "number") and CHANGED.fullmatch(plain(column.name)) is not None


def columns(records: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[Column]:
    """The raw table's columns: ids, then texts, numbers, booleans and times."""
    natural = RecordBatch(records).natural
    names = column_names(natural, known={})
    found = [
        _column(
            field, names[field], kind or "text", [record.get(field) for record in records], keys
        )
        for field, kind in natural.items()
    ]
    return by_group(found)


def by_group(columns: Sequence[Column]) -> list[Column]:
    """Ids first, then texts, numbers, booleans and times."""
    order = ("id", "text", "number", "boolean", "time")
    return sorted(columns, key=lambda column: order.index(column.group))


def staged_names(columns: Sequence[Column], entity: str) -> dict[str, str]:
    """The staging model's unique name for each raw column.

    `id` becomes `order_id`; names that SQL reserves get the entity's name as a prefix.
    """
    names = {
        column.name: column.name
        for column in columns
        if column.name not in {"id", LOADED_AT} and quoted(column.name) == column.name
    }
    for column in columns:
        if column.name not in names:
            names[column.name] = _free_name(column.name, entity, {LOADED_AT, *names.values()})
    return {column.name: names[column.name] for column in columns}


def _free_name(name: str, entity: str, taken: Container[str]) -> str:
    wanted = column_name(f"{entity}_{name}")
    numbered = (column_name(f"{wanted}_{number}") for number in count(2))
    own = [name] if quoted(name) == name else []
    return next(found for found in chain([wanted], own, numbered) if found not in taken)


def _column(field: str, name: str, kind: str, values: Sequence[Any], keys: Sequence[str]) -> Column:
    texts = [value for value in values if isinstance(value, str)]
    cast = ""
    if kind == "text" and texts and all(map(_DAY.fullmatch, texts)):
        cast = "date"
    elif kind == "text" and texts and all(map(_MOMENT.fullmatch, texts)):
        cast = "timestamptz"
    return column(field, name, kind, cast, keys)


def column(field: str, name: str, kind: str, cast: str, keys: Sequence[str]) -> Column:
    """A column with its group; amounts of money get a cast."""
    group = {"bigint": "number", "double precision": "number", "boolean": "boolean"}.get(kind)
    if cast in ("date", "timestamptz"):
        group = "time"
    elif group == "number" and _MONEY.search(name):
        cast = "numeric"
    if field in keys or name == "id" or name.endswith("_id"):
        group = "id"
    return Column(field, name, kind, cast, group or "text")


def singular(resource: str) -> str:
    """The name of one record, by English plural rules."""
    if resource.endswith("ies") and resource != "ies":
        return f"{resource[:-3]}y"
    if resource.endswith(("sses", "xes", "ches", "shes")):
        return resource[:-2]
    is_plural = resource.endswith("s") and not resource.endswith("ss") and resource != "s"
    return resource[:-1] if is_plural else resource


def quoted(name: str) -> str:
    """A column's name, quoted if SQL requires it."""
    is_plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name) is not None and name not in _KEYWORDS
    doubled = name.replace('"', '""')
    return name if is_plain else f'"{doubled}"'
