"""A group: small partitions of one resource that are committed together.

Each partition keeps a checkpoint of its own; the group has one entry in the ledger. Only merges:
a merge that is repeated after a kill changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import psycopg2
import psycopg2.errors
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from flows.errors import BadPayloadError
from flows.load import anomalies, checkpoints, ledger
from flows.load.batch import UnstorableError
from flows.load.checkpoints import Checkpoint
from flows.load.cursor_values import moved, name_of, newest, usable
from flows.load.failures import note_failure, postgres_errors_of
from flows.load.ledger import Address, Counts, Entry
from flows.load.options import ANY_TIME, LoadOptions, window_to_read
from flows.load.parse import PageParser, ParsedPiece
from flows.load.partition_lock import PartitionLock, locked
from flows.load.reset import forget_lost_rows
from flows.load.row_writer import log_moved, target_of
from flows.load.staging_table import REFUSALS, StagingTable
from flows.page import Page
from flows.source import Partition, Resource, Window
from flows.traffic import NO_TRAFFIC

# Up to so many partitions have an entry in the ledger each, and may have a task each.
FEW_PARTITIONS = 4
NO_CHECKPOINT = Checkpoint()
_LOCK = (
    "select key, pg_try_advisory_xact_lock(hashtextextended(key, 0))"
    " from unnest(%s::text[]) as given (key)"
)


class RefusedError(Exception):
    """The partitions can't be stored together; nothing was stored. Load them one by one."""


@dataclass(frozen=True)
class PlannedPartition:
    """A partition, its last checkpoint, and the window to read."""

    partition: Partition
    checkpoint: Checkpoint = NO_CHECKPOINT
    window: Window = ANY_TIME


@dataclass(frozen=True)
class ReadPartition:
    """All pages of a partition, parsed."""

    planned: PlannedPartition
    pages: Sequence[Page]
    pieces: Sequence[ParsedPiece]

    @property
    def memory_bytes(self) -> int:
        """An estimate of the memory it takes until it is in Postgres."""
        return sum(piece.memory_bytes for piece in self.pieces)

    @property
    def rows(self) -> int:
        """The number of rows to store."""
        return sum(piece.batch.count for piece in self.pieces if piece.batch)

    def next_checkpoint(self) -> Checkpoint:
        """Where the next load resumes once this is stored."""
        tokens = [piece.token for piece in self.pieces if piece.token]
        seen = tokens[-1] if tokens else newest(piece.values.newest for piece in self.pieces)
        before = self.planned.checkpoint
        return Checkpoint(
            cursor=moved(before.cursor, seen, self.planned.window),
            field=before.field,
            parent_load_id=self.planned.partition.version,
        )


def may_group(resource: Resource, partitions: int, options: LoadOptions) -> bool:
    """Whether small ones of so many partitions may be stored together by such a load.

    Not if they are made by jobs, which are committed as soon as they are submitted.
    """
    return (
        partitions > FEW_PARTITIONS
        and resource.job is None
        and resource.writes == "merge"
        and not options.full_refresh
        and not options.by_hand
        and options.limit is None
    )


