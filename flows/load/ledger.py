"""The ledger: a record of every load (`elt.loads`), and the checkpoint where the next one resumes.

Every function works inside the caller's transaction, so that rows, cursor and ledger entry are
committed together.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from flows.errors import ConfigurationError, UnavailableError
from flows.load.batch import Reject
from flows.load.size_limits import reject_batches
from flows.load.table_schema import ColumnChange
from flows.page import Resume
from flows.postgres import locks, schemas
from flows.postgres.session import TOKEN
from flows.redaction import redact, redact_record, shows_secret

OWN = schemas.OwnSchema(
    "elt",
    "The ledger of all loads",
    Path(__file__).with_suffix(".sql").read_text(),
    "loads",
    frozenset({"load_id", "source", "resource", "partition", "extracted", "unchanged", "rejected"}),
)
_ENTRIES = (
    "select load_id, source, resource, partition, state,"
    " extract(epoch from coalesce(ended_at, clock_timestamp()) - started_at)::float,"
    " pages, extracted, inserted, updated, unchanged, rejected, deleted, filtered,"
    " error from elt.loads "
)
TABLES = [
    sql.Identifier("elt", name)
    for name in ("loads", "checkpoints", "rejects", "schema_changes", "columns", "resets")
]
# The rows of loads before a resource's last reset are gone.
_SINCE_RESET = sql.SQL(
    "load_id > coalesce((select max(after_load_id) from elt.resets"
    " where (resets.source, resets.resource) = (loads.source, loads.resource)), 0)"
)
_BACKFILLED = sql.SQL(
    "select distinct partition from elt.loads"
    " where (source, resource, state) = (%s, %s, 'succeeded') and is_backfill and {}"
).format(_SINCE_RESET)
_COMPLETE = sql.SQL(
    "select partition from (select distinct on (partition) partition, state from elt.loads"
    "  where (source, resource) = (%(source)s, %(resource)s) and is_regular and {}"
    "  order by partition, load_id desc) as newest"
    " where state = 'succeeded' and not exists (select from elt.rejects join elt.loads"
    "  using (load_id) where replayed_by is null and (source, resource, loads.partition)"
    "  = (%(source)s, %(resource)s, newest.partition))"
).format(_SINCE_RESET)
_HAS_LOADED = sql.SQL(
    "select exists (select from elt.loads where (source, resource, state) = (%s, %s, 'succeeded')"
    " and extracted > rejected and {})"
).format(_SINCE_RESET)
_HAS_STORED = sql.SQL(
    "select exists (select from elt.loads where (source, resource) = (%s, %s)"
    " and inserted > 0 and {})"
).format(_SINCE_RESET)
_LOCK = "select pg_advisory_lock(hashtextextended(%s, 0)) is not null, set_config(%s, %s, false)"
_TRY_LOCK = "select pg_try_advisory_lock(hashtextextended(%s, 0)), set_config(%s, %s, false)"
_UNLOCK = (
    "select case when current_setting(%s, true) = %s"
    " then pg_advisory_unlock(hashtextextended(%s, 0)) end"
)
_SESSION = "select current_setting(%s, true), set_config('lock_timeout', %s, true)"
_OF_ENTRY = ", state from elt.loads where load_id = %s for no key update"


@dataclass(frozen=True)
class Address:
    """The resource partition that a load fills."""

    source: str
    resource: str
    partition: str

    @property
    def table(self) -> sql.Identifier:
        """The resource's raw table."""
        return sql.Identifier(f"raw_{self.source}", self.resource)

    def __str__(self) -> str:
        """`northwind.orders`, or `open_meteo.daily_weather[London]`."""
        name = f"{self.source}.{self.resource}"
        return f"{name}[{self.partition}]" if self.partition else name


