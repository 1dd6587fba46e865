"""The requests and responses of a slice so far, to detect paging that loops or never ends."""

import re
from inspect import unwrap

import msgspec

from flows.errors import (
    BadPayloadError,
)
from flows.extract.json_records import RecordsAt
from flows.extract.paginators import COUNTED, LED
from flows.extract.shaped_records import Shaped
from flows.extract.xml_records import XmlAt
from flows.extract.zipped_records import Zipped
from flows.guards import unguarded
from flows.page import HttpRequest, Page
from flows.source import Resource

# Where no list can be cut out of a page, it has to be parsed once more to see whether it is empty:
# for larger pages only if paging counts.
SMALL_BYTES = 1 << 16
CUT_AT_LOW_COST = (RecordsAt, XmlAt, Zipped)
_EMPTY_LIST = re.compile(rb"[ \t\r\n]*\[[ \t\r\n]*\][ \t\r\n]*")


class SeenPages:
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

    @property
    def is_first(self) -> bool:
        """Whether there was no response yet."""
        return not self._requests

    def add(self, request: HttpRequest, page: Page) -> str | None:
        """Record a response; another request that had the same one, if that is suspicious.

        It is not if there are no records. Nor if the response decides what is requested next: then
        only a repeated request is a loop, or as many equal pages in a row as may be empty.
        """
        sent, records = str(request), _list_of(page)
        self._requests.add(sent)
        is_empty = self._is_empty(page, records)
        self._empty_pages = self._empty_pages + 1 if is_empty else 0
        earlier = self._first_requests.setdefault(_fingerprint(page, records), sent)
        is_equal = earlier != sent and not is_empty
        self._equal_pages = self._equal_pages + 1 if is_equal else 0
        self._equal_to = earlier if is_equal else None
        may_be_equal = self._is_led and self._equal_pages < self._max_empty_pages
        return earlier if is_equal and not may_be_equal else None

    def knows(self, page: Page) -> bool:
        """Whether there was such a response before, with the same records."""
        records = _list_of(page)
        is_empty = self._is_empty(page, records)
        return not is_empty and _fingerprint(page, records) in self._first_requests

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
                raise loop_error(f"{request} has the same response as {self._equal_to}")
            raise loop_error(f"{request} leads back to {following}")
        if self._empty_pages >= self._max_empty_pages:
            raise BadPayloadError(
                f"{page.url} is the last of {self._empty_pages} pages in a row without records, "
                "and still names a next one. Declare how the API marks its last page (a `more` in "
                "the resource's `paging`), or raise its max_empty_pages."
            )
        return True

    def _is_empty(self, page: Page, records: bytes | None) -> bool:
        """Whether there are no records; for an unreadable page, the load raises the error later."""
        if records is not None:
            return _EMPTY_LIST.fullmatch(records) is not None
        if len(page.body) > SMALL_BYTES and not self._is_counted:
            selector = page.find and unwrap(page.find)
            return isinstance(selector, Shaped) and selector.is_empty(page)
        try:
            return not page.found
        except BadPayloadError:
            return False


def _list_of(page: Page) -> bytes | None:
    """The page's list of records, unparsed; None if it can't be cut out of the body at low cost."""
    records = page.find and unwrap(page.find)
    return records.raw(page) if isinstance(records, CUT_AT_LOW_COST) else None


def _fingerprint(page: Page, records: bytes | None) -> int:
    """A hash of the page's records, or of its body if it would have to be parsed for that alone.

    Records are better: a body may contain the time of day, or the next token. The hash collides
    within a million different pages in one load out of thirty million.
    """
    if records is not None:
        return hash(records)
    if "found" not in vars(page):
        return hash(page.body)
    rows = (row if isinstance(row, msgspec.Raw) else repr(row).encode() for row in page.found)
    return hash(b",".join(rows))


def loop_error(what: str) -> BadPayloadError:
    """The error for paging that loops."""
    return BadPayloadError(
        f"The paging loops: {what}. Correct the resource's `paging`, or ask the API's owner."
    )
