"""Makes a page's body readable by the resource's `records`, or refuses it."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from flows.extract.charsets import to_utf8
from flows.extract.content_type import check_content_type
from flows.extract.csv_records import check_names
from flows.page import Page
from flows.source import Resource


@runtime_checkable
class Converting(Protocol):
    """A `records` function for bodies that become JSON as soon as they are read.

    So paging, errors, personal data and loading know JSON and CSV only.
    """

    def to_json(self, page: Page, resource: Resource) -> bytes:
        """The whole body in JSON."""


def make_readable(page: Page, resource: Resource, records: Callable[[Page], list[Any]]) -> None:
    """Make the page's body what `records` reads: UTF-8 text as the API sent it, or JSON of it.

    Raises:
        BadPayloadError: the body is of another type than `records` reads, or not valid in its.
    """
    check_content_type(page, records)
    if isinstance(records, Converting):
        page.rewrite(records.to_json(page, resource))
        return
    page.rewrite(to_utf8(page, resource, records))
    check_names(page, resource, records)