@dataclass(frozen=True)
class Counts:
    """Numbers of records and pages since the previous checkpoint."""

    pages: int = 0
    extracted: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    deleted: int = 0
    filtered: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """Where the next load resumes; times are UTC.

    Attributes:
        cursor_at: the newest cursor value of the last complete load.
        cursor_seen_at: the newest cursor value of the incomplete load.
        window_until: the end of the window that the incomplete load reads.
        begun_by: the first load that read this window; None if unknown.
    """

    cursor_at: datetime | None = None
    cursor_seen_at: datetime | None = None
    resume: Resume | None = None
    window_until: datetime | None = None
    begun_by: int | None = None


@dataclass(frozen=True)
class Entry:
    """One row of the ledger, after the load has ended."""

    load_id: int
    source: str
    resource: str
    partition: str
    state: str
    seconds: float
    pages: int
    extracted: int
    inserted: int
    updated: int
    unchanged: int
    rejected: int
    deleted: int
    filtered: int
    error: str | None

    @property
    def address(self) -> Address:
        return Address(self.source, self.resource, self.partition)


def prepare(cursor: Cursor, schema: str) -> None:
    """Create or upgrade the ledger, and create a raw schema; safe to call concurrently.

    The schema's comment states the version of the ledger. Existing schemas are not created again:
    `create schema if not exists` needs the privilege even then.

    Raises:
        ConfigurationError: when the schema `elt` belongs to somebody else.
    """
    if schemas.exists(cursor, schema) and schemas.is_complete(cursor, OWN):
        return
    locks.lock(cursor, "elt")
    complete = partial(schemas.complete, cursor, OWN)
    locks.with_retries(cursor, TABLES, complete)
    schemas.ensure(cursor, schema)


def lock(cursor: Cursor, address: Address, waits: bool = False) -> str:
    """Lock the partition against other loads until the session ends or `unlock` is called.

    Returns the session's new token: a different token means a different session. With `waits`,
    waits until the present holder ends.

    Raises:
        UnavailableError: when another load of it is running and `waits` is False.
    """
    token, key = token_hex(16), f"elt:{address}"
    cursor.execute(_LOCK if waits else _TRY_LOCK, [key, TOKEN, token])
    if not cursor.fetchall()[0][0]:
        raise UnavailableError(
            f"{address} is being loaded by another run: {locks.holders(cursor, keys=[key])} Or run "
            "it with `wait`."
        )
    return token


def unlock(cursor: Cursor, address: Address, token: str) -> None:
    """Release the partition's lock; does nothing if the session has another token."""
    cursor.execute(_UNLOCK, [TOKEN, token, f"elt:{address}"])


def state_and_token(
    cursor: Cursor, load_id: int | None, timeout_seconds: float
) -> tuple[str, str | None]:
    """The state of a load's entry, locked until the transaction ends, and the session's token.

    A load without an entry counts as running. Sets the lock timeout of the transaction.
    """
    given = [TOKEN, locks.milliseconds(timeout_seconds)]
    if load_id is None:
        cursor.execute(_SESSION, given)
    else:
        cursor.execute(_SESSION + _OF_ENTRY, [*given, load_id])
    [(token, _, *states)] = cursor.fetchall()
    return (states[0] if states else "running"), token


def begin(
    cursor: Cursor,
    address: Address,
    run_id: str | None,
    replays: int | None = None,
    is_backfill: bool = False,
) -> int:
    """Open a ledger entry and mark running ones as abandoned: the caller holds the lock.

    Raises:
        ConfigurationError: when the partition's name contains a secret.
    """
    _refuse_secret(address, "partition's name", address.partition)
    cursor.execute(
        "update elt.loads set state = 'abandoned', ended_at = clock_timestamp(),"
        " error = 'the process died before recording a result'"
        " where (source, resource, partition, state) = (%s, %s, %s, 'running')",
        [address.source, address.resource, address.partition],
    )
    cursor.execute(
        "insert into elt.loads"
        " (source, resource, partition, run_id, replays, is_backfill, state)"
        " values (%s, %s, %s, %s, %s, %s, 'running') returning load_id",
        [
            address.source,
            address.resource,
            address.partition,
            run_id,
            replays,
            is_backfill,
        ],
    )
    row = cursor.fetchone()
    return int(row[0]) if row else 0


