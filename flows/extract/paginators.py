"""Paging styles: functions from a page to the request for the next one.

Reading ends where such a function returns None. A short page never counts as the last one, since
servers cap page sizes.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract import url_policy
from flows.extract.page_fields import (
    NOTHING_MORE,
    Field,
    Place,
    ResponseHeader,
    check_end,
    check_no_more,
    check_start,
    has_more,
    is_over,
    is_reached,
    parsed,
    response_header,
    sent_records,
    total_of,
    unless,
    value_at,
    with_param,
)
from flows.page import HttpRequest, Page

__all__ = [
    "keyset",
    "next_link",
    "next_token",
    "next_url",
    "offset",
    "page_number",
    "response_header",
    "unless",
    "value_at",
    "with_param",
]

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


# RFC 8288, 3: a quoted value may contain characters that otherwise end a link or a parameter.
_PARAM = r"""(?:\s*;)+\s*([^\s=;,"]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;,"]*))?"""


_LINK = re.compile(rf"<([^>]*)>((?:{_PARAM})*)")


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
        if is_over(page, self.more):
            return None
        link = value_at(page, self.field)
        if not link:
            check_no_more(page, self.more, "URL", self.field)
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
    place = Place(param, header, body_field)
    if bool(field) == bool(response_header):
        raise ConfigurationError("next_token needs either a field or a response_header.")
    return _NextToken(field or ResponseHeader(response_header), place, more)


@dataclass(frozen=True)
class _NextToken:
    field: Field
    place: "Place"
    more: Field

    def __call__(self, page: Page) -> HttpRequest | None:
        if is_over(page, self.more):
            return None
        token = value_at(page, self.field)
        if not token:
            check_no_more(page, self.more, "token", self.field)
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
    return _Offset(Place(param, "", body_field), first, total, more, counts)


@dataclass(frozen=True)
class _Offset:
    place: "Place"
    first: int
    total: Field
    more: Field
    counts: str
    by_number: ClassVar[bool] = True

    def __call__(self, page: Page) -> HttpRequest | None:
        count = len(sent_records(page, self.counts))
        if is_over(page, self.more):
            return None
        request = _request(page)
        following = self.place.number(request, self.first) + count
        if is_reached(page, self.total, following - self.first, not count):
            return None
        if not count:
            check_end(page, self.total, self.more)
            return None
        return self.place.put(request, following)

    def forecast(self, page: Page) -> Iterator[HttpRequest]:
        """Pages of the same size, up to the total."""
        count, total = len(sent_records(page, self.counts)), total_of(page, self.total)
        request = _request(page)
        following = self.place.number(request, self.first) + count
        is_known = count and total is not None
        offsets = range(following, self.first + (total or 0), count) if is_known else ()
        return (self.place.put(request, offset) for offset in offsets)

    def beyond(self, page: Page) -> HttpRequest:
        """A page far behind this one."""
        request, count = _request(page), len(sent_records(page, self.counts))
        number = self.place.number(request, self.first) + FAR_PAGES * count
        return self.place.put(request, number)

    def check_start(self, request: HttpRequest) -> None:
        """Refuse a first request that counts from another number. Raises as `check_start`."""
        check_start("offset", self.place, self.first, request)


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
    return _PageNumber(Place(param, "", body_field), first, total_pages, more, counts)


@dataclass(frozen=True)
class _PageNumber:
    place: "Place"
    first: int
    total_pages: Field
    more: Field
    counts: str
    by_number: ClassVar[bool] = True

    def __call__(self, page: Page) -> HttpRequest | None:
        is_empty = not sent_records(page, self.counts)
        if is_over(page, self.more):
            return None
        request = _request(page)
        number = self.place.number(request, self.first)
        if is_reached(page, self.total_pages, number - self.first + 1, is_empty):
            return None
        more_follows = has_more(page, self.more) or total_of(page, self.total_pages) is not None
        return None if is_empty and not more_follows else self.place.put(request, number + 1)

    def forecast(self, page: Page) -> Iterator[HttpRequest]:
        """All pages up to the last number."""
        count, request = total_of(page, self.total_pages), _request(page)
        following = self.place.number(request, self.first) + 1
        numbers = () if count is None else range(following, self.first + count)
        return (self.place.put(request, number) for number in numbers)

    def beyond(self, page: Page) -> HttpRequest:
        """A page far behind this one."""
        request = _request(page)
        return self.place.put(request, self.place.number(request, self.first) + FAR_PAGES)

    def check_start(self, request: HttpRequest) -> None:
        """Refuse a first request that counts from another number. Raises as `check_start`."""
        check_start("page_number", self.place, self.first, request)


def keyset(
    field: str, *, param: str = "", body_field: str = "", more: Field = "", counts: str = ""
) -> Paging:
    """Request the records after the last record's `field`; an empty page is the last one.

    An empty page whose `more` is true is an error. `counts` is the path of the list that has the
    last record; by default, the records do.
    """
    return _Keyset(field, Place(param, "", body_field), more, counts)


@dataclass(frozen=True)
class _Keyset:
    record_field: str
    place: "Place"
    more: Field
    counts: str

    def __call__(self, page: Page) -> HttpRequest | None:
        sent = sent_records(page, self.counts)
        if is_over(page, self.more):
            return None
        if not sent:
            check_end(page, "", self.more)
            return None
        record = parsed(sent[-1])
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


def says_more(paging: Paging, page: Page) -> bool:
    """Whether a page says that more records follow; otherwise its next one may be the empty end."""
    if not isinstance(paging, (*COUNTED, _Keyset)):
        return True
    is_foreseen = isinstance(paging, COUNTED) and next(paging.forecast(page), None) is not None
    return bool(has_more(page, paging.more)) or is_foreseen


def _request(page: Page) -> HttpRequest:
    return page.request or HttpRequest(page.url)
