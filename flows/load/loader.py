"""One load: the pages of a resource partition into its raw table, checkpoint by checkpoint.

The caller provides the pages, and opens and closes the connection.
"""

import logging
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, islice
from time import monotonic

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from flows.errors import (
    BadPayloadError,
    BadRequestError,
    ConfigurationError,
    EltError,
    NotFoundError,
)
from flows.guards import without_secrets
from flows.load import anomalies, checkpoints, ledger, reject_log
from flows.load.checkpoints import Checkpoint, CursorValue
from flows.load.cursor_position import CursorPosition
from flows.load.cursor_values import usable
from flows.load.failures import note_failure, postgres_errors_of
from flows.load.ledger import Address, Entry
from flows.load.options import DEFAULT_OPTIONS, LoadOptions, window_to_read
from flows.load.parse import PageParser, ParsedPiece
from flows.load.partition_lock import PartitionLock, locked, transaction
from flows.load.prefetch import prefetch
from flows.load.reset import forget_lost_rows
from flows.load.row_writer import RowWriter
from flows.load.tally import Tally
from flows.load.undo import undo
from flows.page import Page, Resume
from flows.source import Partition, Resource, Window
from flows.traffic import NO_TRAFFIC

log = logging.getLogger(__name__)

CHECKPOINT_BYTES = 8 << 20
# Limit for rows that wait for Postgres; as much again may be prefetched.
MEMORY_BYTES = 64 << 20
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
            kind = (options.run_id, options.replays, options.is_backfill)
            is_part = options.limit is not None
            load_id = ledger.begin(cursor, address, *kind, is_part=is_part)
            expires = checkpoints.may_expire(resource)
            checkpoint = checkpoints.read(cursor, address, expires)
        lock.load_id = load_id
        loader = Loader(lock, address, resource, partition, load_id, options)
        try:
            loader.run(pages, checkpoint)
        except BaseException as error:
            note_failure(connection, load_id, error, loader.tally.traffic)
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
    is_append = options.disposition_of(resource) == "append"
    if not is_append or options.run_id is None or options.replays is not None:
        return None
    entry = ledger.completed_by(cursor, address, options.run_id, options.is_backfill)
    if entry and entry.error is not None:
        raise BadPayloadError(entry.error)
    return entry


