"""The pages of one resource partition, in order, each with its resume point."""

import json
import string
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from inspect import unwrap
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from flows.errors import (
    BadPayloadError,
    BadRequestError,
    ConfigurationError,
    EltError,
    NotFoundError,
)
from flows.extract import placeholders, url_policy
from flows.extract.ahead import Ahead
from flows.extract.charsets import to_utf8
from flows.extract.client import Client
from flows.extract.paginators import COUNTED, LED, Foreseeing, value_at
from flows.extract.placeholders import fill
from flows.extract.record_count import count_check
from flows.extract.selectors import (
    RecordsAt,
    check_content_type,
    check_errors,
    check_names,
    records_at,
)
from flows.guards import unguarded, with_guards
from flows.local_time import later
from flows.page import HttpRequest, Page, Resume
from flows.source import PLACEHOLDER, Partition, Resource, Source, TokenCursor, Window, query_pairs

# Finds the records in a page whose personal data is protected.
RECORDS = records_at()

# Larger pages are checked for being empty only where paging counts: they have to be parsed twice.
SMALL_BYTES = 1 << 16

# As segments of a path, these point to another place.
_NO_SEGMENTS = frozenset({"", ".", ".."})


def first_request(
    source: Source, resource: Resource, partition: Partition, window: Window
) -> HttpRequest:
    """The first request of a window. Spaces become %20, since some servers don't read + as a space.

    Raises:
        ConfigurationError: the partition or the window lacks a value, a query parameter has a type
            that can't be sent, or the body is not JSON.
    """
    body = _resolve(resource, resource.body, partition, window)
    try:
        json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{resource.name}: its body is not JSON: {error}.") from error
    headers = _resolve(resource, resource.headers, partition, window)
    headers = {name: str(value) for name, value in headers.items()}
    is_link = resource.token_cursor is not None and resource.token_cursor.is_link
    link = window.token if is_link else None
    url = link or _first_url(source, resource, partition, window)
    return HttpRequest(url, resource.method, headers, body, bool(resource.personal))


def _first_url(source: Source, resource: Resource, partition: Partition, window: Window) -> str:
    url = _url(source.base_url, _path(resource, partition.values, window))
    params = query_pairs(resource.name, _resolve(resource, resource.params, partition, window))
    query = urlencode(params, quote_via=quote)
    mark = "&" if "?" in url else "?"
    return f"{url}{mark}{query}" if query else url


def _resolve(resource: Resource, declared: Any, partition: Partition, window: Window) -> Any:
    if callable(declared):
        return declared(partition, window)
    return fill(declared, resource, window) if resource.cursor else declared


def _url(base_url: str, path: str) -> str:
    return f"{base_url.rstrip('/')}/{path.lstrip('/')}" if path else base_url


def _path(resource: Resource, values: Mapping[str, Any], window: Window) -> str:
    """The path with the partition's values and the window's ends in it.

    Each is percent-encoded as one segment.
    """
    filled = []
    try:
        for literal, name, form, conversion in string.Formatter().parse(resource.path):
            filled.append(literal)
            if name is not None:
                text = (
                    _as_text(values[name], form or "", conversion)
                    if name in values
                    else _end(resource, window, name, form or "")
                )
                _check_segment(resource, name, text)
                filled.append(quote(text, safe=""))
    except (LookupError, ValueError) as error:
        raise ConfigurationError(
            f"{resource.name}: the path {resource.path!r} needs {error}, which its partitions "
            f"don't have. They have: {', '.join(values) or 'no values'}."
        ) from error
    return "".join(filled)


def _end(resource: Resource, window: Window, name: str, form: str) -> str:
    """An end of the window."""
    if not PLACEHOLDER.fullmatch(f"{{{name}}}"):
        raise KeyError(name)
    found = placeholders.end(resource, window, name, form)
    if found is None:
        raise ConfigurationError(
            f"{resource.name}: the path {resource.path!r} names the window's {name!r}, but this "
            f"window has none. {_remedy(resource, name)}"
        )
    return str(found)


def _remedy(resource: Resource, name: str) -> str:
    """How each window of the resource gets an end of that name."""
    given = "`start`" if name in ("since", "after") else "`start` and a `step`"
    owner = "Give the resource's cursor" if resource.cursor else "Declare a cursor with"
    return f"{owner} a {given}."


def _as_text(value: Any, form: str, conversion: str | None) -> str:
    """The value as `str.format` writes it, but a time without a format as ISO 8601."""
    if isinstance(value, datetime) and not form and not conversion:
        return value.isoformat()
    return format(string.Formatter().convert_field(value, conversion or None), form)


def _check_segment(resource: Resource, name: str, text: str) -> None:
    if text in _NO_SEGMENTS:
        raise ConfigurationError(
            f"{resource.name}: the path {resource.path!r} can't be filled with {text!r} as "
            f"{name!r}: it would lead somewhere else. Remove that partition."
        )


