"""One load: the pages of a resource partition into its raw table, checkpoint by checkpoint.

The caller provides the pages, and opens and closes the connection.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, islice
from time import monotonic
from typing import Any

import psycopg2
import psycopg2.errors
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from flows.errors import (
    BadPayloadError,
    BadRequestError,
    ConfigurationError,
    EltError,
    NotFoundError,
    UnavailableError,
)
from flows.guards import without_secrets
from flows.load import checkpoints, ledger, reject_log, shrinkage
from flows.load.batch import Batch, Reject, UnstorableError, halves
from flows.load.checkpoints import Checkpoint, CursorValue
from flows.load.cursor_values import moved, name_of, newest, of_rejects, usable
from flows.load.ledger import Address, Counts, Entry
from flows.load.merge import Target, WriteCounts
from flows.load.options import DEFAULT_OPTIONS, LoadOptions, window_to_read
from flows.load.parse import PageParser, ParsedPiece
from flows.load.partition_lock import PartitionLock, locked, transaction
from flows.load.prefetch import prefetch
from flows.load.reset import forget_lost_rows
from flows.load.size_limits import rejects_bytes
from flows.load.staging_table import REFUSALS, StagingTable
from flows.load.table_schema import ColumnChange
from flows.load.undo import undo
from flows.page import Page, Resume
from flows.postgres import locks
from flows.redaction import redact
from flows.source import Disposition, Partition, Resource, Window

log = logging.getLogger(__name__)

CHECKPOINT_BYTES = 8 << 20
# Limit for rows that wait for Postgres; as much again may be prefetched.
MEMORY_BYTES = 64 << 20
REJECTS_BYTES = 8 << 20
MISFITS = 100
# With these errors an API refuses a resume point, e.g. a page token that has expired.
REFUSALS_OF_RESUME = (BadPayloadError, BadRequestError, NotFoundError)

Pages = Callable[[Window, Resume | None], Iterator[Page]]


@without_secrets
def load(
    connection: Connection,
    source: str,
    resource: Resource,
    partition: Partition,
    pages: Pages,
    options: LoadOptions = DEFAULT_OPTIONS,
) -> Entry:
    """Load one resource partition and return its ledger entry.

    At each checkpoint the rows, the resume point and the ledger entry are committed in one
    transaction; the next load resumes from there. The cursor moves when a load is complete.
    `replace` and `full_refresh` commit once, at the end: readers see the old rows or the new ones.

    Raises:
        UnavailableError: the API or Postgres is away, or another load of the partition is at work.
        ConfigurationError: the declaration, the request or a credential is wrong.
        BadPayloadError: the API's response is malformed, or more records than `max_rejects` were
            rejected (they are in `elt.rejects`, all others are loaded).
    """
    address = Address(source, resource.name, partition.name)
    with (
        postgres_errors_of(address, connection),
        locked(connection, address, options.waits) as lock,
    ):
        with lock.transaction() as cursor:
            if options.replays is None:
                forget_lost_rows(cursor, address)
            if done := _appended_before(cursor, address, resource, options):
                return done
            load_id = ledger.begin(
                cursor, address, options.run_id, options.replays, options.is_backfill
            )
            expires = checkpoints.may_expire(resource)
            checkpoint = checkpoints.read(cursor, address, expires)
        lock.load_id = load_id
        try:
            Loader(lock, address, resource, partition, load_id, options).run(pages, checkpoint)
        except BaseException as error:
            note_failure(connection, load_id, error)
            raise
        with transaction(connection) as cursor:
            return ledger.entry(cursor, load_id)


def _appended_before(
    cursor: Cursor, address: Address, resource: Resource, options: LoadOptions
) -> Entry | None:
    """The entry of the append that this run completed before; a second one would duplicate rows.

    Raises:
        BadPayloadError: when that append had too many rejects.
    """
    is_append = resource.writes == "append" and not options.full_refresh
    if not is_append or options.run_id is None or options.replays is not None:
        return None
    entry = ledger.completed_by(cursor, address, options.run_id, options.is_backfill)
    if entry and entry.error is not None:
        raise BadPayloadError(entry.error)
    return entry


@without_secrets
def open_rejects(connection: Connection, address: Address) -> list[int]:
    """The loads of a partition with rejects that are not replayed yet, oldest first.

    Raises:
        UnavailableError: Postgres is away.
        ConfigurationError: the role lacks a privilege.
    """
    with postgres_errors_of(address, connection), transaction(connection) as cursor:
        ledger.prepare(cursor, f"raw_{address.source}")
        return reject_log.open_loads(cursor, address)


class Loader:
    """A running load: the rows and rejects since its last checkpoint, and its staging table.

    A background thread fetches and parses pages; the caller's thread writes to Postgres.
    """

    def __init__(
        self,
        lock: PartitionLock,
        address: Address,
        resource: Resource,
        partition: Partition,
        load_id: int,
        options: LoadOptions,
    ) -> None:
        self._lock = lock
        self._address = address
        self._resource = resource
        self._partition = partition
        self._load_id = load_id
        self._options = options
        self._disposition: Disposition = "replace" if options.full_refresh else resource.writes
        self._reader = PageParser(address, resource, partition)
        self._target = target_of(address, resource, self._reader.own_fields)
        self._stage = StagingTable(self._target)
        self._copies_directly = self._disposition == "append"
        self._is_filling = False
        self._batches: list[Batch] = []
        self._rejects: list[Reject] = []
        self._first_reject: Reject | None = None
        self._misfits = 0
        self._pending_bytes = 0
        self._memory_bytes = 0
        self._checkpoint_at = monotonic()
        self._pages = 0
        self._filtered = 0
        self._moved = 0
        self._staged = 0
        self._has_read = False
        self._rest: Resume | None = None
        self._begun_by: int | None = load_id
        self._seen: CursorValue | None = None
        self._field = name_of(resource.cursor)
        self._lacks_token = False
        self._ahead: frozenset[datetime] = frozenset()

    def run(self, pages: Pages, checkpoint: Checkpoint) -> None:
        """Store every page, move the cursor and close the ledger entry."""
        at_once = self._disposition == "replace"
        if at_once:
            resume = checkpoint.resume if self._keeps_job else None
            checkpoint = Checkpoint(checkpoint.cursor, field=checkpoint.field, resume=resume)
        now = datetime.now(UTC)
        checkpoint = usable(checkpoint, self._resource, now)
        self._seen = checkpoint.seen
        self._field = self._field or checkpoint.field
        self._begun_by = checkpoint.begun_by if checkpoint.resume else self._load_id
        window = window_to_read(self._resource, self._options, checkpoint, now)
        with self._lock.transaction() as cursor:
            if not ledger.has_loaded(cursor, self._address):
                self._stage = StagingTable(replace(self._target, contract="evolve"))
            self._is_filling = self._stage.create(cursor)
            if self._disposition != "replace":
                self._stage.check_key()
            self._reader.know_pins(self._stage.pins)
            is_first = self._is_filling and self._options.replays is None
            self._copies_directly |= is_first and self._disposition == "merge"
        checkpoint, window = self._read_anyhow(pages, checkpoint, window)
        if self._resource.writes == "append" and window.until is not None:
            self._seen = window.until
        self._check_full_refresh()
        self._finish(checkpoint, window)

    def _read_anyhow(
        self, pages: Pages, checkpoint: Checkpoint, window: Window
    ) -> tuple[Checkpoint, Window]:
        """Store the pages; if the API refuses the resume point or the token, without it.

        Returns the checkpoint and the window that were used.
        """
        resume = checkpoint.resume
        found = pages(window, resume)
        while True:
            try:
                self._read(found, checkpoint, window)
                return checkpoint, window
            except EltError as error:
                if self._has_read or self._options.replays is not None:
                    raise
                if self._has_expired(window, error):
                    checkpoint, window, resume = Checkpoint(), Window(), None
                    self._begun_by = self._load_id
                    found = pages(window, None)
                elif resume is not None and isinstance(error, REFUSALS_OF_RESUME):
                    resume = None
                    found = self._from_start(pages, window, checkpoint, error)
                else:
                    raise

    def _has_expired(self, window: Window, error: EltError) -> bool:
        """Whether the API refuses the token because it is too old."""
        cursor, status = self._resource.token_cursor, error.answer and error.answer.status
        if cursor is None or window.token is None or status not in cursor.expired:
            return False
        log.warning(
            "%s: the API answered %s to the token of the last load: it is too old, so this load "
            "reads everything. Rows that the API has deleted since then stay; full_refresh deletes "
            "them.",
            self._address,
            status,
        )
        return True

    def _read(self, pages: Iterator[Page], checkpoint: Checkpoint, window: Window) -> None:
        """Store the pages and make a checkpoint whenever one is due."""
        at_once = self._disposition == "replace"
        with closing(self._read_ahead(pages)) as readings:
            for piece in readings:
                self._take(piece)
                if not self._is_due(piece):
                    self._free_memory()
                    continue
                with self._storing() as cursor:
                    self._store(cursor, flush=not at_once)
                    if not at_once or (piece.is_mark and self._keeps_job):
                        self._remember(cursor, checkpoint.cursor, piece.resume, window.until)
                self._pending_bytes, self._memory_bytes, self._checkpoint_at = 0, 0, monotonic()

    def _storing(self) -> AbstractContextManager[Cursor]:
        """A transaction that stores rows; while the table is new, only one load's at a time."""
        return self._lock.transaction(self._target.table if self._is_filling else None)

    def _from_start(
        self, pages: Pages, window: Window, checkpoint: Checkpoint, error: EltError
    ) -> Iterator[Page]:
        """The window's pages from its start, after the API refused the resume point.

        An append fetches the first page, then deletes the rows that it stored of the window.

        Raises:
            EltError: if an append would store rows twice: the API's own error, with a remedy;
                otherwise as the pages do.
        """
        is_append = self._resource.writes == "append"
        if is_append and (window.until is None or checkpoint.begun_by is None):
            raise type(error)(
                f"{error} The last load stopped at this request. Starting again would store its "
                "rows twice: load once with full_refresh, which replaces them.",
                error.answer,
            ) from error
        log.warning(
            "%s: the API refuses the request at which the last load stopped, so this load reads "
            "its window from the start: %s",
            self._address,
            error,
        )
        found = pages(window, None)
        first = list(islice(found, 1))
        if is_append and checkpoint.begun_by is not None:
            restarted = replace(checkpoint, resume=None, begun_by=self._load_id)
            with self._lock.transaction() as cursor:
                undo(cursor, self._address, self._target.table, checkpoint.begun_by, self._load_id)
                checkpoints.save(cursor, self._address, self._load_id, restarted)
            self._begun_by = self._load_id
        return chain(first, found)

    def _is_due(self, piece: ParsedPiece) -> bool:
        """Whether to make a checkpoint now.

        Not after the last page: without a resume point the next load would start again, and an
        append would duplicate rows.
        """
        is_full = (
            sum(batch.count for batch in self._batches) >= self._resource.checkpoint_rows
            or self._pending_bytes >= CHECKPOINT_BYTES
            or self._memory_bytes >= MEMORY_BYTES
            or monotonic() - self._checkpoint_at >= self._resource.checkpoint_seconds
        )
        return (is_full or piece.is_mark) and piece.resume is not None

    @property
    def _keeps_job(self) -> bool:
        """Whether a load that replaces all rows goes on with the job that an earlier one submitted.

        Only if the job makes all of them: those of earlier slices are not committed.
        """
        cursor = self._resource.time_cursor
        return self._resource.job is not None and (cursor is None or cursor.step is None)

    def _free_memory(self) -> None:
        """Write the rows of a very large page to Postgres before its end.

        After a kill, the next load reads the page again. By then a merge may have written a part
        of it to the raw table; the other dispositions write nothing there before its end.
        """
        if self._memory_bytes >= MEMORY_BYTES:
            with self._storing() as cursor:
                self._store(cursor, flush=self._disposition == "merge")
            self._memory_bytes = 0

    def _read_ahead(self, pages: Iterator[Page]) -> Generator[ParsedPiece, None, None]:
        """The parsed pieces of each page, in order, prefetched while earlier ones are written.

        Fetching and parsing share a thread: in two, they contend for Python's global lock and take
        a tenth longer.
        """
        readings = chain.from_iterable(map(self._reader.readings, pages))
        return prefetch(
            readings, lambda piece: piece.memory_bytes, MEMORY_BYTES, lambda piece: piece.is_mark
        )

    def _take(self, piece: ParsedPiece) -> None:
        self._batches += [piece.batch] if piece.batch else []
        for reject in piece.rejects:
            self._reject(reject)
        self._pending_bytes += piece.size_bytes
        self._memory_bytes += piece.memory_bytes
        self._has_read = True
        self._rest = piece.resume
        self._pages += piece.ends_page
        self._filtered += piece.filtered
        self._seen = newest([self._seen, piece.values.newest])
        self._ahead |= piece.values.ahead
        if piece.token is not None:
            self._seen, self._lacks_token = piece.token or None, not piece.token

    def _store(self, cursor: Cursor, flush: bool) -> None:
        """Write the batches to Postgres; with `flush`, to the raw table and the ledger as well."""
        batches, self._batches = self._batches, []
        count = sum(batch.count for batch in batches)
        fills = self._disposition == "merge"
        is_unique = fills and self._stage.has_unique_keys(batches, self._resource.key)
        if flush and self._copies_directly and (is_unique or not fills):
            changes = self._stage.add_directly(cursor, batches, self._load_id, defers_key=fills)
            if changes is not None:
                self._account(cursor, count, WriteCounts(inserted=count), changes)
                return
        self._copies_directly = False
        if batches:
            self._add(cursor, batches)
        if flush:
            self._check_shrinkage(cursor)
            written, changes = self._stage.flush(
                cursor, self._disposition, self._load_id, self._options.replays, not is_unique
            )
            self._moved += written.moved
            self._account(cursor, self._staged, written, changes)
            self._staged = 0
        elif rejects_bytes(self._rejects) >= REJECTS_BYTES:
            self._account(cursor, 0, WriteCounts(), [])

    def _check_shrinkage(self, cursor: Cursor) -> None:
        """Refuse to remove too many rows from the table, unless this load accepts it."""
        if self._disposition == "replace" and not self._options.accepts_shrinkage:
            found = self._stage.replacement(cursor)
            table = ".".join(self._target.table.strings)
            rejected = ledger.entry(cursor, self._load_id).rejected + len(self._rejects)
            first = self._first_reject
            shrinkage.check(found, self._resource, table, self._address.partition, rejected, first)

    def _add(self, cursor: Cursor, batches: Sequence[Batch]) -> None:
        """Stage batches; if Postgres refuses a record, bisect them until it is alone."""
        try:
            self._stage.add(cursor, batches)
        except UnstorableError as misfit:
            [*others, batch] = batches
            if not others and batch.count == 1:
                self._reject(Reject(self._text_of(batch), str(misfit), misfit.field, True))
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

    def _reject(self, reject: Reject) -> None:
        """Keep a record that could not be stored.

        Raises:
            ConfigurationError: when there are so many that the declaration must be wrong.
        """
        self._rejects.append(reject)
        self._first_reject = self._first_reject or reject
        self._misfits += reject.is_misfit
        if self._misfits > max(MISFITS, self._resource.max_rejects):
            raise ConfigurationError(
                f"{self._address}: {self._misfits} records can't be stored, the last one because "
                f"it {reject.reason}: {reject.excerpt}. Correct the resource's `columns`, `key`, "
                "`records` or `contract`, or raise max_rejects."
            )

    def _account(
        self, cursor: Cursor, count: int, written: WriteCounts, changes: list[ColumnChange]
    ) -> None:
        counts = Counts(
            pages=self._pages,
            extracted=count + len(self._rejects),
            inserted=written.inserted,
            updated=written.updated,
            unchanged=count - written.inserted - written.updated,
            rejected=len(self._rejects),
            deleted=written.deleted,
            filtered=self._filtered,
        )
        ledger.add_counts(cursor, self._load_id, counts)
        reject_log.add(cursor, self._load_id, self._rejects)
        ledger.add_schema_changes(cursor, self._load_id, str(self._address), changes)
        self._pages, self._filtered, self._rejects = 0, 0, []

    def _remember(
        self,
        cursor: Cursor,
        value: CursorValue | None,
        resume: Resume | None = None,
        window_until: datetime | None = None,
        parent_load_id: int | None = None,
    ) -> None:
        """Save the resume point: the next request, or the last reject that a replay has read."""
        if self._options.replays is not None:
            upto = resume.reject_id if resume else None
            reject_log.mark_replayed(cursor, self._options.replays, self._load_id, upto)
            return
        checkpoint = Checkpoint(value, None, self._field, resume, parent_load_id=parent_load_id)
        if resume is not None and not self._options.by_hand:
            checkpoint = replace(
                checkpoint, seen=self._seen, window_until=window_until, begun_by=self._begun_by
            )
        checkpoints.save(cursor, self._address, self._load_id, checkpoint)

    @property
    def _unread(self) -> Resume | None:
        """Where the next load reads on, if `max_pages` has ended this one before everything."""
        reads_on = self._options.replays is None and self._resource.writes != "replace"
        return self._rest if reads_on else None

    def _check_full_refresh(self) -> None:
        """Refuse to delete the rows that `max_pages` kept from being read.

        Raises:
            ConfigurationError: raise max_pages, or load without full_refresh.
        """
        if self._unread is not None and self._options.full_refresh:
            raise ConfigurationError(
                f"{self._address}: max_pages={self._resource.max_pages} ended the reading before "
                "everything was read, and a full refresh would delete the rest. Raise max_pages, "
                "or load without full_refresh."
            )

    def _finish(self, checkpoint: Checkpoint, window: Window) -> None:
        unread = self._unread
        with self._storing() as cursor:
            self._store(cursor, flush=True)
            self._stage.create_key(cursor)
            error = self._rejects_error(cursor) or self._cursor_error() or self._window_error()
            moves = unread is None and (error is None or self._resource.writes == "append")
            value = self._cursor_after(checkpoint.cursor, window, moves)
            is_up_to_date = error is None and unread is None and not self._options.by_hand
            parent_load_id = self._partition.version if is_up_to_date else None
            self._remember(cursor, value, unread, window.until, parent_load_id)
            if self._disposition == "replace":
                reject_log.supersede(cursor, self._address, self._load_id)
            if error is None:
                ledger.end(cursor, self._load_id, "succeeded")
            else:
                ledger.end(cursor, self._load_id, "failed", str(error))
        self._warn_of_future()
        self._warn_of_unread()
        log_moved(self._address, self._moved)
        if error is not None:
            raise error

    def _cursor_after(
        self, before: CursorValue | None, window: Window, moves: bool
    ) -> CursorValue | None:
        """Where the cursor stands; if all rows were replaced, what it said before does not count.

        An API may have begun its numbers again, or corrected a wrong date.
        """
        if self._options.by_hand:
            return before
        if self._disposition != "replace":
            return moved(before, self._seen, window) if moves else before
        seen = moved(None, self._seen, window)
        return seen if moves else of_rejects(before, seen)

    def _cursor_error(self) -> ConfigurationError | None:
        """The error if the cursor is missing, because then every load reads everything.

        It is an error because nobody reads a nightly warning. An append's cursor moves with its
        windows and does not need the field.
        """
        if self._lacks_token:
            return ConfigurationError(
                f"{self._address}: the last page has no token at {self._field!r}, so each load "
                "would read the same again. All records are loaded. Correct the resource's "
                "`cursor`, or remove it."
            )
        field = self._reader.missing_cursor()
        if field is None or self._seen is not None or self._resource.writes == "append":
            return None
        return ConfigurationError(
            f"{self._address}: no record has the cursor field {field!r}, so each load would read "
            "everything. All records are loaded. Correct the resource's `cursor`, or remove it. "
            f"The records have: {', '.join(self._reader.fields)[:500]}."
        )

    def _window_error(self) -> BadPayloadError | None:
        """The error if `max_pages` ended the reading of a range that a person named."""
        if self._unread is None or not self._options.by_hand:
            return None
        return BadPayloadError(
            f"{self._address}: max_pages={self._resource.max_pages} ended the reading before all "
            "of since and until was read. Load the same range again to read on, or raise max_pages."
        )

    def _warn_of_unread(self) -> None:
        if self._unread is not None:
            log.warning(
                "%s: max_pages=%d ended the reading before everything was read. The cursor stays, "
                "and the next load reads on.",
                self._address,
                self._resource.max_pages,
            )

    def _warn_of_future(self) -> None:
        if self._ahead:
            log.warning(
                "%s: %d values of the cursor field are too far in the future, up to %s. They are "
                "loaded, but do not move the cursor (Cursor.slack).",
                self._address,
                len(self._ahead),
                max(self._ahead),
            )

    def _rejects_error(self, cursor: Cursor) -> BadPayloadError | None:
        """The error if the load has more rejects than its resource allows."""
        rejected = ledger.entry(cursor, self._load_id).rejected
        if rejected <= self._resource.max_rejects:
            return None
        return BadPayloadError(
            f"{self._address}: {rejected} records could not be stored, "
            f"{_first_reason(self._first_reject)}. "
            f"All others are loaded. See elt.rejects where load_id = {self._load_id}. Correct the "
            "declaration and replay them, ask the API's owner, or raise max_rejects."
        )


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


