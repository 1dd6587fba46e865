"""How to get from one page to the next: functions from a page to the next page's URL."""

import json
from collections.abc import Callable, Mapping
from urllib.parse import urljoin

import msgspec

from flows.declaration import Page
from flows.errors import BadPayloadError


def next_url(field: str) -> Callable[[Page], str | None]:
    """Follow the URL in the body's top-level `field`, absolute or relative to the page's own URL.

    The last page has no such field, or null, or an empty string.
    """

    def find(page: Page) -> str | None:
        members = page.document if page.members is None else page.members
        link = members.get(field) if isinstance(members, Mapping) else None
        if isinstance(link, msgspec.Raw):
            link = json.loads(bytes(link))
        if not link:
            return None
        if not isinstance(link, str):
            raise BadPayloadError(
                f"{page.url} has {link!r} as its next page under {field!r}, which is no URL. "
                "Ask the API's owner."
            )
        return urljoin(page.url, link)

    return find
