"""Paging styles: functions from a page to the request for the next one.

Reading ends where such a function returns None. A short page never counts as the last one, since
servers cap page sizes.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable
from urllib.parse import parse_qsl, urlsplit

import msgspec

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract import url_policy
from flows.page import HttpRequest, Page

Paging = Callable[[Page], HttpRequest | str | None]


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


def next_url(field: str) -> Callable[[Page], str | None]:
    """Follow the URL in the body's `field`, absolute or relative to the page's own URL.

    Dots name a nested field, unless the body has a field of exactly that name. On the last page the
    field is missing, null or an empty string.
    """
    if not field:
        raise ConfigurationError("next_url needs the name of a field.")

    def find(page: Page) -> str | None:
        link = value_at(page, field)
        if not link:
            return None
        if not isinstance(link, str):
            raise BadPayloadError(
                f"{page.url} has {link!r} as its next page under {field!r}, which is not a URL. "
                "Ask the API's owner."
            )
        return url_policy.resolve_link(page.url, link)

    return find


def next_link(*, more: str = "") -> Callable[[Page], str | None]:
    """Follow the header `Link: <…>; rel="next"` (RFC 8288).

    Reading ends where there is no such link, or where the link's own parameter `more` is false,
    e.g. `next_link(more="results")` for Sentry's `results="false"`.
    """

    def find(page: Page) -> str | None:
        for url, params in _links(page.headers.get("Link", "")):
            if "next" in params.get("rel", "").lower().split():
                is_over = params.get(more, "").lower() in NOTHING_MORE
                return (
                    None
                    if is_over
                    else url_policy.resolve_link(page.url, url_policy.from_header(url))
                )
        return None

    return find


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
    more: str = "",
) -> Paging:
    """Send back the token that a page has in its body's `field` or in a header.

    It goes into the query parameter `param`, the header `header` or the JSON body's `body_field`.
    Reading ends where there is no token (or an empty one, 0 or false), or where the body's `more`
    is false. Where `more` is true, a missing token is an error.
    """
    put = _Place(param, header, body_field).put
    if bool(field) == bool(response_header):
        raise ConfigurationError("next_token needs either a field or a response_header.")

    def find(page: Page) -> HttpRequest | None:
        token = page.headers.get(response_header) if response_header else value_at(page, field)
        if _is_over(page, more):
            return None
        if not token and _has_more(page, more):
            raise BadPayloadError(
                f"{page.url} has more to come by its {more!r}, but has no token in "
                f"{field or response_header!r}. Ask the API's owner."
            )
        return put(_request(page), token) if token else None

    return find


def offset(
    param: str = "offset", *, body_field: str = "", total: str = "", more: str = ""
) -> Paging:
    """Request the next records by the number of records read so far.

    Reading ends when the body's `total` is reached, when its `more` is false, or with an empty
    page. An empty page before the `total`, or where `more` is true, is an error: the next offset
    is then unknown.
    """
    param = "" if body_field else param
    return _Offset(_Place(param, "", body_field), total, more)


@dataclass(frozen=True)
class _Offset:
    place: "_Place"
    total: str
    more: str

    def __call__(self, page: Page) -> HttpRequest | None:
        count = len(page.rows)
        if _is_over(page, self.more):
            return None
        request = _request(page)
        following = self.place.number(request, 0) + count
        if _is_reached(page, self.total, following):
            return None
        if not count:
            _check_end(page, self.total, self.more)
            return None
        return self.place.put(request, following)

    def forecast(self, page: Page) -> Iterator[HttpRequest]:
        """Pages of the same size, up to the total."""
        count, total, request = len(page.rows), _total(page, self.total), _request(page)
        following = self.place.number(request, 0) + count
        offsets = range(following, total, count) if count and total is not None else ()
        return (self.place.put(request, offset) for offset in offsets)


def page_number(
    param: str = "page",
    *,
    body_field: str = "",
    first: int = 1,
    total_pages: str = "",
    more: str = "",
) -> Paging:
    """Request pages by number; the first request may omit it.

    Reading ends after the body's `total_pages`, or when its `more` is false. An empty page ends it
    only if neither indicates that more follows.
    """
    param = "" if body_field else param
    return _PageNumber(_Place(param, "", body_field), first, total_pages, more)


@dataclass(frozen=True)
class _PageNumber:
    place: "_Place"
    first: int
    total_pages: str
    more: str

    def __call__(self, page: Page) -> HttpRequest | None:
        is_empty = not page.rows
        if _is_over(page, self.more):
            return None
        request = _request(page)
        number = self.place.number(request, self.first)
        if _is_reached(page, self.total_pages, number - self.first + 1):
            return None
        has_more = _has_more(page, self.more) or _total(page, self.total_pages) is not None
        return None if is_empty and not has_more else self.place.put(request, number + 1)

    def forecast(self, page: Page) -> Iterator[HttpRequest]:
        """All pages up to the last number."""
        count, request = _total(page, self.total_pages), _request(page)
        following = self.place.number(request, self.first) + 1
        numbers = () if count is None else range(following, self.first + count)
        return (self.place.put(request, number) for number in numbers)


def keyset(field: str, *, param: str = "", body_field: str = "", more: str = "") -> Paging:
    """Request the records after the last record's `field`; an empty page is the last one.

    An empty page whose `more` is true is an error.
    """
    put = _Place(param, "", body_field).put

    def find(page: Page) -> HttpRequest | None:
        rows = page.rows
        if _is_over(page, more):
            return None
        if not rows:
            _check_end(page, "", more)
            return None
        last = rows[-1]
        record = json.loads(bytes(last)) if isinstance(last, msgspec.Raw) else last
        value = record.get(field) if isinstance(record, dict) else None
        if value is None:
            raise BadPayloadError(
                f"{page.url} has a last record without {field!r}, which the next request "
                "needs. Correct the resource's `paging`."
            )
        if not isinstance(value, str | int | float | list | dict):
            raise TypeError(
                f"{field!r} of the last record is a {type(value).__name__}, not a JSON type. "
                "Return text from `records`, e.g. str(value)"
            )
        return put(_request(page), value)

    return find


def value_at(page: Page, field: str) -> Any:
    """The value of `field` in the body's object, where dots name nested fields; None if missing."""
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