def backfilled(cursor: Cursor, source: str, resource: str) -> set[str]:
    """The names of the partitions (windows) of a resource that backfills have loaded."""
    cursor.execute(_BACKFILLED, [source, resource])
    return {partition for (partition,) in cursor}


def complete_partitions(cursor: Cursor, source: str, resource: str) -> set[str]:
    """The partitions whose newest load succeeded, since the last reset, and has no open rejects."""
    cursor.execute(_COMPLETE, {"source": source, "resource": resource})
    return {partition for (partition,) in cursor}


def has_loaded(cursor: Cursor, address: Address) -> bool:
    """Whether a load of any partition of the resource has succeeded with at least one record."""
    cursor.execute(_HAS_LOADED, [address.source, address.resource])
    return bool(cursor.fetchall()[0][0])


def has_stored(cursor: Cursor, address: Address) -> bool:
    """Whether a load of any partition of the resource has stored rows since its last reset."""
    cursor.execute(_HAS_STORED, [address.source, address.resource])
    return bool(cursor.fetchall()[0][0])


def abandon(cursor: Cursor, source: str, resource: str, error: str) -> None:
    """Mark all running loads of a resource as abandoned; they store nothing more."""
    cursor.execute(
        "update elt.loads set state = 'abandoned', ended_at = clock_timestamp(), error = %s"
        " where (source, resource, state) = (%s, %s, 'running')",
        [error, source, resource],
    )


def forget(cursor: Cursor, source: str, resource: str, reason: str) -> None:
    """Delete the checkpoints of all partitions and note the reset; the next loads start again."""
    cursor.execute(
        "delete from elt.checkpoints where (source, resource) = (%s, %s)", [source, resource]
    )
    cursor.execute(
        "insert into elt.resets (source, resource, reason, after_load_id)"
        " select %s, %s, %s, coalesce(max(load_id), 0) from elt.loads",
        [source, resource, reason],
    )


def forget_partition(cursor: Cursor, address: Address) -> None:
    """Delete the checkpoint of one partition; its next load starts again."""
    cursor.execute(
        "delete from elt.checkpoints where (source, resource, partition) = (%s, %s, %s)",
        [address.source, address.resource, address.partition],
    )


def read_checkpoint(cursor: Cursor, address: Address, expires: bool = True) -> Checkpoint:
    """The partition's checkpoint; if it `expires`, without a resume point over twelve hours old.

    Pages shift and tokens expire: after that time, reading from the cursor is safer, unless it
    would store rows twice.
    """
    cursor.execute(
        "select cursor_at, cursor_seen_at,"
        " case when not %s or saved_at > clock_timestamp() - interval '12 hours' then resume end,"
        " window_until, begun_by"
        " from elt.checkpoints where (source, resource, partition) = (%s, %s, %s)",
        [expires, address.source, address.resource, address.partition],
    )
    row = cursor.fetchone()
    if row is None:
        return Checkpoint()
    resume = row[2] and Resume(
        **{**row[2], "since": row[2]["since"] and _time(row[2]["since"])},
    )
    return Checkpoint(row[0], row[1], resume, row[3], row[4])


