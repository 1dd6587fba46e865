"""Records of a JSON body that are put together: from lists in lists, objects by id, or rows.

Each selector works on unparsed values (`msgspec.Raw`), so that numbers keep their digits and large
pages can be cut into pieces, and on Python's own where the body can't be cut.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from flows.checks.rows import repeated
from flows.errors import BadPayloadError, ConfigurationError, PayloadTooLargeError
from flows.extract.json_records import RecordsAt, unexpected
from flows.page import Page

# In a path: each element of the list.
EACH = "[]"


class Shaped(ABC):
    """A selector that makes its records of the document's parts."""

    types: ClassVar[tuple[str, ...]] = RecordsAt.types

    def __call__(self, page: Page) -> list[Any]:
        """The records as Python objects."""
        return list(self._records(page, page.document))

    def raw(self, page: Page) -> bytes | None:
        """The records as one JSON list; None if the body can't be cut, or is another.

        Raises:
            PayloadTooLargeError: with their repeated names and fields, they exceed
                `max_body_bytes`.
        """
        try:
            return _joined(page, self._unparsed(page))
        except PayloadTooLargeError:
            raise
        except (msgspec.DecodeError, UnicodeError, RecursionError, BadPayloadError):
            return None

    def is_empty(self, page: Page) -> bool:
        """Whether there is no record, by the first one; False for another body."""
        try:
            return next(self._unparsed(page), None) is None
        except (msgspec.DecodeError, UnicodeError, RecursionError, BadPayloadError):
            return False

    def _unparsed(self, page: Page) -> Iterator[Any]:
        return self._records(page, msgspec.Raw(page.body.strip()))

    @abstractmethod
    def _records(self, page: Page, document: Any) -> Iterator[Any]:
        """The records in the document, unparsed if that is."""


@dataclass(frozen=True)
class NestedAt(Shaped):
    """Records in the elements of a list, or in lists in them."""

    path: str
    optional: bool = False
    parents: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a parent's field that is not on the way to the records."""
        for name, path in self.parents.items():
            place, rest = _split_last(path)
            if not self.path.startswith(place) or not rest.strip("."):
                raise ConfigurationError(
                    f"records_at({self.path!r}): its parents name {path!r} for {name!r}, which is "
                    "no field above the records. Write the way to it, e.g. 'orders[].id' for "
                    "records at 'orders[].lines[]'."
                )

    @property
    def changes_count(self) -> bool:
        """Whether there may be more or fewer records than elements in the list of the API."""
        return self.optional or self.path.count(EACH) > 1

    def _records(self, page: Page, document: Any) -> Iterator[Any]:
        return self._below(page, document, self.path.split(EACH), "", {})

    def _below(
        self, page: Page, found: Any, steps: list[str], place: str, known: Mapping[str, Any]
    ) -> Iterator[Any]:
        """The records in a value: `steps` lead from its `place` in the document to them."""
        step, *deeper = steps
        known = {**known, **dict(self._parents_at(page, found, place))}
        place += step
        found = self._at(page, found, step, place)
        if self.optional and opened(found) is None:
            return
        if not deeper:
            yield self._with_parents(page, found, known) if known else found
            return
        elements = opened(found)
        if not isinstance(elements, list):
            raise unexpected(page, place, "a list", elements)
        for element in elements:
            yield from self._below(page, element, deeper, place + EACH, known)

    def _parents_at(self, page: Page, found: Any, place: str) -> Iterator[tuple[str, Any]]:
        for name, path in self.parents.items():
            above, rest = _split_last(path)
            if above == place:
                yield name, self._at(page, found, rest, path)

    def _at(self, page: Page, found: Any, step: str, path: str) -> Any:
        """The value below another one; None if it may be missing and is."""
        for name in filter(None, step.split(".")):
            members = opened(found)
            if self.optional and members is None:
                return None
            if not isinstance(members, dict) or (name not in members and not self.optional):
                raise unexpected(page, path, f"the field {name!r}", members)
            found = members.get(name)
        return found

    def _with_parents(self, page: Page, found: Any, known: Mapping[str, Any]) -> Any:
        members = opened(found)
        if not isinstance(members, dict):
            return found
        for name in known.keys() & members.keys():
            raise ConfigurationError(
                f"{page.url}: records_at({self.path!r}) adds a parent's field {name!r}, but the "
                "records have a field of that name. Give the parent's another name."
            )
        return {**known, **members}


def records_at(
    path: str = "", *, optional: bool = False, parents: Mapping[str, str] | None = None
) -> RecordsAt | NestedAt:
    """The list of records under `path` (dots name nested fields); by default, the whole document.

    `[]` stands for each element of a list: `data.items[].node` is one record of each item, and
    `orders[].lines[]` are the lines of all orders. `parents` adds fields from above to each record,
    by the name that they get: `{"order_id": "orders[].id"}`.

    If the records are `optional`, null or a missing field means no records.
    """
    if optional and not path:
        raise ConfigurationError("records_at(optional=True) needs a path.")
    if EACH in path:
        return NestedAt(path, optional, parents or {})
    if parents:
        raise ConfigurationError(
            f"records_at({path!r}): `parents` needs a path with []. For fields beside the list, "
            f"write {path + EACH!r}."
        )
    return RecordsAt(path, optional)


