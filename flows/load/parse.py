"""Parses pages into rows, rejects and the newest cursor value.

Has no database connection: it runs in the thread that fetches pages.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows.errors import BadPayloadError, ConfigurationError
from flows.guards import with_guards
from flows.json_text import json_text
from flows.load.batch import (
    Batch,
    MisfitError,
    RecordBatch,
    Reject,
    UnstorableError,
    fields_of,
    is_suspect,
    split_storable,
)
from flows.load.cursor_values import Values, field_value, values_of
from flows.load.ledger import Address
from flows.load.map_record import check_values, map_records
from flows.load.page_pieces import PIECE_BYTES, finder, only_record, pieces
from flows.load.pins import NO_FIELDS, NO_PINS, PinnedFields, Pins
from flows.load.raw_records import RawTexts, raw_texts, read
from flows.load.size_limits import (
    kept,
    objects_bytes,
    rejects_bytes,
    rows_bytes,
    too_large,
    too_large_of,
)
from flows.load.typed_batch import TypedParser
from flows.page import Page, Resume
from flows.source import Partition, Record, Resource
from flows.traffic import NO_TRAFFIC, Traffic

JSON_TYPES = (str, int, float, dict, list, type(None))


@dataclass(frozen=True)
class ParsedPiece:
    """The result of one piece of a page: rows, rejects, cursor values, resume point.

    Attributes:
        memory_bytes: an estimate of the memory it takes until it is in Postgres.
        ends_page: whether it is the last piece of its page.
        token: of its page (`Page.token`).
        is_mark: its resume point is committed at once (`Page.is_mark`).
        is_cut: of its page (`Page.is_cut`).
        traffic: of its page (`Page.traffic`), on its last piece.
        filtered: the number of records that the resource's `map_record` skipped.
    """

    size_bytes: int
    batch: Batch | None
    rejects: list[Reject]
    values: Values
    resume: Resume | None
    filtered: int = 0
    memory_bytes: int = 0
    ends_page: bool = True
    token: str | None = None
    is_mark: bool = False
    is_cut: bool = False
    traffic: Traffic = NO_TRAFFIC

    @property
    def records(self) -> int:
        """The number of records that were read, stored or not."""
        return (self.batch.count if self.batch else 0) + len(self.rejects) + self.filtered

    @property
    def filled(self) -> set[str]:
        """The fields that have a value in any of its rows."""
        natural = self.batch.natural if self.batch else {}
        return {field for field, kind in natural.items() if kind}


class PageParser:
    """Reads the pages of one resource partition, in their order.

    Attributes:
        own_fields: the partition's own fields, added to each row.
        fields: the fields of the records that were searched for the cursor field.
    """

    def __init__(self, address: Address, resource: Resource, partition: Partition) -> None:
        resource = with_guards(resource)
        self._address = address
        self._resource = resource
        self.own_fields = {
            name: _as_json(partition.values[name]) for name in resource.partition_columns
        }
        self.fields: dict[str, None] = {}
        self._pins = NO_PINS
        self._tables = TypedParser(resource, self.own_fields)
        # These functions may return values that are not possible in JSON.
        self._is_own = not getattr(resource.records, "types", ()) or resource.map_record is not None

    def know_pins(self, pins: Pins) -> None:
        """Reject values that these columns would change; read numbers for them digit for digit."""
        self._pins = pins
        self._tables = TypedParser(self._resource, self.own_fields, pins)

    def learn_from(self, earlier: "PageParser") -> None:
        """Expect the types that an earlier partition's pages had."""
        self._tables.learn_from(earlier._tables)

    def readings(self, page: Page) -> Iterator[ParsedPiece]:
        size_bytes = min(PIECE_BYTES, self._resource.max_record_bytes)
        for piece, is_last in pieces(page, finder(page, self._resource), size_bytes):
            reading = self.read(piece)
            memory_bytes = _memory_bytes(piece.body, reading)
            token, traffic = (page.token, page.traffic) if is_last else (None, NO_TRAFFIC)
            yield replace(
                reading,
                memory_bytes=memory_bytes,
                ends_page=is_last and not page.is_mark,
                token=token,
                traffic=traffic,
                is_mark=page.is_mark,
                is_cut=page.is_cut,
            )

    def read(self, page: Page) -> ParsedPiece:
        """Parse a page: as a typed batch if its records are alike, otherwise record by record."""
        size_bytes = len(page.body)
        if page.is_empty:
            return ParsedPiece(size_bytes, None, [], Values(), page.resume)
        if record := only_record(page, self._resource.max_record_bytes):
            return ParsedPiece(size_bytes, None, [self._too_large(record)], Values(), page.resume)
        if self._pins.keeps_digits and not page.keeps_digits:
            page = replace(page, keeps_digits=True)
        known = None if self._resource.map_record else self._tables.read(page)
        if known is not None:
            table, column = known
            values = self._values(column, table.natural.keys())
            return ParsedPiece(size_bytes, table, [], values, page.resume)
        find = finder(page, self._resource)
        found, unreadable = read(page, find)
        records = self._mapped(found)
        too_large = self._too_large_of(page, found)
        fitting = {number: e for number, e in records.items() if number not in too_large}
        good, reasons = self._sort_out(fitting, self._is_own or is_suspect(page.body))
        reasons |= unreadable | {n: e for n, e in too_large.items() if n in records}
        rejects = self._rejects_of(page, found, reasons) if reasons else []
        values = self._values_in(good)
        filtered = set(range(len(found))) - set(records)
        originals = RawTexts(page, find, filtered | set(reasons))
        batch = RecordBatch(good, originals, self._tables.key)
        self._tables.learn(batch)
        stored = batch if good else None
        return ParsedPiece(size_bytes, stored, rejects, values, page.resume, len(filtered))

    def _mapped(self, found: Sequence[Any]) -> dict[int, Any]:
        """The records to store, by their position on the page."""
        name, map_record = str(self._address), self._resource.map_record
        records = map_records(name, map_record, found) if map_record else dict(enumerate(found))
        if self._is_own:
            check_values(name, "map_record" if map_record else "records", list(records.values()))
        return {number: self._with_own_fields(record) for number, record in records.items()}

    def _sort_out(
        self, records: Mapping[int, Any], suspect: bool
    ) -> tuple[list[Record], dict[int, UnstorableError]]:
        """The records that can be stored, and by position the reason why others can't."""
        positions, values = list(records), list(records.values())
        good, reasons = split_storable(values, self._resource.key, suspect, self._pinned(values))
        return good, {positions[number]: reason for number, reason in reasons.items()}

    def _values_in(self, records: Sequence[Record]) -> Values:
        cursor = self._resource.record_cursor
        if cursor is None:
            return Values()
        found = [field_value(record, cursor.field) for record in records]
        fields = [cursor.field] if any(has_it for has_it, _ in found) else fields_of(records)
        return self._values([value for _, value in found], fields)

    def _values(self, values: Iterable[Any], fields: Iterable[str]) -> Values:
        """What the cursor field's values say; notes the fields that records had."""
        cursor = self._resource.record_cursor
        if cursor is None:
            return Values()
        self.fields |= dict.fromkeys(fields)
        return values_of(cursor, values)

    def missing_cursor(self) -> str | None:
        """The cursor field, if records were read and none of them had it."""
        cursor = self._resource.record_cursor
        return cursor.field if cursor and self.fields and cursor.field not in self.fields else None

    def _pinned(self, records: Sequence[Any]) -> PinnedFields:
        if self._pins is NO_PINS:
            return NO_FIELDS
        return self._pins.of(fields_of([e for e in records if isinstance(e, dict)]))

    def _rejects_of(
        self, page: Page, found: Sequence[Any], reasons: Mapping[int, UnstorableError]
    ) -> list[Reject]:
        """The rejected records, as the API wrote them if that is known."""
        texts = raw_texts(page, finder(page, self._resource))
        return [
            self._reject(texts[position] if texts else self.text_of(found[position]), reason)
            for position, reason in reasons.items()
        ]

    def _reject(self, text: str, reason: UnstorableError) -> Reject:
        limit_bytes = self._resource.max_record_bytes
        is_misfit = isinstance(reason, MisfitError)
        return Reject(kept(text, limit_bytes), str(reason), reason.field, is_misfit)

    def _too_large(self, record: bytes) -> Reject:
        limit_bytes = self._resource.max_record_bytes
        return self._reject(record.decode(errors="replace"), too_large(len(record), limit_bytes))

    def _too_large_of(self, page: Page, found: Sequence[Any]) -> dict[int, UnstorableError]:
        """By position, why records are too large, for a page that could not be cut into pieces."""
        limit_bytes = self._resource.max_record_bytes
        return too_large_of(found, limit_bytes) if len(page.body) > limit_bytes + 2 else {}

    def _with_own_fields(self, record: Any) -> Any:
        if not isinstance(record, dict) or not record or not self.own_fields:
            return record
        for name in self.own_fields:
            if name in record:
                raise ConfigurationError(
                    f"{self._address}: the API also sends a field {name!r}. Give the partition's "
                    "value another name, there and in partition_columns."
                )
        return {**self.own_fields, **record}

    def text_of(self, record: Any) -> str:
        """A record as JSON, if its original text is unknown.

        Raises:
            BadPayloadError: when it is nested too deeply for Python to write it.
        """
        try:
            return json_text(record)
        except RecursionError as error:
            raise BadPayloadError(
                f"{self._address}: a record is nested too deeply even to be kept as a reject. "
                "Flatten it in the source's `records` function."
            ) from error


def _memory_bytes(body: bytes, reading: ParsedPiece) -> int:
    batch = reading.batch
    measure = objects_bytes if isinstance(batch, RecordBatch) else rows_bytes
    return measure(body, batch.count if batch else 0) + rejects_bytes(reading.rejects)


def _as_json(value: Any) -> Any:
    """A partition's value as a JSON type: a parent's rows may hold dates and exact numbers."""
    return value if isinstance(value, JSON_TYPES) else str(value)
