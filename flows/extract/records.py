"""Where the records are in a page's JSON document."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from flows.declaration import Page, Record
from flows.errors import BadPayloadError


@dataclass(frozen=True)
class RecordsAt:
    """A list of records under `path`; the load layer may read it without this function's help."""

    path: str

    def __call__(self, page: Page) -> list[Any]:
        """The records as Python objects."""
        found = _at(page, self.path)
        if not isinstance(found, list):
            raise _unexpected(page, self.path, "a list of records", found)
        return found

    def raw(self, page: Page) -> bytes | None:
        """The list's own bytes, unparsed; None where there is nothing at the path."""
        found: bytes | msgspec.Raw | None = page.body
        for name in filter(None, self.path.split(".")):
            members = page.members if found is page.body else _members(found)
            found = members.get(name) if members else None
        return None if found is None else bytes(found)


def records_at(path: str = "") -> RecordsAt:
    """The list of records under `path` (dots go deeper); without a path, the document itself."""
    return RecordsAt(path)


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


def _members(found: bytes | msgspec.Raw | None) -> Mapping[str, msgspec.Raw] | None:
    try:
        return msgspec.json.decode(found or b"", type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


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
