"""What a page's fields say about the next one, and the place of a request that names it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract import url_policy
from flows.page import HttpRequest, Page

# Values of `more` that mean there is no next page, or there is one.
NOTHING_MORE = frozenset({"false", "0"})


SOMETHING_MORE = frozenset({"true", "1"})


@dataclass(frozen=True)
class ResponseHeader:
    """A header of the response that paging reads instead of a field of the body."""

    name: str

    def __repr__(self) -> str:
        """As it is declared."""
        return f"response_header({self.name!r})"


def response_header(name: str) -> ResponseHeader:
    """A header of the response, wherever paging takes the name of a field of the body.

    For example `page_number(total_pages=response_header("X-WP-TotalPages"))`.
    """
    return ResponseHeader(name)


@dataclass(frozen=True)
class Unless:
    """A flag that is true on the last page, read as one that says whether more follows."""

    field: str | ResponseHeader

    def __repr__(self) -> str:
        """As it is declared."""
        return f"unless({self.field!r})"

    def more(self, flag: Any) -> Any:
        """Whether more follows by this value of the flag; None if it says neither."""
        text = str(flag).lower()
        return text in NOTHING_MORE if text in NOTHING_MORE | SOMETHING_MORE else None


def unless(field: str | ResponseHeader) -> Unless:
    """The opposite of a flag, wherever paging takes `more`.

    For APIs that say when it is over: `offset("startAt", more=unless("isLast"))`.
    """
    return Unless(field)


Field = str | ResponseHeader | Unless


def value_at(page: Page, field: Field) -> Any:
    """The value of `field` in the body's object, where dots name nested fields; None if missing.

    For a `response_header`, its text; for `unless`, whether more follows.
    """
    if isinstance(field, Unless):
        return field.more(value_at(page, field.field))
    if isinstance(field, ResponseHeader):
        return page.headers.get(field.name)
    names = tuple(field.split("."))
    found: Any = page.document if page.members is None else page.members
    if isinstance(found, Mapping) and field in found:
        return parsed(found[field])
    if page.members_at(names[:-1]) is not None:
        return parsed(page.unparsed(names))
    for name in names:
        found = parsed(found)
        found = found.get(name) if isinstance(found, Mapping) else None
    return parsed(found)


def with_param(request: HttpRequest, name: str, value: Any) -> HttpRequest:
    """The request with a query parameter set."""
    return replace(request, url=url_policy.with_param(request.url, name, as_text(value)))


def parsed(value: Any) -> Any:
    """The value of JSON that is not parsed yet; others as they are."""
    return json.loads(bytes(value)) if isinstance(value, msgspec.Raw) else value


def as_text(value: Any) -> str:
    """The value as text; what is none is written as in JSON."""
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Place:
    """Where a request holds what paging changes: one of three, the others are empty."""

    param: str
    header: str
    body_field: str

    def __post_init__(self) -> None:
        """Require exactly one."""
        if len(list(filter(None, (self.param, self.header, self.body_field)))) != 1:
            raise ConfigurationError("Paging needs one of param, header and body_field.")

    def put(self, request: HttpRequest, value: Any) -> HttpRequest:
        """The request with the value in this place."""
        if self.param:
            return with_param(request, self.param, value)
        if self.header:
            return replace(request, headers={**request.headers, self.header: as_text(value)})
        body = _with_field(request.body, self.body_field.split("."), value)
        return replace(request, body=body)

    def number(self, request: HttpRequest, first: int) -> int:
        """The offset or page number of a request; `first` if it has none.

        Raises:
            ConfigurationError: it is not a number.
        """
        if self.param:
            number = dict(parse_qsl(urlsplit(request.url).query)).get(self.param, first)
        else:
            number = request.body
            for name in self.body_field.split("."):
                number = number.get(name, first) if isinstance(number, dict) else first
        try:
            return int(number)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{request.url} is requested with {number!r} as its "
                f"{self.param or self.body_field!r}, which is not a number. Correct the resource's "
                "`params` or `body`."
            ) from error


def _with_field(body: Any, path: list[str], value: Any) -> dict[str, Any]:
    members = body if isinstance(body, dict) else {}
    name, *deeper = path
    return {**members, name: _with_field(members.get(name), deeper, value) if deeper else value}


def sent_records(page: Page, counts: str) -> list[Any]:
    """The records that the API sent: of the resource, or in the list at the path `counts`.

    Raises:
        BadPayloadError: there is neither a list nor an object of records at the path.
    """
    if not counts:
        return page.rows
    found = value_at(page, counts) or []
    if isinstance(found, dict):
        return list(found.values())
    if not isinstance(found, list):
        raise BadPayloadError(
            f"{page.url} has {page.quoted(found)} under {counts!r}, not the list that the "
            "resource's `paging` counts. Correct `counts`, or ask the API's owner."
        )
    return found


def is_over(page: Page, more: Field) -> bool:
    """Whether the page marks itself as the last one."""
    return bool(more) and str(value_at(page, more)).lower() in NOTHING_MORE


def has_more(page: Page, more: Field) -> bool:
    """Whether the page states that more follows."""
    return bool(more) and str(value_at(page, more)).lower() in SOMETHING_MORE


def total_of(page: Page, field: Field) -> int | None:
    """The page's total; None if it states none, or a negative one."""
    found = value_at(page, field) if field else None
    return int(found) if found is not None and int(found) >= 0 else None


