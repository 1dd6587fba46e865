"""The pages of one resource partition, in order, each with the point from which to go on."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import quote, urlencode

from flows.declaration import Page, Partition, Resource, Resume, Source, Window
from flows.errors import BadPayloadError
from flows.extract.client import Client


def first_url(source: Source, resource: Resource, partition: Partition, window: Window) -> str:
    """The first request of a window. Spaces become %20: not every server reads + as a space."""
    params = resource.params
    if callable(params):
        params = params(partition, window)
    url = f"{source.base_url.rstrip('/')}/{resource.path.lstrip('/')}"
    return f"{url}?{urlencode(params, quote_via=quote)}" if params else url


def read_pages(
    client: Client,
    source: Source,
    resource: Resource,
    partition: Partition,
    window: Window,
    resume: Resume | None = None,
) -> Iterator[Page]:
    """Fetch page after page, only when asked for the next one.

    With `resume`, the pages before that point are not fetched again.

    Raises:
        BadPayloadError: when the API sends a next page that was read already.
    """
    slices = list(_slices(window, resource))
    first = first_url(source, resource, partition, slices[0]) if slices else ""
    if resume is not None and resume.first_url != first:
        resume = None
    for number, part in enumerate(slices):
        if resume is not None and _is_before(part, resume):
            continue
        url = first_url(source, resource, partition, part)
        if resume is not None and resume.url is not None and part.since == resume.since:
            url = resume.url
        more = number + 1 < len(slices)
        after = Resume(first, None, slices[number + 1].since) if more else None
        for page, link in _follow(client, resource, url):
            page.resume = Resume(first, link, part.since) if link else after
            yield page


def _is_before(part: Window, resume: Resume) -> bool:
    return part.since is not None and resume.since is not None and part.since < resume.since


def _follow(client: Client, resource: Resource, url: str) -> Iterator[tuple[Page, str | None]]:
    """Each page with the URL of the next one."""
    asked: set[str] = set()
    link: str | None = url
    while link is not None:
        asked.add(link)
        page = client.get(link)
        link = resource.paging(page) if resource.paging else None
        if link in asked:
            raise BadPayloadError(
                f"{page.url} names {link} as its next page, which was read before: the paging runs "
                "in a circle. Ask the API's owner."
            )
        yield page, link


def _slices(window: Window, resource: Resource) -> Iterator[Window]:
    step = resource.cursor.step if resource.cursor else None
    if step is None:
        yield window
    elif window.since is None or window.until is None:
        raise ValueError(f"{resource.name}: a window that is read in steps needs both its ends")
    else:
        yield from _steps(window.since, window.until, step)


def _steps(since: datetime, until: datetime, step: timedelta) -> Iterator[Window]:
    while since < until:
        end = min(since + step, until)
        yield Window(since, end)
        since = end