def read_pages(
    client: Client,
    source: Source,
    resource: Resource,
    partition: Partition,
    window: Window,
    resume: Resume | None = None,
) -> Iterator[Page]:
    """Fetch page after page, lazily; up to `concurrency` requests are sent ahead of their turn.

    With `resume`, the pages before that point are not fetched again. If `max_pages` ends the
    reading, the last page of a resource with a cursor has a resume point: the next load reads on.

    Raises:
        BadPayloadError: the API repeats a page, links back to one, or sends more empty pages in a
            row than the resource's `max_empty_pages`.
        EltError: as `Client.get` does.
    """
    client.learn_secret()
    resource = with_guards(resource)
    slices = list(_slices(window, resource))
    starts = [first_request(source, resource, partition, part) for part in slices]
    first = str(starts[0]) if starts else ""
    if resume is not None and resume.first_request != first:
        resume = None
    unread = [
        (part, request)
        for part, request in zip(slices, starts, strict=True)
        if resume is None or not _is_before(part, resume)
    ]
    later = (request for _, request in unread[1:])
    with closing(Ahead(client, resource, source.concurrency, later)) as ahead:
        pages = _read_slices(client, ahead, resource, unread, first, resume)
        for number, page in enumerate(_without_personal_data(client, resource, pages), start=1):
            if number == resource.max_pages:
                page.resume = page.resume if resource.cursor else None
                yield page
                return
            yield page


def _without_personal_data(
    client: Client, resource: Resource, pages: Iterator[Page]
) -> Iterator[Page]:
    """The pages, with the resource's `personal` fields protected."""
    if not resource.personal:
        yield from pages
        return
    personal = client.personal(resource)
    for page in pages:
        yield page if page.is_empty else personal.protect(page, RECORDS)


def _read_slices(
    client: Client,
    ahead: Ahead,
    resource: Resource,
    unread: list[tuple[Window, HttpRequest]],
    first: str,
    resume: Resume | None,
) -> Iterator[Page]:
    for number, (part, request) in enumerate(unread, start=1):
        start = request
        if resume is not None and resume.url is not None and part.since == resume.since:
            request = replace(request, url=resume.url, headers=resume.headers, body=resume.body)
        after = Resume(first, None, unread[number][0].since) if number < len(unread) else None
        for page, following in _follow(client, ahead, resource, request, request is start):
            if page.is_last:
                yield page
                return
            page.resume = after
            if following is not None:
                page.resume = Resume(
                    first, following.url, part.since, following.headers, following.body
                )
            elif after is None and resource.token_cursor and not page.is_empty:
                page.token = _token_of(client, page, request, resource.token_cursor)
            yield page


def _token_of(client: Client, page: Page, request: HttpRequest, cursor: TokenCursor) -> str:
    """The token of the last page, an absolute address without the login if it is a link."""
    found = page.headers.get(cursor.header) if cursor.header else value_at(page, cursor.field)
    if found is None or isinstance(found, bool | float | list | dict):
        return ""
    if not cursor.is_link:
        return str(found)
    link = url_policy.resolve_link(page.url, str(found))
    return client.admit(replace(request, url=link)).url


def _is_before(part: Window, resume: Resume) -> bool:
    return part.since is not None and resume.since is not None and part.since < resume.since


def _follow(
    client: Client, ahead: Ahead, resource: Resource, request: HttpRequest, is_start: bool
) -> Iterator[tuple[Page, HttpRequest | None]]:
    """Each page of a slice with the request for the next one."""
    seen = _SeenPages(resource)
    check_count = count_check(resource)
    paging = unguarded(resource.paging)
    if is_start and isinstance(paging, COUNTED):
        paging.check_start(request)
    page = ahead.first(request, is_start)
    while True:
        page.find, page.check_count = resource.records, check_count
        following = None if page.is_empty else _next(client, ahead, resource, seen, request, page)
        yield page, following
        if following is None:
            return
        foreseen = _foreseen(client, resource, request, page)
        request = following
        page = ahead.following(request, foreseen)


def _next(
    client: Client,
    ahead: Ahead,
    resource: Resource,
    seen: "_SeenPages",
    request: HttpRequest,
    page: Page,
) -> HttpRequest | None:
    check_content_type(page, resource.records)
    page.body = to_utf8(page, resource)
    check_errors(page)
    check_names(page, resource)
    found = resource.paging(page) if resource.paging else None
    earlier = seen.add(request, page)
    if earlier and not _differs_far_behind(client, ahead, resource, seen, request, page):
        raise _loop_error(f"{request} has the same response as {earlier}")
    if not found:
        return None
    following = _admitted(client, request, page.url, found)
    return following if seen.leads_on(request, page, following) else None


def _differs_far_behind(
    client: Client,
    ahead: Ahead,
    resource: Resource,
    seen: "_SeenPages",
    request: HttpRequest,
    page: Page,
) -> bool:
    """Whether a page that repeats an earlier one may have other rows, which are only equal.

    Rows with a key never are. An API that ignores the offset or page number sends a known page far
    behind this one as well; others send an empty page or an error there.
    """
    paging = unguarded(resource.paging)
    if resource.key or not isinstance(paging, COUNTED):
        return False
    try:
        far = ahead.apart(_admitted(client, request, page.url, paging.beyond(page)))
        far.find = resource.records
        far.body = to_utf8(far, resource)
        return far.is_empty or not seen.knows(far)
    except (BadRequestError, NotFoundError, BadPayloadError):
        return True