def _first_reason(reject: Reject | None) -> str:
    return f"the first because it {reject.reason}: {reject.excerpt}" if reject else ""


def target_of(address: Address, resource: Resource, own_fields: Mapping[str, Any]) -> Target:
    """The raw table of a resource, and the columns that identify the partition's rows."""
    return Target(
        table=address.table,
        key=resource.key,
        pins=resource.columns,
        scope=own_fields,
        names=resource.names,
        contract=resource.contract,
    )


@contextmanager
def postgres_errors_of(address: Address, connection: Connection) -> Iterator[None]:
    """Turn errors of Postgres into this project's, which state the remedy."""
    try:
        yield
    except psycopg2.errors.LockNotAvailable as error:
        raise UnavailableError(
            f"{address}: another session holds a lock that the load needs ({_text(error)}): "
            f"{_lock_holders(connection, address)}"
        ) from error
    except (psycopg2.IntegrityError, *REFUSALS) as error:
        raise ConfigurationError(
            f"{address}: Postgres refused a value: {_text(error)}. Correct the resource's "
            "`columns`, `key` or `disposition`, or what was added to its raw table by hand."
        ) from error
    except psycopg2.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"{address}: the database role lacks a privilege: {_text(error)}. It has to own the "
            f"schemas elt and raw_{address.source} with everything in them, and the views on their "
            "tables; docs/loading.md lists the grants."
        ) from error
    except (psycopg2.ProgrammingError, psycopg2.NotSupportedError) as error:
        raise ConfigurationError(
            f"{address}: Postgres refused a statement: {_text(error)}. Correct the resource's "
            "`columns` or `key`."
        ) from error
    except (psycopg2.DatabaseError, psycopg2.InterfaceError) as error:
        raise UnavailableError(
            f"{address}: Postgres went away or ran out of something: {_text(error)}. Fix that and "
            "run the load again; committed rows are kept."
        ) from error


def _lock_holders(connection: Connection, address: Address) -> str:
    """The sessions that write to the partition's raw table or the ledger, or alter them."""
    with transaction(connection) as cursor:
        table = address.table
        keys = [table.as_string(cursor), "elt", f"elt:{address}"]
        return locks.holders(cursor, [table, *ledger.TABLES], keys)


def _text(error: psycopg2.Error) -> str:
    return " ".join(redact(str(error)).split())


def note_failure(connection: Connection, load_id: int, error: BaseException) -> None:
    """Close the entry as failed; if Postgres is unavailable, the next load marks it abandoned."""
    message = str(error) if isinstance(error, EltError) else f"{type(error).__name__}: {error}"
    message = message.encode(errors="backslashreplace").decode().replace("\0", "\\0")
    try:
        with transaction(connection) as cursor:
            ledger.fail(cursor, load_id, message)
    except psycopg2.Error as second:
        log.warning(
            "Could not record in the ledger that load %d failed: %s", load_id, _text(second)
        )