@dataclass(frozen=True)
class KeyedAt(Shaped):
    """Records in an object, by their id."""

    path: str
    field: str

    def __post_init__(self) -> None:
        """Refuse an id without a name: it would be lost."""
        if not self.field:
            raise ConfigurationError("keyed_at needs the name of the field for the records' ids.")

    def _records(self, page: Page, document: Any) -> Iterator[Any]:
        members = at_unparsed(page, document, self.path)
        if members == []:  # PHP writes an empty object so.
            members = {}
        if not isinstance(members, dict):
            raise unexpected(page, self.path, "an object of records", members)
        return (self._record(page, key, value) for key, value in members.items())

    def _record(self, page: Page, key: str, value: Any) -> Any:
        record = opened(value)
        if not isinstance(record, dict):
            return value
        own = opened(record.get(self.field, msgspec.Raw(b'""')))
        if self.field in record and str(own) != key:
            raise BadPayloadError(
                f"{page.url} has a record under {page.quoted(key)} whose own {self.field!r} is "
                f"{page.quoted(own)}. Name another field in keyed_at, for the id above the record."
            )
        return record if self.field in record else {self.field: key, **record}


def keyed_at(path: str = "", field: str = "id") -> KeyedAt:
    """The records in the object under `path`, by id: `{"17": {…}, "18": {…}}`.

    The id becomes the record's `field`, as text. A record that has this field keeps its own value,
    which must be the same.
    """
    return KeyedAt(path, field)


@dataclass(frozen=True)
class RowsAt(Shaped):
    """Records in arrays of values, of which the first has the names unless they are declared."""

    path: str
    declared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse one text as names, and a repeated name."""
        if isinstance(self.declared, str) or repeated(self.declared):
            raise ConfigurationError(
                f"rows_at(names={self.declared!r}): write a tuple of different names, one for "
                "each value of a row."
            )

    def _records(self, page: Page, document: Any) -> Iterator[Any]:
        rows = at_unparsed(page, document, self.path)
        if not isinstance(rows, list):
            raise unexpected(page, self.path, "a list of arrays", rows)
        first = opened(rows[0]) if rows else []
        if not isinstance(first, list):
            raise unexpected(page, self.path, "a list of arrays", first)
        header = list(map(opened, first))
        self._check_header(page, header)
        names = self.declared or header
        for number, row in enumerate(rows if self.declared else rows[1:], start=1):
            values = opened(row)
            if not isinstance(values, list) or len(values) != len(names):
                size = f"{len(values)} values" if isinstance(values, list) else "no array"
                raise self._problem(page, f"row {number} is {size} for {len(names)} names")
            yield dict(zip(names, values, strict=True))

    def _check_header(self, page: Page, header: list[Any]) -> None:
        """Refuse a first row that is not what is declared."""
        if self.declared:
            if header == list(self.declared):
                raise self._problem(page, "the first row has the declared names: remove `names`")
        elif header and (not all(isinstance(e, str) for e in header) or repeated(header)):
            raise self._problem(
                page, f"the first row has no names, each of them once, but {page.quoted(header)}"
            )

    def _problem(self, page: Page, problem: str) -> BadPayloadError:
        return BadPayloadError(
            f"{page.url} has no rows as declared at {self.path or 'its root'!r}: {problem}. "
            "Correct `records` in the source, or ask the API's owner."
        )


def rows_at(path: str = "", *, names: tuple[str, ...] = ()) -> RowsAt:
    """The records in the arrays under `path`: `[["id", "name"], [1, "Lamp"], [2, "Shelf"]]`.

    The first array has the names, unless they are declared here.
    """
    return RowsAt(path, names)


def opened(value: Any) -> Any:
    """The members or the elements of an unparsed value, unparsed; others as they are."""
    if not isinstance(value, msgspec.Raw):
        return value
    start = bytes(memoryview(value)[:1])
    kind = {b"{": dict[str, msgspec.Raw], b"[": list[msgspec.Raw]}.get(start, Any)
    return msgspec.json.decode(value, type=kind)


def at_unparsed(page: Page, document: Any, path: str) -> Any:
    """The opened value at a path; raises as `unexpected` says."""
    found = opened(document)
    for name in filter(None, path.split(".")):
        if not isinstance(found, dict) or name not in found:
            raise unexpected(page, path, f"the field {name!r}", found)
        found = opened(found[name])
    return found


def _split_last(path: str) -> tuple[str, str]:
    """A path up to its last `[]`, and the rest."""
    above, each, rest = path.rpartition(EACH)
    return above + each, rest


def _joined(page: Page, records: Iterator[Any]) -> bytes:
    """The records in one JSON list; each has the fields from above, or the names."""
    texts = io.BytesIO()
    for record in records:
        texts.write(b"," if texts.tell() else b"[")
        texts.write(_text(record))
        if texts.tell() > page.max_bytes:
            raise PayloadTooLargeError(
                f"{page.url}: its records have more than {page.max_bytes:,} bytes, the source's "
                "max_body_bytes, with the fields from above or the names in each of them. Request "
                "smaller pages, leave out a parent's field, or raise it."
            )
    return texts.getvalue() + b"]" if texts.tell() else b"[]"


def _text(record: Any) -> bytes:
    return bytes(record) if isinstance(record, msgspec.Raw) else msgspec.json.encode(record)