def _is_over(page: Page, more: str) -> bool:
    """Whether the page marks itself as the last one."""
    return bool(more) and str(value_at(page, more)).lower() in NOTHING_MORE


def _has_more(page: Page, more: str) -> bool:
    """Whether the page states that more follows."""
    return bool(more) and str(value_at(page, more)).lower() in SOMETHING_MORE


def _total(page: Page, field: str) -> int | None:
    """The page's total; None if it states none, or a negative one."""
    found = value_at(page, field) if field else None
    return int(found) if found is not None and int(found) >= 0 else None


def _check_end(page: Page, total: str, more: str) -> None:
    """Refuse an empty page that states that more follows.

    Raises:
        BadPayloadError: with the page's `more` or total.
    """
    field = total if _total(page, total) is not None else more if _has_more(page, more) else ""
    if field:
        raise BadPayloadError(
            f"{page.url} has no records, but its {field!r} is {value_at(page, field)!r}, so more "
            "should follow. Ask the API's owner, or remove that field from the resource's "
            "`paging` if it does not count what the API sends."
        )


def _is_reached(page: Page, total: str, count: int) -> bool:
    """Whether the page's total is known and reached; a negative one means unknown.

    Raises:
        BadPayloadError: the total is not a number.
    """
    if not total:
        return False
    found = value_at(page, total)
    try:
        return found is not None and 0 <= int(found) <= count
    except (TypeError, ValueError) as error:
        raise BadPayloadError(
            f"{page.url} has {found!r} as its {total!r}, which is not a number. "
            "Ask the API's owner."
        ) from error