class Group:
    """The small partitions that one run loads of one resource; used by one thread.

    The caller has opened the group's ledger entry, or has joined it (`partition_lock.joined`).

    Attributes:
        filled: the fields that had a value in any record that it stored.
        reads_anew: whether partitions with a cursor were read from their beginning.
    """

    def __init__(
        self,
        lock: PartitionLock,
        address: Address,
        resource: Resource,
        options: LoadOptions,
        load_id: int,
    ) -> None:
        self._lock = lock
        self._address = address
        self._resource = resource
        self._options = options
        self._load_id = load_id
        self._of_this_run: frozenset[int] = frozenset()
        self._stage = self._new_stage(is_first=False)
        self._moved = 0
        self._is_first = False
        self.filled: set[str] = set()
        self.reads_anew = False

    def _new_stage(self, is_first: bool) -> StagingTable:
        own_fields = dict.fromkeys(self._resource.partition_columns)
        target = target_of(self._address, self._resource, own_fields)
        return StagingTable(replace(target, contract="evolve") if is_first else target)

    def open(self) -> None:
        """Create the staging table; again after a refusal, which undoes what it knew.

        Raises:
            ConfigurationError: as `StagingTable` does.
        """
        with self._lock.transaction() as cursor:
            self._is_first = not ledger.has_loaded(cursor, self._address)
            stage = self._new_stage(self._is_first)
            stage.create(cursor)
            stage.check_key()
            earlier = ledger.groups_of_run(cursor, self._address, self._options.run_id)
            self._of_this_run = frozenset({self._load_id, *earlier})
        self._stage = stage

    def plan(self, partitions: Sequence[Partition]) -> list[PlannedPartition]:
        """Read the checkpoints.

        Leaves out partitions that are not due (`is_due`), and those that a group of this run has
        committed already, before the run was killed or retried.
        """
        now = self._options.now or datetime.now(UTC)
        with self._lock.transaction() as cursor:
            forget_lost_rows(cursor, self._address)
            names = [partition.name for partition in partitions]
            expires = checkpoints.may_expire(self._resource)
            stored = checkpoints.read_many(cursor, self._address, names, expires)
        planned = []
        for partition in partitions:
            found = stored.get(partition.name, NO_CHECKPOINT)
            is_in_group = partition.version is None and found.load_id in self._of_this_run
            if is_due(partition, found) and not is_in_group:
                checkpoint = usable(found, self._resource, now)
                self.reads_anew |= self._resource.cursor is not None and checkpoint.cursor is None
                field = name_of(self._resource.cursor) or found.field
                checkpoint = replace(checkpoint, saved_at=found.saved_at, field=field)
                window = window_to_read(self._resource, self._options, checkpoint, now)
                planned.append(PlannedPartition(partition, checkpoint, window))
        return planned

    def parser(self, partition: Partition, earlier: PageParser | None) -> PageParser:
        """A parser of the partition's pages; may be called from any thread."""
        address = replace(self._address, partition=partition.name)
        parser = PageParser(address, self._resource, partition)
        parser.know_pins(self._stage.pins)
        if earlier is not None:
            parser.learn_from(earlier)
        return parser

    def store(self, read: Sequence[ReadPartition]) -> list[ReadPartition]:
        """Commit rows, checkpoints and counts of partitions in one transaction.

        Returns those that another load has locked, or has loaded since they were planned. They are
        not stored.

        Raises:
            RefusedError: Postgres or the contract refuses a row; nothing is stored.
        """
        try:
            with self._lock.transaction(self._address.table) as cursor:
                forget_lost_rows(cursor, self._address)
                ours, others = self._separate(cursor, read)
                self._write(cursor, ours)
        except (UnstorableError, BadPayloadError, psycopg2.IntegrityError, *REFUSALS) as error:
            self.open()
            raise RefusedError from error
        return others

    def _separate(
        self, cursor: Cursor, read: Sequence[ReadPartition]
    ) -> tuple[list[ReadPartition], list[ReadPartition]]:
        """The partitions that this transaction can lock and nobody has loaded since; the others."""
        addresses = [self._address_of(each) for each in read]
        cursor.execute(_LOCK, [[f"elt:{address}" for address in addresses]])
        is_locked = dict(cursor.fetchall())
        names = [address.partition for address in addresses]
        stored = checkpoints.read_many(cursor, self._address, names)
        ours: list[ReadPartition] = []
        others: list[ReadPartition] = []
        for each, address in zip(read, addresses, strict=True):
            present = stored.get(address.partition, NO_CHECKPOINT)
            is_same = present.saved_at == each.planned.checkpoint.saved_at
            (ours if is_locked[f"elt:{address}"] and is_same else others).append(each)
        return ours, others

    def _write(self, cursor: Cursor, read: Sequence[ReadPartition]) -> None:
        if not read:
            return
        pieces = [piece for each in read for piece in each.pieces]
        batches = [piece.batch for piece in pieces if piece.batch]
        if batches:
            self._stage.add(cursor, batches)
        written, changes = self._stage.flush(
            cursor, "merge", self._load_id, may_repeat_keys=self._may_repeat_keys(read)
        )
        count = sum(batch.count for batch in batches)
        counts = Counts(
            partitions=len(read),
            pages=sum(len(each.pages) for each in read),
            extracted=count,
            inserted=written.inserted,
            updated=written.updated,
            unchanged=count - written.inserted - written.updated,
            deleted=written.deleted,
            filtered=sum(piece.filtered for piece in pieces),
            **vars(sum((piece.traffic for piece in pieces), NO_TRAFFIC)),
        )
        ledger.add_counts(cursor, self._load_id, counts)
        ledger.add_schema_changes(cursor, self._load_id, str(self._address), changes)
        if not self._is_first:
            anomalies.add_schema_changes(cursor, self._load_id, changes)
        addresses = [self._address_of(each) for each in read]
        following = [each.next_checkpoint() for each in read]
        checkpoints.save_many(cursor, addresses, self._load_id, following)
        self._moved += written.moved
        self.filled.update(*(piece.filled for piece in pieces))

    def _may_repeat_keys(self, read: Sequence[ReadPartition]) -> bool:
        """Partitions differ in their part of the key, unless it is global."""
        if self._resource.key_is_global:
            return True
        return not all(
            self._stage.has_unique_keys(
                [piece.batch for piece in each.pieces if piece.batch], self._resource.key
            )
            for each in read
        )

    def _address_of(self, read: ReadPartition) -> Address:
        return replace(self._address, partition=read.planned.partition.name)

    def warn_of_moved(self) -> None:
        """Log how many rows belonged to other partitions before."""
        log_moved(self._address, self._moved)


@contextmanager
def open_group(
    connect: Callable[[], Connection], address: Address, options: LoadOptions
) -> Iterator[tuple[PartitionLock, int]]:
    """Lock a resource as a whole and open the entry of a group; closes it as failed on an error.

    Raises:
        EltError: another run loads the resource, or Postgres is away.
    """
    with (
        closing(connect()) as connection,
        postgres_errors_of(address, connection),
        locked(connection, address, options.waits) as lock,
    ):
        with lock.transaction() as cursor:
            load_id = ledger.begin(cursor, address, options.run_id, is_group=True)
        lock.load_id = load_id
        try:
            yield lock, load_id
        except BaseException as error:
            note_failure(connection, load_id, error)
            raise


def close_group(
    lock: PartitionLock,
    load_id: int,
    error: str | None,
    resource: Resource,
    partitions: int,
    group: Group | None = None,
) -> Entry:
    """Close the entry, as failed if there is an error, and return it.

    Compares it with earlier groups if it stands for all of so many partitions. Without `group`,
    other processes have stored them, and no process knows all the fields.
    """
    with lock.transaction() as cursor:
        ledger.end(cursor, load_id, "failed" if error else "succeeded", error)
        entry = ledger.entry(cursor, load_id)
        is_whole = error is None and entry.partitions == partitions
        reads_anew = group.reads_anew if group else resource.cursor is not None
        if is_whole and not reads_anew:
            filled = group.filled if group else None
            anomalies.compare(cursor, load_id, entry.address, resource, filled)
        return entry


def is_due(partition: Partition, checkpoint: Checkpoint) -> bool:
    """Whether the partition has to be loaded; a partition without a version always."""
    return (
        partition.version is None
        or checkpoint.resume is not None
        or checkpoint.parent_load_id != partition.version
    )
