"""Paging styles: functions from a page to the request for the next one.

Reading ends where such a function returns None. A short page never counts as the last one, since
servers cap page sizes.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable
from urllib.parse import parse_qsl, urlsplit

import msgspec

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract import url_policy
from flows.page import HttpRequest, Page

Paging = Callable[[Page], HttpRequest | str | None]

# How far behind a page another one is that can't be in the same loop.
FAR_PAGES = 1000


@runtime_checkable
class Foreseeing(Protocol):
    """A paging function that also knows which requests come after the next one.

    They may be sent before their turn. What it returns for each page decides all the same, so a
    wrong forecast costs some requests, but no record.
    """

    def __call__(self, page: Page) -> HttpRequest | str | None:
        """The next request."""

    def forecast(self, page: Page) -> Iterator[HttpRequest | str]:
        """The next request and those after it, in order; nothing if they are unknown."""


# Values of `more` that mean there is no next page, or there is one.
NOTHING_MORE = frozenset({"false", "0"})
SOMETHING_MORE = frozenset({"true", "1"})

# RFC 8288, 3: a quoted value may contain characters that otherwise end a link or a parameter.
_PARAM = r"""(?:\s*;)+\s*([^\s=;,"]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*))?"""
_LINK = re.compile(rf"<([^>]*)>((?:{_PARAM})*)")


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


Field = str | ResponseHeader


def next_url(field: str, *, more: Field = "") -> Paging:
    """Follow the URL in the body's `field`, absolute or relative to the page's own URL.

    Dots name a nested field, unless the body has a field of exactly that name. On the last page the
    field is missing, null or an empty string, or `more` is false. Where `more` is true, a missing
    URL is an error.
    """
    if not field:
        raise ConfigurationError("next_url needs the name of a field.")
    return _NextUrl(field, more)


@dataclass(frozen=True)
class _NextUrl:
    field: str
    more: Field

    def __call__(self, page: Page) -> str | None:
        if _is_over(page, self.more):
            return None
        link = value_at(page, self.field)
        if not link:
            _check_no_more(page, self.more, "URL", self.field)
            return None
        if not isinstance(link, str):
            raise BadPayloadError(
                f"{page.url} has {page.quoted(link)} as its next page under {self.field!r}, which "
                "is not a URL. Ask the API's owner."
            )
        return url_policy.resolve_link(page.url, link)


def next_link(*, more: str = "") -> Paging:
    """Follow the header `Link: <…>; rel="next"` (RFC 8288).

    Reading ends where there is no such link, or where the link's own parameter `more` is false,
    e.g. `next_link(more="results")` for Sentry's `results="false"`.
    """
    return _NextLink(more)


@dataclass(frozen=True)
class _NextLink:
    more: str

    def __call__(self, page: Page) -> str | None:
        for url, params in _links(page.headers.get("Link", "")):
            if "next" in params.get("rel", "").lower().split():
                if params.get(self.more, "").lower() in NOTHING_MORE:
                    return None
                return url_policy.resolve_link(page.url, url_policy.from_header(url))
        return None


def _links(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each link with its parameters; of duplicates, the first counts (RFC 8288, 3.3)."""
    for link in _LINK.finditer(header):
        pairs = [(name.lower(), value) for name, value in re.findall(_PARAM, link[2])]
        yield link[1].strip(), {name: _unquote(value) for name, value in reversed(pairs)}


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def next_token(
    field: str = "",
    *,
    response_header: str = "",
    param: str = "",
    header: str = "",
    body_field: str = "",
    more: Field = "",
) -> Paging:
    """Send back the token that a page has in its body's `field` or in a header.

    It goes into the query parameter `param`, the header `header` or the JSON body's `body_field`.
    Reading ends where there is no token (or an empty one, 0 or false), or where `more` is false.
    Where `more` is true, a missing token is an error.
    """
    place = _Place(param, header, body_field)
    if bool(field) == bool(response_header):
        raise ConfigurationError("next_token needs either a field or a response_header.")
    return _NextToken(field or ResponseHeader(response_header), place, more)


@dataclass(frozen=True)
class _NextToken:
    field: Field
    place: "_Place"
    more: Field

    def __call__(self, page: Page) -> HttpRequest | None:
        if _is_over(page, self.more):
            return None
        token = value_at(page, self.field)
        if not token:
            _check_no_more(page, self.more, "token", self.field)
            return None
        return self.place.put(_request(page), token)


def offset(
    param: str = "offset",
    *,
    body_field: str = "",
    first: int = 0,
    total: Field = "",
    more: Field = "",
    counts: str = "",
) -> Paging:
    """Request the next records by the number of records read so far.

    The API counts from `first`: the first record is at this offset. Reading ends when the `total`
    is reached, when `more` is false, or with an empty page. An empty page before the `total`, or
    where `more` is true, is an error: the next offset is then unknown. A total that is smaller than
    what was read is wrong, so reading continues.

    `counts` is the path of the list that is counted; by default, the records are.
    """
    param = "" if body_field else param
    return _Offset(_Place(param, "", body_field), first, total, more, counts)


@dataclass(frozen=True)
class _Offset:
    place: "_Place"
    first: int
    total: Field
    more: Field
    counts: str
    by_number: ClassVar[bool] = True

    def __call__(self, page: Page) -> HttpRequest | None:
        count = len(_sent(page, self.counts))
        if _is_over(page, self.more):
            return None
        request = _request(page)
        following = self.place.number(request, self.first) + count
        if _is_reached(page, self.total, following - self.first, not count):
            return None
        if not count:
            _check_end(page, self.total, self.more)
            return None
        return self.place.put(request, following)

    def forecast(self, page: Page) -> Iterator[HttpRequest]:
        """Pages of the same size, up to the total."""
        count, total = len(_sent(page, self.counts)), _total(page, self.total)
        request = _request(page)
        following = self.place.number(request, self.first) + count
        is_known = count and total is not None
        offsets = range(following, self.first + (total or 0), count) if is_known else ()
        return (self.place.put(request, offset) for offset in offsets)

    def beyond(self, page: Page) -> HttpRequest:
        """A page far behind this one."""
        request, count = _request(page), len(_sent(page, self.counts))
        number = self.place.number(request, self.first) + FAR_PAGES * count
        return self.place.put(request, number)

    def check_start(self, request: HttpRequest) -> None:
        """Refuse a first request that counts from another number. Raises as `_check_start`."""
        _check_start("offset", self.place, self.first, request)


def page_number(
    param: str = "page",
    *,
    body_field: str = "",
    first: int = 1,
    total_pages: Field = "",
    more: Field = "",
    counts: str = "",
) -> Paging:
    """Request pages by number; the first request may omit it.

    Reading ends after `total_pages`, or when `more` is false. An empty page ends it only if neither
    indicates that more follows. `counts` is the path of the list that is empty then; by default,
    the records are.
    """
    param = "" if body_field else param
    return _PageNumber(_Place(param, "", body_field), first, total_pages, more, counts)


@dataclass(frozen=True)
class _PageNumber:
    place: "_Place"
    first: int
    total_pages: Field
    more: Field
    counts: str
    by_number: ClassVar[bool] = True

    def __call__(self, page: Page) -> HttpRequest | None:
        is_empty = not _sent(page, self.counts)
        if _is_over(page, self.more):
            return None
        request = _request(page)
        number = self.place.number(request, self.first)
        if _is_reached(page, self.total_pages, number - self.first + 1, is_empty):
            return None
        has_more = _has_more(page, self.more) or _total(page, self.total_pages) is not None
        return None if is_empty and not has_more else self.place.put(request, number + 1)

    def forecast(self, page: Page) -> Iterator[HttpRequest]:
        """All pages up to the last number."""
        count, request = _total(page, self.total_pages), _request(page)
        following = self.place.number(request, self.first) + 1
        numbers = () if count is None else range(following, self.first + count)
        return (self.place.put(request, number) for number in numbers)

    def beyond(self, page: Page) -> HttpRequest:
        """A page far behind this one."""
        request = _request(page)
        return self.place.put(request, self.place.number(request, self.first) + FAR_PAGES)

    def check_start(self, request: HttpRequest) -> None:
        """Refuse a first request that counts from another number. Raises as `_check_start`."""
        _check_start("page_number", self.place, self.first, request)


def keyset(
    field: str, *, param: str = "", body_field: str = "", more: Field = "", counts: str = ""
) -> Paging:
    """Request the records after the last record's `field`; an empty page is the last one.

    An empty page whose `more` is true is an error. `counts` is the path of the list that has the
    last record; by default, the records do.
    """
    return _Keyset(field, _Place(param, "", body_field), more, counts)


@dataclass(frozen=True)
class _Keyset:
    record_field: str
    place: "_Place"
    more: Field
    counts: str

    def __call__(self, page: Page) -> HttpRequest | None:
        sent = _sent(page, self.counts)
        if _is_over(page, self.more):
            return None
        if not sent:
            _check_end(page, "", self.more)
            return None
        record = _parsed(sent[-1])
        value = record.get(self.record_field) if isinstance(record, dict) else None
        if value is None:
            raise BadPayloadError(
                f"{page.url} has a last record without {self.record_field!r}, which the next "
                "request needs. Correct the resource's `paging`."
            )
        if not isinstance(value, str | int | float | list | dict):
            raise TypeError(
                f"{self.record_field!r} of the last record is a {type(value).__name__}, not a JSON "
                "type. Return text from `records`, e.g. str(value)"
            )
        return self.place.put(_request(page), value)


# The next request is in the response, so the same one twice is a loop, and equal rows are none.
LED = (_NextUrl, _NextLink, _NextToken, _Keyset)
# The next request depends on a number only: an API that ignores it sends the same page for ever.
COUNTED = (_Offset, _PageNumber)
# The number of records on a page decides where the next one begins.
BY_COUNT = (_Offset,)


def _sent(page: Page, counts: str) -> list[Any]:
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


def value_at(page: Page, field: Field) -> Any:
    """The value of `field` in the body's object, where dots name nested fields; None if missing.

    For a `response_header`, its text.
    """
    if isinstance(field, ResponseHeader):
        return page.headers.get(field.name)
    found: Any = page.document if page.members is None else page.members
    if isinstance(found, Mapping) and field in found:
        return _parsed(found[field])
    for name in field.split("."):
        found = _parsed(found)
        found = found.get(name) if isinstance(found, Mapping) else None
    return _parsed(found)


def with_param(request: HttpRequest, name: str, value: Any) -> HttpRequest:
    """The request with a query parameter set."""
    return replace(request, url=url_policy.with_param(request.url, name, _text(value)))


def _parsed(value: Any) -> Any:
    return json.loads(bytes(value)) if isinstance(value, msgspec.Raw) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class _Place:
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
            return replace(request, headers={**request.headers, self.header: _text(value)})
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


def _request(page: Page) -> HttpRequest:
    return page.request or HttpRequest(page.url)


def _is_over(page: Page, more: Field) -> bool:
    """Whether the page marks itself as the last one."""
    return bool(more) and str(value_at(page, more)).lower() in NOTHING_MORE


def _has_more(page: Page, more: Field) -> bool:
    """Whether the page states that more follows."""
    return bool(more) and str(value_at(page, more)).lower() in SOMETHING_MORE


def _total(page: Page, field: Field) -> int | None:
    """The page's total; None if it states none, or a negative one."""
    found = value_at(page, field) if field else None
    return int(found) if found is not None and int(found) >= 0 else None


def _check_no_more(page: Page, more: Field, what: str, field: Field) -> None:
    """Refuse a page without a URL or token that states that more follows.

    Raises:
        BadPayloadError: with the page's `more` and where the URL or token should be.
    """
    if _has_more(page, more):
        raise BadPayloadError(
            f"{page.url} has more to come by its {more!r}, but has no {what} in {field!r}. "
            "Ask the API's owner."
        )


def _check_start(style: str, place: "_Place", first: int, request: HttpRequest) -> None:
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


def _check_end(page: Page, total: Field, more: Field) -> None:
    """Refuse an empty page that states that more follows.

    Raises:
        BadPayloadError: with the page's `more` or total.
    """
    field = total if _total(page, total) is not None else more if _has_more(page, more) else None
    if field:
        raise BadPayloadError(
            f"{page.url} has no records, but its {field!r} is "
            f"{page.quoted(value_at(page, field))}, so more "
            "should follow. Ask the API's owner, or remove that field from the resource's "
            "`paging` if it does not count what the API sends."
        )


def _is_reached(page: Page, total: Field, count: int, is_empty: bool) -> bool:
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
