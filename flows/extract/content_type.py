"""Compares a response's Content-Type with what the resource's `records` reads."""

from collections.abc import Callable, Sequence
from typing import Any

from flows.errors import BadPayloadError
from flows.page import Page

# Content types that fit any content; some servers send them for everything.
ANY_TYPE = ("text/plain", "octet-stream", "gzip", "no type")


def check_content_type(page: Page, records: Callable[[Page], list[Any]]) -> None:
    """Compare the response's content type with the one that the resource's `records` declares.

    A source's own function declares none, unless it has an attribute `types`.

    Raises:
        BadPayloadError: they differ.
    """
    types: tuple[str, ...] = getattr(records, "types", ())
    if types and not is_of_type(page, (*types, *ANY_TYPE)):
        raise BadPayloadError(
            f"{page.url} answered {page.content_type} where the source declares {types[0]}; it "
            f"begins {page.start_of()!r}. Correct `records` or the address, or ask the "
            "API's owner."
        )


def is_of_type(page: Page, words: Sequence[str]) -> bool:
    """Whether the content type has one of the words."""
    content_type = page.content_type.lower()
    return any(word in content_type for word in words)