def _as_json(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def save_checkpoint(cursor: Cursor, address: Address, load_id: int, checkpoint: Checkpoint) -> None:
    """Save where the next load resumes.

    Raises:
        ConfigurationError: when the next request contains a secret: redacted, it can't be sent.
    """
    resume = checkpoint.resume and json.dumps(vars(checkpoint.resume), default=_as_json)
    _refuse_secret(address, "next request", resume or "")
    cursor.execute(
        "insert into elt.checkpoints as c (source, resource, partition, cursor_at, cursor_seen_at,"
        " resume, window_until, begun_by, load_id) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " on conflict (source, resource, partition) do update set cursor_at = excluded.cursor_at,"
        " cursor_seen_at = excluded.cursor_seen_at, resume = excluded.resume,"
        " window_until = excluded.window_until, begun_by = excluded.begun_by,"
        " load_id = excluded.load_id,"
        " saved_at = clock_timestamp()",
        [
            *asdict(address).values(),
            checkpoint.cursor_at,
            checkpoint.cursor_seen_at,
            resume,
            checkpoint.window_until,
            checkpoint.begun_by,
            load_id,
        ],
    )


def _refuse_secret(address: Address, what: str, text: str) -> None:
    """Refuse a text with a secret that can't be redacted because the next load uses it."""
    if shows_secret(text):
        raise ConfigurationError(
            f"{address}: its {what} contains a secret of the login, which the ledger would store: "
            f"{text}. Change the resource's `params`, `paging` or `partitions`."
        )


def add_counts(cursor: Cursor, load_id: int, counts: Counts) -> None:
    """Add a checkpoint's numbers to the load's entry."""
    cursor.execute(
        "update elt.loads set pages = pages + %(pages)s, extracted = extracted + %(extracted)s,"
        " inserted = inserted + %(inserted)s, updated = updated + %(updated)s,"
        " unchanged = unchanged + %(unchanged)s, rejected = rejected + %(rejected)s,"
        " deleted = deleted + %(deleted)s, filtered = filtered + %(filtered)s"
        " where load_id = %(load_id)s",
        {**asdict(counts), "load_id": load_id},
    )


def add_rejects(cursor: Cursor, load_id: int, rejects: list[Reject]) -> None:
    """Store rejected records with their reasons."""
    for batch in reject_batches(rejects):
        rows = [(load_id, redact(reject.reason), redact_record(reject.record)) for reject in batch]
        execute_values(cursor, "insert into elt.rejects (load_id, reason, record) values %s", rows)


def open_rejects(cursor: Cursor, address: Address) -> list[int]:
    """The loads of a partition with rejects that are not replayed yet, oldest first.

    A replay's own rejects belong to the load that it replays.
    """
    cursor.execute(
        "select distinct coalesce(replays, load_id) from elt.rejects join elt.loads using (load_id)"
        " where replayed_by is null and (source, resource, partition) = (%s, %s, %s) order by 1",
        [address.source, address.resource, address.partition],
    )
    return [load_id for (load_id,) in cursor]


def rejects(
    cursor: Cursor, load_id: int, after: int, limit: int, limit_bytes: int
) -> list[tuple[int, str]]:
    """Numbers and records of a load's rejects that are not replayed yet, after a given number.

    The first one is returned whatever its size.
    """
    cursor.execute(
        "select reject_id, record from ("
        " select reject_id, record, octet_length(record) as size_bytes,"
        " sum(octet_length(record)) over (order by reject_id) as sum_bytes from ("
        "  select reject_id, record from elt.rejects join elt.loads using (load_id)"
        "  where coalesce(replays, load_id) = %s and replayed_by is null and state <> 'running'"
        "  and reject_id > %s order by reject_id limit %s"
        " ) as first) as summed"
        " where sum_bytes <= %s or sum_bytes = size_bytes order by reject_id",
        [load_id, after, limit, limit_bytes],
    )
    return cursor.fetchall()


def mark_replayed(cursor: Cursor, load_id: int, replay: int, upto: int | None) -> None:
    """Note the load that replayed a load's rejects; `upto` None means all of them."""
    cursor.execute(
        "update elt.rejects set replayed_by = %(replay)s from elt.loads"
        " where loads.load_id = rejects.load_id and rejects.load_id <> %(replay)s"
        " and coalesce(loads.replays, loads.load_id) = %(load_id)s and replayed_by is null"
        " and (%(upto)s::bigint is null or reject_id <= %(upto)s)",
        {"load_id": load_id, "replay": replay, "upto": upto},
    )


def supersede_rejects(cursor: Cursor, address: Address, load_id: int) -> None:
    """Close the rejects of a partition's earlier loads: this one read everything again."""
    cursor.execute(
        "update elt.rejects set replayed_by = %s from elt.loads"
        " where loads.load_id = rejects.load_id and replayed_by is null and loads.load_id < %s"
        " and (source, resource, partition) = (%s, %s, %s)",
        [load_id, load_id, address.source, address.resource, address.partition],
    )


def add_schema_changes(
    cursor: Cursor, load_id: int, table: str, changes: list[ColumnChange]
) -> None:
    """Note how a raw table's shape changed."""
    execute_values(
        cursor,
        "insert into elt.schema_changes (load_id, table_name, column_name, old_type, new_type)"
        " values %s",
        [
            (load_id, table, redact(change.column), change.old_type, change.new_type)
            for change in changes
        ],
    )


def end(cursor: Cursor, load_id: int, state: str, error: str | None = None) -> None:
    """Close the entry of a load that stored all of its pages, in its last transaction."""
    cursor.execute(
        "update elt.loads set state = %s, error = %s, is_complete = true,"
        " ended_at = clock_timestamp() where load_id = %s",
        [state, error and redact(error), load_id],
    )


def fail(cursor: Cursor, load_id: int, error: str) -> None:
    """Close the entry of a load that failed; an entry that has ended stays unchanged."""
    cursor.execute(
        "update elt.loads set state = 'failed', error = %s, ended_at = clock_timestamp()"
        " where load_id = %s and state = 'running'",
        [redact(error), load_id],
    )


def completed_by(cursor: Cursor, address: Address, run_id: str, is_backfill: bool) -> Entry | None:
    """The load in which a run stored all pages of a partition, if there is one."""
    condition = sql.SQL(
        "where (source, resource, partition, run_id, is_backfill) = (%s, %s, %s, %s, %s)"
        " and replays is null and is_complete and {} order by load_id desc limit 1"
    ).format(_SINCE_RESET)
    cursor.execute(
        sql.SQL(_ENTRIES) + condition,
        [address.source, address.resource, address.partition, run_id, is_backfill],
    )
    return next((Entry(*row) for row in cursor.fetchall()), None)


def newest(cursor: Cursor) -> int:
    """The number of the newest load; 0 if there is none, or no ledger yet."""
    if not schemas.is_ours(cursor, OWN):
        return 0
    cursor.execute("select coalesce(max(load_id), 0) from elt.loads")
    return int(cursor.fetchall()[0][0])


def entries(cursor: Cursor, after: int) -> list[Entry]:
    """The ledger entries with a higher number than `after`, in order of their start."""
    if newest(cursor) == after:
        return []
    cursor.execute(_ENTRIES + "where load_id > %s order by load_id", [after])
    return [Entry(*row) for row in cursor]


def entry(cursor: Cursor, load_id: int) -> Entry:
    cursor.execute(_ENTRIES + "where load_id = %s", [load_id])
    return Entry(*cursor.fetchall()[0])


def entries_of_run(cursor: Cursor, run_id: str | None) -> list[Entry]:
    """All loads of a run, in order of their start."""
    cursor.execute(_ENTRIES + "where run_id = %s order by load_id", [run_id])
    return [Entry(*row) for row in cursor]


def schema_changes(cursor: Cursor, loads: Sequence[int]) -> dict[int, list[str]]:
    """The schema changes by load, e.g. `note: text -> jsonb`."""
    cursor.execute(
        "select load_id, column_name, old_type, new_type from elt.schema_changes"
        " where load_id = any(%s) order by schema_change_id",
        [list(loads)],
    )
    changes: dict[int, list[str]] = {}
    for load_id, column, old_type, new_type in cursor:
        change = f"{column}: {old_type} -> {new_type}" if old_type else f"{column}: {new_type}"
        changes.setdefault(load_id, []).append(change)
    return changes
