"""Where the records are in a page's JSON document."""

from collections.abc import Callable
from typing import Any

from flows.declaration import Page, Record
from flows.errors import BadPayloadError


def records_at(path: str = "") -> Callable[[Page], list[Any]]:
    """The list of records under `path` (dots go deeper); without a path, the document itself."""

    def read(page: Page) -> list[Any]:
        found = _at(page, path)
        if not isinstance(found, list):
            raise _unexpected(page, path, "a list of records", found)
        return found

    return read


def columns_at(path: str) -> Callable[[Page], list[Record]]:
    """Records from one array per field, e.g. `{"time": [...], "temperature": [...]}`.

    All arrays must be of one length: a shorter one would shift values between records.
    """

    def read(page: Page) -> list[Record]:
        found = _at(page, path)
        if not isinstance(found, dict) or not all(isinstance(v, list) for v in found.values()):
            raise _unexpected(page, path, "an object of arrays", found)
        lengths = {name: len(values) for name, values in found.items()}
        if len(set(lengths.values())) > 1:
            raise BadPayloadError(
                f"{page.url} has arrays of different lengths under {path!r}: {lengths}. "
                "Ask the API's owner."
            )
        return [
            dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)
        ]

    return read


def _at(page: Page, path: str) -> Any:
    found = page.document
    for name in filter(None, path.split(".")):
        if not isinstance(found, dict) or name not in found:
            raise _unexpected(page, path, f"the field {name!r}", found)
        found = found[name]
    return found


def _unexpected(page: Page, path: str, wanted: str, found: Any) -> BadPayloadError:
    shape = sorted(found)[:10] if isinstance(found, dict) else type(found).__name__
    return BadPayloadError(
        f"{page.url} should have {wanted} at {path or 'its root'!r}, but there is {shape}. "
        "Correct `records` in the source, or ask the API's owner."
    )