def _admitted(
    client: Client, request: HttpRequest, page_url: str, found: HttpRequest | str
) -> HttpRequest:
    """The request that `paging` found on the page of another request."""
    following = found if isinstance(found, HttpRequest) else replace(request, url=found)
    url = url_policy.resolve_link(page_url, following.url)
    return client.admit(replace(following, url=url, hides_answer=request.hides_answer))


def _foreseen(
    client: Client, resource: Resource, request: HttpRequest, page: Page
) -> Iterator[HttpRequest]:
    """The requests that `paging` expects after a page, up to one that may not be sent."""
    if not isinstance(resource.paging, Foreseeing):
        return
    page_url, forecast = page.url, resource.paging.forecast(page)
    del page
    for found in forecast:
        try:
            following = _admitted(client, request, page_url, found)
        except EltError:
            return
        yield following


class _SeenPages:
    """The requests and responses so far, to detect paging that loops or never ends."""

    def __init__(self, resource: Resource) -> None:
        self._max_empty_pages = resource.max_empty_pages
        paging = unguarded(resource.paging)
        self._is_led, self._is_counted = isinstance(paging, LED), isinstance(paging, COUNTED)
        self._empty_pages = 0
        self._equal_pages = 0
        self._equal_to: str | None = None
        self._requests: set[str] = set()
        self._first_requests: dict[int, str] = {}

    def add(self, request: HttpRequest, page: Page) -> str | None:
        """Record a response; another request that had the same one, if that is suspicious.

        It is not if there are no records. Nor if the response decides what is requested next: then
        only a repeated request is a loop, or as many equal pages in a row as may be empty.
        """
        sent = str(request)
        self._requests.add(sent)
        is_empty = self._is_empty(page)
        self._empty_pages = self._empty_pages + 1 if is_empty else 0
        earlier = self._first_requests.setdefault(_fingerprint(page), sent)
        is_equal = earlier != sent and not is_empty
        self._equal_pages = self._equal_pages + 1 if is_equal else 0
        self._equal_to = earlier if is_equal else None
        may_be_equal = self._is_led and self._equal_pages < self._max_empty_pages
        return earlier if is_equal and not may_be_equal else None

    def knows(self, page: Page) -> bool:
        """Whether there was such a response before, with the same records."""
        return not self._is_empty(page) and _fingerprint(page) in self._first_requests

    def leads_on(self, request: HttpRequest, page: Page, following: HttpRequest) -> bool:
        """Whether to request `following`; an empty page that leads back is the end.

        Raises:
            BadPayloadError: a page with records leads back to an earlier request, or too many
                pages in a row had no records.
        """
        if str(following) in self._requests:
            if self._empty_pages:
                return False
            if self._equal_to:
                raise _loop_error(f"{request} has the same response as {self._equal_to}")
            raise _loop_error(f"{request} leads back to {following}")
        if self._empty_pages >= self._max_empty_pages:
            raise BadPayloadError(
                f"{page.url} is the last of {self._empty_pages} pages in a row without records, "
                "and still names a next one. Declare how the API marks its last page (a `more` in "
                "the resource's `paging`), or raise its max_empty_pages."
            )
        return True

    def _is_empty(self, page: Page) -> bool:
        """Whether there are no records; for an unreadable page, the load raises the error later."""
        if len(page.body) > SMALL_BYTES and not self._is_counted:
            return False
        try:
            return not page.found
        except BadPayloadError:
            return False


def _fingerprint(page: Page) -> int:
    """A hash of the page's records, or of its body if it would have to be parsed for that alone.

    Records are better: a body may contain the time of day, or the next token. The hash collides
    within a million different pages in one load out of thirty million.
    """
    if "found" not in vars(page):
        records = page.find and unwrap(page.find)
        found = records.raw(page) if isinstance(records, RecordsAt) else None
        return hash(found or page.body)
    rows = (row if isinstance(row, msgspec.Raw) else repr(row).encode() for row in page.found)
    return hash(b",".join(rows))


def _loop_error(what: str) -> BadPayloadError:
    return BadPayloadError(
        f"The paging loops: {what}. Correct the resource's `paging`, or ask the API's owner."
    )


def _slices(window: Window, resource: Resource) -> Iterator[Window]:
    cursor = resource.time_cursor
    if cursor is None or cursor.step is None:
        if not window.is_empty:
            yield window
    elif window.since is None or window.until is None:
        raise ValueError(f"{resource.name}: a window that is read in steps needs both ends")
    else:
        yield from _steps(window.since, window.until, cursor.step, cursor.time_zone)


def _steps(since: datetime, until: datetime, step: timedelta, zone: tzinfo) -> Iterator[Window]:
    while since < until:
        end = until if until - since <= step else later(since, step, zone)
        end = min(end, until)
        yield Window(since, end)
        since = end