def check_no_more(page: Page, more: Field, what: str, field: Field) -> None:
    """Refuse a page without a URL or token that states that more follows.

    Raises:
        BadPayloadError: with the page's `more` and where the URL or token should be.
    """
    if has_more(page, more):
        raise BadPayloadError(
            f"{page.url} has more to come by its {more!r}, but has no {what} in {field!r}. "
            "Ask the API's owner."
        )


def check_start(style: str, place: "Place", first: int, request: HttpRequest) -> None:
    """Refuse a first request that does not fit to the number that the API counts from.

    Otherwise reading would end one record or page too early, or read one twice.

    Raises:
        ConfigurationError: it requests number 1 where 0 is declared as the first, or a number
            before the declared one.
    """
    number = place.number(request, first)
    if number < first or (first, number) == (0, 1):
        name = place.param or place.body_field
        raise ConfigurationError(
            f"{request.url} starts with {name}={number}, but the resource's `paging` counts from "
            f"{first}. Declare {style}({name!r}, first={number}), or correct the resource's "
            "`params` or `body`."
        )


def check_end(page: Page, total: Field, more: Field) -> None:
    """Refuse an empty page that states that more follows.

    Raises:
        BadPayloadError: with the page's `more` or total.
    """
    field = total if total_of(page, total) is not None else more if has_more(page, more) else None
    if field:
        raise BadPayloadError(
            f"{page.url} has no records, but its {field!r} is "
            f"{page.quoted(value_at(page, field))}, so more "
            "should follow. Ask the API's owner, or remove that field from the resource's "
            "`paging` if it does not count what the API sends."
        )


def is_reached(page: Page, total: Field, count: int, is_empty: bool) -> bool:
    """Whether the page's total is known and reached; a negative one means unknown.

    A total that is less than what was read, records of this page included, is wrong or out of date.

    Raises:
        BadPayloadError: the total is not a number.
    """
    if not total:
        return False
    found = value_at(page, total)
    reached = -1 if found is None else _integer(found)
    if reached is None:
        raise BadPayloadError(
            f"{page.url} has {page.quoted(found)} as its {total!r}, which is not a number. "
            "Ask the API's owner."
        )
    return reached == count or (is_empty and 0 <= reached < count)


def _integer(found: Any) -> int | None:
    """None if it is not a number; Python's own error would quote it."""
    try:
        return int(found)
    except (TypeError, ValueError):
        return None
