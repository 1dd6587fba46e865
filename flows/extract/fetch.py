"""The pages of one resource partition, in order, each with its resume point."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo

from flows.errors import (
    BadPayloadError,
    BadRequestError,
    EltError,
    NotFoundError,
    OtherRequestError,
)
from flows.extract import url_policy
from flows.extract.ahead import Ahead
from flows.extract.client import Client
from flows.extract.first_request import first_request
from flows.extract.job_pages import JobReader
from flows.extract.paginators import COUNTED, Foreseeing, says_more, value_at
from flows.extract.readable import make_readable
from flows.extract.record_count import count_check
from flows.extract.seen_pages import SeenPages, loop_error
from flows.extract.selectors import check_errors, records_at
from flows.guards import unguarded, with_guards
from flows.local_time import later
from flows.page import HttpRequest, Method, Page, Resume
from flows.source import Partition, Resource, Source, TokenCursor, Window

PageAndNext = tuple[Page, HttpRequest | None]
# Finds the records in a page whose personal data is protected.
RECORDS = records_at()


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
        OtherRequestError: the resume point belongs to another first request, or to other slices.
        BadPayloadError: the API repeats a page, links back to one, or sends more empty pages in a
            row than the resource's `max_empty_pages`.
        EltError: as `Client.get` does.
    """
    client = client.of(partition)
    client.learn_secret()
    resource = with_guards(resource)
    slices = list(_slices(window, resource))
    starts = [first_request(source, resource, partition, part) for part in slices]
    first = _named(resource, starts[0]) if starts else ""
    if resume is not None and not _belongs_to(resume, first, slices):
        raise OtherRequestError(
            f"{resource.name}: its first request is not that of the last load, which did not "
            "complete, or its slices are others: the declaration or the window has changed."
        )
    unread = [
        (part, request)
        for part, request in zip(slices, starts, strict=True)
        if resume is None or not _is_before(part, resume)
    ]
    later = (request for _, request in unread[1:])
    with closing(Ahead(client, resource, source.concurrency, later)) as ahead:
        pages = _read_slices(client, source.base_url, ahead, resource, unread, first, resume)
        pages = _metered(client, _without_personal_data(client, resource, pages))
        for number, page in enumerate(pages, start=1):
            if number == resource.max_pages:
                page.resume = page.resume if resource.cursor else None
                yield page
                return
            yield page


def _named(resource: Resource, request: HttpRequest) -> str:
    """The first request, so that no resume point of a list is taken for one of a job."""
    return f"job {request}" if resource.job else str(request)


def _belongs_to(resume: Resume, first: str, slices: list[Window]) -> bool:
    """Whether the resume point lies in such a load: it has the first request and the slice."""
    return resume.first_request == first and any(part.since == resume.since for part in slices)


def _metered(client: Client, pages: Iterator[Page]) -> Iterator[Page]:
    """The pages, or an error, each with the requests since the page before it."""
    try:
        for page in pages:
            page.traffic = client.meter.take()
            yield page
    except EltError as error:
        error.traffic = client.meter.take()
        raise


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
    base_url: str,
    ahead: Ahead,
    resource: Resource,
    unread: list[tuple[Window, HttpRequest]],
    first: str,
    resume: Resume | None,
) -> Iterator[Page]:
    for number, (part, request) in enumerate(unread, start=1):
        inside = resume if resume is not None and part.since == resume.since else None
        if resource.job is not None:
            job = JobReader(client, base_url, resource, resource.job, request)
            pages = _paged(client, ahead, resource, job.pages(_kept(inside)))
        else:
            start = request
            if inside is not None and inside.url is not None:
                request = replace(request, url=inside.url, headers=inside.headers, body=inside.body)
            pages = _follow(client, ahead, resource, request, request is start)
        after = Resume(first, None, unread[number][0].since) if number < len(unread) else None
        for page, following in pages:
            if page.is_last:
                yield page
                return
            page.resume = after
            if following is not None:
                is_first = page.is_mark and _named(resource, request) == first
                at = Resume(first, following.url, part.since, following.headers, following.body)
                page.resume = _resume_at(resource, page, replace(at, is_first=is_first))
            elif after is None and resource.token_cursor and not page.is_empty:
                page.token = _token_of(client, page, request, resource.token_cursor)
            yield page


def _resume_at(resource: Resource, page: Page, at: Resume) -> Resume | None:
    """Not within a job's result, which is stored as a whole: it may be sent in another order."""
    return at if resource.job is None or page.is_mark else None


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


def _kept(inside: Resume | None) -> HttpRequest | None:
    """The request for the status of the job that an earlier load submitted."""
    if inside is None or not inside.url:
        return None
    method: Method = "GET" if inside.body is None else "POST"
    return HttpRequest(inside.url, method, inside.headers, inside.body)


def _paged(
    client: Client, ahead: Ahead, resource: Resource, pages: Iterator[PageAndNext]
) -> Iterator[PageAndNext]:
    """The pages of a job, where each part of its result may have pages of its own."""
    for part, following in pages:
        if part.is_mark or part.is_empty or part.request is None or resource.paging is None:
            yield part, following
            continue
        for page, inside in _follow_from(client, ahead, resource, part.request, part):
            yield page, inside or following


def _follow(
    client: Client, ahead: Ahead, resource: Resource, request: HttpRequest, is_start: bool
) -> Iterator[PageAndNext]:
    """Each page of a slice with the request for the next one."""
    paging = unguarded(resource.paging)
    if is_start and isinstance(paging, COUNTED):
        paging.check_start(request)
    yield from _follow_from(client, ahead, resource, request, ahead.first(request, is_start))


def _follow_from(
    client: Client, ahead: Ahead, resource: Resource, request: HttpRequest, page: Page
) -> Iterator[PageAndNext]:
    """A page and those after it, each with the request for the next one."""
    seen = SeenPages(resource)
    check_count = count_check(resource)
    paging = unguarded(resource.paging)
    ends = {rule.status for rule in resource.rules if rule.then == "end"}
    more_follow = False
    while True:
        page.find, page.check_count = resource.records, check_count
        is_end = page.is_last or not ends.isdisjoint({page.status, None})
        page.is_cut = more_follow and page.is_empty and not is_end
        following = None if page.is_empty else _next(client, ahead, resource, seen, request, page)
        yield page, following
        if following is None:
            return
        more_follow = paging is not None and says_more(paging, page)
        foreseen = _foreseen(client, resource, request, page)
        request = following
        page = ahead.following(request, foreseen)


def _next(
    client: Client,
    ahead: Ahead,
    resource: Resource,
    seen: SeenPages,
    request: HttpRequest,
    page: Page,
) -> HttpRequest | None:
    make_readable(page, resource, resource.records)
    check_errors(page)
    found = resource.paging(page) if resource.paging else None
    if not found and seen.is_first:
        return None
    earlier = seen.add(request, page)
    if earlier and not _differs_far_behind(client, ahead, resource, seen, request, page):
        raise loop_error(f"{request} has the same response as {earlier}")
    if not found:
        return None
    following = _admitted(client, request, page.url, found)
    return following if seen.leads_on(request, page, following) else None


def _differs_far_behind(
    client: Client,
    ahead: Ahead,
    resource: Resource,
    seen: SeenPages,
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
        make_readable(far, resource, resource.records)
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
