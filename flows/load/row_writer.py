"""Writes the rows of one load: directly to the raw table, or through the staging table."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg2.extensions import cursor as Cursor

from flows.load import ledger, shrinkage
from flows.load.batch import Batch, Reject, UnstorableError, halves
from flows.load.ledger import Address
from flows.load.merge import Target, WriteCounts
from flows.load.options import LoadOptions
from flows.load.parse import PageParser
from flows.load.staging_table import StagingTable
from flows.load.tally import Tally
from flows.source import Disposition, FullList, Resource

log = logging.getLogger(__name__)

REJECTS_BYTES = 8 << 20


class RowWriter:
    """The rows since the last checkpoint, and the tables that they go to.

    Attributes:
        target: the raw table.
        is_filling: whether the raw table or its key did not exist when the load began.
        left_unmarked: whether rows that a full list lacks were not marked, because of its rejects.
    """

    def __init__(
        self,
        address: Address,
        resource: Resource,
        load_id: int,
        options: LoadOptions,
        reader: PageParser,
        tally: Tally,
    ) -> None:
        self.target = target_of(address, resource, reader.own_fields)
        if options.full_refresh:
            self.target = replace(self.target, marks_missing=False)
        self.is_filling = False
        self.left_unmarked = False
        self._address = address
        self._resource = resource
        self._load_id = load_id
        self._options = options
        self._reader = reader
        self._tally = tally
        self._disposition = options.disposition_of(resource)
        self._stage = StagingTable(self.target)
        self._copies_directly = self._disposition == "append"
        self._batches: list[Batch] = []
        self._staged = 0
        self._moved = 0

    def open(self, cursor: Cursor) -> None:
        """Create the staging table.

        Raises:
            ConfigurationError: as `StagingTable` does.
        """
        self._tally.is_first = not ledger.has_loaded(cursor, self._address)
        if self._tally.is_first:
            self._stage = StagingTable(replace(self.target, contract="evolve"))
        self.is_filling = self._stage.create(cursor)
        if self._disposition != "replace" or self.target.marks_missing:
            self._stage.check_key()
        self._reader.know_pins(self._stage.pins)
        is_first = self.is_filling and self._options.replays is None
        may_copy = self._disposition == "merge" and self.target.deletes is None
        self._copies_directly |= is_first and may_copy

    def take(self, batch: Batch | None) -> None:
        """Keep rows in memory until they are stored."""
        self._batches += [batch] if batch else []

    @property
    def rows(self) -> int:
        """The number of rows in memory."""
        return sum(batch.count for batch in self._batches)

    def store(self, cursor: Cursor, flush: bool) -> None:
        """Write the batches to Postgres; with `flush`, to the raw table and the ledger as well."""
        batches, self._batches = self._batches, []
        count = sum(batch.count for batch in batches)
        fills = self._disposition == "merge"
        is_unique = fills and self._stage.has_unique_keys(batches, self._resource.key)
        if flush and self._copies_directly and (is_unique or not fills):
            changes = self._stage.add_directly(cursor, batches, self._load_id, defers_key=fills)
            if changes is not None:
                self._tally.account(cursor, count, WriteCounts(inserted=count), changes)
                return
        self._copies_directly = False
        if batches:
            self._add(cursor, batches)
        if flush:
            self._check_shrinkage(cursor)
            written, changes = self._stage.flush(
                cursor, self._how(cursor), self._load_id, self._options.replays, not is_unique
            )
            self._moved += written.moved
            self._tally.account(cursor, self._staged, written, changes)
            self._staged = 0
        elif self._tally.rejects_bytes >= REJECTS_BYTES:
            self._tally.account(cursor, 0, WriteCounts(), [])

    def _how(self, cursor: Cursor) -> Disposition:
        """The disposition; if a full list has rejects, a row that it lacks may be one of them."""
        if self.target.marks_missing and (rejected := self._tally.rejected(cursor)):
            log.warning(
                "%s: no row is marked as deleted, because %d records of the list were rejected.",
                self._address,
                rejected,
            )
            self.left_unmarked = True
            return "merge"
        return self._disposition

    def _check_shrinkage(self, cursor: Cursor) -> None:
        """Refuse to remove too many rows from the table, unless this load accepts it."""
        if self._disposition == "replace" and not self._options.accepts_shrinkage:
            found = self._stage.replacement(cursor)
            table = ".".join(self.target.table.strings)
            rejected, first = self._tally.rejected(cursor), self._tally.first_reject
            shrinkage.check(found, self._resource, table, self._address.partition, rejected, first)

    def _add(self, cursor: Cursor, batches: Sequence[Batch]) -> None:
        """Stage batches; if Postgres refuses a record, bisect them until it is alone."""
        try:
            self._stage.add(cursor, batches)
        except UnstorableError as misfit:
            [*others, batch] = batches
            if not others and batch.count == 1:
                self._tally.reject(Reject(self._text_of(batch), str(misfit), misfit.field, True))
                return
            middle = len(batches) // 2
            for half in (batches[:middle], batches[middle:]) if others else zip(halves(batch)):
                self._add(cursor, half)
        else:
            self._staged += sum(batch.count for batch in batches)

    def _text_of(self, batch: Batch) -> str:
        """The only record of a batch, as the API sent it."""
        texts = batch.texts()
        if texts:
            return texts[0]
        [record] = batch.records()
        return self._reader.text_of(
            {name: value for name, value in record.items() if name not in self._reader.own_fields}
        )

    def close(self, cursor: Cursor) -> None:
        """Create the raw table's key if it was deferred."""
        self._stage.create_key(cursor)

    def warn_of_moved(self) -> None:
        """Log how many rows belonged to other partitions before."""
        log_moved(self._address, self._moved)


def log_moved(address: Address, moved: int) -> None:
    """Warn of rows that belonged to another partition before a load."""
    if moved:
        log.warning(
            "%s: %d rows belonged to another partition before and moved to this one. If both "
            "partitions send these records, each load moves them again: add partition_columns "
            "to the key.",
            address,
            moved,
        )


def target_of(address: Address, resource: Resource, own_fields: Mapping[str, Any]) -> Target:
    """The raw table of a resource, and the columns that identify the partition's rows."""
    return Target(
        table=address.table,
        key=resource.key,
        pins=resource.columns,
        scope=own_fields,
        names=resource.names,
        contract=resource.contract,
        deletes=resource.deletes,
        marks_missing=isinstance(resource.deletes, FullList),
    )