class Loader:
    """A running load: the rows and rejects since its last checkpoint, and its staging table.

    A background thread fetches and parses pages; the caller's thread writes to Postgres.

    Attributes:
        tally: what it has counted since its last checkpoint.
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
        self._disposition = options.disposition_of(resource)
        self._reader = PageParser(address, resource, partition)
        self._position = CursorPosition(address, resource, options)
        self.tally = Tally(address, resource, load_id)
        self._rows = RowWriter(address, resource, load_id, options, self._reader, self.tally)
        self._pending_bytes = 0
        self._memory_bytes = 0
        self._checkpoint_at = monotonic()
        self._has_read = False
        self._rest: Resume | None = None
        self._begun_by: int | None = load_id

    def run(self, pages: Pages, checkpoint: Checkpoint) -> None:
        """Store every page, move the cursor and close the ledger entry."""
        at_once = self._disposition == "replace"
        if at_once:
            is_kept = checkpoint.resume is not None and checkpoint.resume.is_first
            is_kept = is_kept and (not self._options.full_refresh or self._is_of_run(checkpoint))
            only_cursor = Checkpoint(checkpoint.cursor, field=checkpoint.field)
            checkpoint = replace(checkpoint, seen=None) if is_kept else only_cursor
        now = self._options.now or datetime.now(UTC)
        checkpoint = usable(checkpoint, self._resource, now)
        self._position.resume(checkpoint)
        self._begun_by = checkpoint.begun_by if checkpoint.resume else self._load_id
        window = window_to_read(self._resource, self._options, checkpoint, now)
        with self._lock.transaction() as cursor:
            self._rows.open(cursor)
        checkpoint, window = self._read_anyhow(pages, checkpoint, window)
        self._position.end(window)
        self._check_full_refresh()
        self._check_limit()
        self._finish(checkpoint, window)

    def _is_of_run(self, checkpoint: Checkpoint) -> bool:
        """Whether this run, before a retry, submitted the job at work: an older one is not asked.

        A person who asks for everything anew would get an export from before.
        """
        with self._lock.transaction() as cursor:
            loads = ledger.entries_of_run(cursor, self._options.run_id)
        return checkpoint.begun_by in {entry.load_id for entry in loads}

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
                self.tally.traffic += error.traffic
                error.traffic = NO_TRAFFIC
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
                    self._rows.store(cursor, flush=not at_once)
                    if not at_once or (piece.resume and piece.resume.is_first):
                        self._remember(cursor, checkpoint.cursor, piece.resume, window.until)
                self._pending_bytes, self._memory_bytes, self._checkpoint_at = 0, 0, monotonic()

    def _storing(self) -> AbstractContextManager[Cursor]:
        """A transaction that stores rows; while the table is new, only one load's at a time."""
        return self._lock.transaction(self._rows.target.table if self._rows.is_filling else None)

    def _from_start(
        self, pages: Pages, window: Window, checkpoint: Checkpoint, error: EltError
    ) -> Iterator[Page]:
        """The window's pages from its start, if the last, incomplete load can't be resumed.

        An append fetches the first page, then deletes the rows that the incomplete load stored.

        Raises:
            EltError: if an append would store rows twice: the API's own error, with a remedy;
                otherwise as the pages do.
        """
        has_stored = checkpoint.resume is None or not checkpoint.resume.is_first
        is_append = self._disposition == "append" and has_stored
        if is_append and (window.until is None or checkpoint.begun_by is None):
            raise type(error)(
                f"{error} To begin again would store the rows of the last, incomplete load twice: "
                "load once with full_refresh, which replaces them.",
                error.answer,
            ) from error
        log.warning(
            "%s: the last load did not complete and can't be resumed, so this load reads its "
            "window from the start: %s",
            self._address,
            error,
        )
        found = pages(window, None)
        first = list(islice(found, 1))
        if not has_stored:
            self._begun_by = self._load_id
        if is_append and checkpoint.begun_by is not None:
            table = self._rows.target.table
            restarted = replace(checkpoint, resume=None, begun_by=self._load_id)
            with self._lock.transaction() as cursor:
                undo(cursor, self._address, table, checkpoint.begun_by, self._load_id)
                checkpoints.save(cursor, self._address, self._load_id, restarted)
            self._begun_by = self._load_id
        return chain(first, found)

    def _is_due(self, piece: ParsedPiece) -> bool:
        """Whether to make a checkpoint now.

        Not after the last page: without a resume point the next load would start again, and an
        append would duplicate rows.
        """
        is_full = (
            self._rows.rows >= self._resource.checkpoint_rows
            or self._pending_bytes >= CHECKPOINT_BYTES
            or self._memory_bytes >= MEMORY_BYTES
            or monotonic() - self._checkpoint_at >= self._resource.checkpoint_seconds
        )
        return (is_full or piece.is_mark) and piece.resume is not None

    def _free_memory(self) -> None:
        """Write the rows of a very large page to Postgres before its end.

        After a kill, the next load reads the page again. By then a merge may have written a part
        of it to the raw table; the other dispositions write nothing there before its end.
        """
        if self._memory_bytes >= MEMORY_BYTES:
            with self._storing() as cursor:
                self._rows.store(cursor, flush=self._disposition == "merge")
            self._memory_bytes = 0

    def _read_ahead(self, pages: Iterator[Page]) -> Generator[ParsedPiece, None, None]:
        """The parsed pieces of each page, in order, prefetched while earlier ones are written.

        Fetching and parsing share a thread: in two, they contend for Python's global lock and take
        a tenth longer.
        """
        readings = self._limited(chain.from_iterable(map(self._reader.readings, pages)))
        return prefetch(
            readings, lambda piece: piece.memory_bytes, MEMORY_BYTES, lambda piece: piece.is_mark
        )

    def _limited(self, readings: Iterator[ParsedPiece]) -> Iterator[ParsedPiece]:
        """The pieces up to the resume point with which the limit is reached.

        Most pages have one; the parts of a job's result have none, so it is read as a whole.
        """
        left = math.inf if self._options.limit is None else self._options.limit
        for piece in readings:
            yield piece
            left -= piece.records
            if piece.resume is not None and left <= 0:
                return

    def _take(self, piece: ParsedPiece) -> None:
        if piece.is_cut and self._disposition == "replace":
            raise BadPayloadError(
                f"{self._address}: the API answered without records (status 204, or a rule "
                "`ignore`) where the answer before said that more follow. The list would be "
                "incomplete, so the table is unchanged. Run it again; if the API ends its lists "
                'like this, declare Rule("end", status=…) with that status, e.g. 204.'
            )
        self._rows.take(piece.batch)
        self.tally.take(piece)
        self._position.take(piece)
        self._pending_bytes += piece.size_bytes
        self._memory_bytes += piece.memory_bytes
        self._has_read = True
        self._rest = piece.resume

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
        field = self._position.field
        checkpoint = Checkpoint(value, None, field, resume, parent_load_id=parent_load_id)
        if resume is not None:
            checkpoint = replace(checkpoint, begun_by=self._begun_by)
            if not self._options.by_hand:
                seen = self._position.seen
                checkpoint = replace(checkpoint, seen=seen, window_until=window_until)
        checkpoints.save(cursor, self._address, self._load_id, checkpoint)

    @property
    def _unread(self) -> Resume | None:
        """Where the next load reads on, if `max_pages` or the limit has ended this one."""
        reads_on = self._options.limit is not None or self._resource.writes != "replace"
        return self._rest if reads_on and self._options.replays is None else None

    def _check_limit(self) -> None:
        """Refuse to replace a table by a part.

        Raises:
            ConfigurationError: load it without the limit, or not at all.
        """
        limit = self._options.limit
        if limit is not None and self._unread is not None and self._resource.writes == "replace":
            raise ConfigurationError(
                f"{self._address}: it replaces its table, and limit={limit} ended the reading "
                "before everything was read. The table is unchanged. Load it without the limit, "
                "or name the other resources."
            )

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
            self._rows.store(cursor, flush=True)
            self._rows.close(cursor)
            error = self._error(cursor)
            moves = unread is None and (error is None or self._resource.writes == "append")
            value = self._position.after(checkpoint.cursor, window, moves)
            is_whole = unread is None and not self._rows.left_unmarked
            is_up_to_date = error is None and is_whole and not self._options.by_hand
            parent_load_id = self._partition.version if is_up_to_date else None
            if unread and self._options.limit and self._disposition == "merge":
                # A merge may read rows again; from there, it misses none that have shifted since.
                checkpoints.save(cursor, self._address, self._load_id, checkpoint)
            else:
                self._remember(cursor, value, unread, window.until, parent_load_id)
            if self._disposition == "replace":
                reject_log.supersede(cursor, self._address, self._load_id)
            state, text = ("succeeded", None) if error is None else ("failed", str(error))
            is_part = unread is not None and self._options.limit is not None
            ledger.end(cursor, self._load_id, state, text, is_part)
            if error is None:
                self._compare(cursor, checkpoint)
        self._position.warn_of_future()
        self._warn_of_unread()
        self._rows.warn_of_moved()
        if error is not None:
            raise error

    def _compare(self, cursor: Cursor, checkpoint: Checkpoint) -> None:
        """Note what is unusual about the load, if it read what regular loads read."""
        is_whole = checkpoint.resume is None and self._unread is None
        is_first = self._resource.cursor is not None and checkpoint.cursor is None
        if self._options.is_regular and is_whole and not is_first:
            given = (self._load_id, self._address, self._resource)
            anomalies.compare(cursor, *given, self.tally.filled)

    def _error(self, cursor: Cursor) -> EltError | None:
        """The error of a load that has read and stored everything that it could."""
        return (
            self.tally.error(cursor) or self._position.error(self._reader) or self._window_error()
        )

    def _window_error(self) -> BadPayloadError | None:
        """The error if `max_pages` ended the reading of a range that a person named."""
        is_limited = self._options.limit is not None
        if self._unread is None or is_limited or not self._options.by_hand:
            return None
        return BadPayloadError(
            f"{self._address}: max_pages={self._resource.max_pages} ended the reading before all "
            "of since and until was read. Load the same range again to read on, or raise max_pages."
        )

    def _warn_of_unread(self) -> None:
        if self._unread is not None:
            limit = self._options.limit
            log.warning(
                "%s: %s ended the reading before everything was read. The cursor stays, and %s.",
                self._address,
                f"limit={limit}" if limit else f"max_pages={self._resource.max_pages}",
                "a load without a limit reads the rest" if limit else "the next load reads on",
            )
