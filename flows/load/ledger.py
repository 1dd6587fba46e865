"""The ledger: a record of every load (`elt.loads`), and the checkpoint where the next one resumes.

Every function works inside the caller's transaction, so that rows, cursor and ledger entry are
committed together.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from secrets import token_hex

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from flows.errors import ConfigurationError, UnavailableError
from flows.load.table_schema import ColumnChange
from flows.postgres import locks, schemas
from flows.postgres.session import TOKEN
from flows.redaction import redact, shows_secret
from flows.traffic import NO_TRAFFIC, Traffic

OWN = schemas.OwnSchema(
    "elt",
    "The ledger of all loads",
    Path(__file__).with_suffix(".sql").read_text(),
    "loads",
    frozenset({"load_id", "source", "resource", "partition", "extracted", "unchanged", "rejected"}),
)
TABLES = [
    sql.Identifier("elt", name)
    for name in (
        *("loads", "partitions", "checkpoints", "rejects", "schema_changes", "columns", "resets"),
        *("refresh_tokens", "rates", "anomalies", "usual_fields"),
    )
]
# The rows of loads before a resource's last reset are gone.
_LAST_RESET = sql.SQL(
    "coalesce((select max(after_load_id) from elt.resets"
    " where (source, resource) = (%(source)s, %(resource)s)), 0)"
)
_BACKFILLED = sql.SQL(
    "select partition from elt.partitions"
    " where (source, resource) = (%(source)s, %(resource)s) and backfilled_by > {}"
).format(_LAST_RESET)
_INCOMPLETE = sql.SQL(
    "with known as (select partition, load_id, succeeded_by, grouped_by from elt.partitions"
    "  where (source, resource) = (%(source)s, %(resource)s)),"
    " last as (select {reset} as reset,"
    "  (select max(grouped_by) from known where grouped_by > {reset}) as grouped_by),"
    " rejecting as (select partition from elt.rejects join elt.loads using (load_id)"
    "  where replayed_by is null and (source, resource) = (%(source)s, %(resource)s))"
    " select name from last cross join unnest(%(names)s::text[]) as given (name)"
    " left join known on partition = name and load_id > reset"
    "  and load_id >= coalesce(last.grouped_by, 0)"
    " where name in (select partition from rejecting) or case when load_id is null"
    "  then last.grouped_by is null else load_id is distinct from succeeded_by end"
).format(reset=_LAST_RESET)
_HAS_LOADED = sql.SQL(
    "select exists (select from elt.partitions"
    " where (source, resource) = (%(source)s, %(resource)s) and loaded_by > {})"
).format(_LAST_RESET)
_HAS_STORED = sql.SQL(
    "select exists (select from elt.partitions"
    " where (source, resource) = (%(source)s, %(resource)s) and stored_by > {})"
).format(_LAST_RESET)
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
        """`shop.orders`, or `weather.days[London]`."""
        name = f"{self.source}.{self.resource}"
        return f"{name}[{self.partition}]" if self.partition else name


@dataclass(frozen=True)
class Counts(Traffic):
    """Numbers of requests, partitions, pages and records; each is a column of `elt.loads`.

    Attributes:
        partitions: how many partitions it stands for; 1 but for the entry of a group.
    """

    partitions: int = 0
    pages: int = 0
    extracted: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    filtered: int = 0
    deleted: int = 0


@dataclass(frozen=True, kw_only=True)
class Entry(Counts):
    """One row of the ledger, after the load has ended."""

    load_id: int
    source: str
    resource: str
    partition: str
    state: str
    seconds: float
    error: str | None

    @property
    def address(self) -> Address:
        return Address(self.source, self.resource, self.partition)

    @property
    def traffic(self) -> Traffic:
        """What its requests cost."""
        return Traffic(**{field.name: getattr(self, field.name) for field in fields(Traffic)})

    @property
    def title(self) -> str:
        """The address; of a group, with the number of its partitions."""
        is_single = self.partitions == 1
        return str(self.address) + ("" if is_single else f" ({self.partitions:,} partitions)")


def _sums(numbers: type[Traffic]) -> sql.Composable:
    """Assignments that add numbers to the columns of their names."""
    return sql.SQL(", ").join(
        sql.SQL("{0} = {0} + {1}").format(sql.Identifier(field.name), sql.Placeholder(field.name))
        for field in fields(numbers)
    )


TRAFFIC = tuple(field.name for field in fields(Traffic))
COUNTERS = tuple(field.name for field in fields(Counts) if field.name not in TRAFFIC)
_ADD = sql.SQL("update elt.loads set {} where load_id = %(load_id)s").format(_sums(Counts))
_FAIL = sql.SQL(
    "update elt.loads set state = 'failed', error = %(error)s, ended_at = clock_timestamp(), {}"
    " where load_id = %(load_id)s and state = 'running'"
).format(_sums(Traffic))
_SECONDS = sql.SQL("extract(epoch from coalesce(ended_at, clock_timestamp()) - started_at)::float")
_ENTRIES = sql.SQL("select {} from elt.loads ").format(
    sql.SQL(", ").join(
        _SECONDS if field.name == "seconds" else sql.Identifier(field.name)
        for field in fields(Entry)
    )
)


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


def name_session(cursor: Cursor) -> str:
    """Give the session a new token without locking anything, and return it."""
    token = token_hex(16)
    cursor.execute("select set_config(%s, %s, false)", [TOKEN, token])
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
    is_group: bool = False,
    is_part: bool = False,
) -> int:
    """Open a ledger entry and mark running ones as abandoned: the caller holds the lock.

    With `is_group`, the entry stands for many partitions of the resource, at first for none. With
    `is_part`, a limit may end the load.

    Raises:
        ConfigurationError: when the partition's name contains a secret.
    """
    refuse_secret(address, "partition's name", address.partition)
    cursor.execute(
        "update elt.loads set state = 'abandoned', ended_at = clock_timestamp(),"
        " error = 'the process died before recording a result'"
        " where (source, resource, partition, state) = (%s, %s, %s, 'running')",
        [address.source, address.resource, address.partition],
    )
    cursor.execute(
        "insert into elt.loads"
        " (source, resource, partition, run_id, replays, is_backfill, is_group, is_part,"
        " partitions, state) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'running')"
        " returning load_id",
        [
            address.source,
            address.resource,
            address.partition,
            run_id,
            replays,
            is_backfill,
            is_group,
            is_part,
            0 if is_group else 1,
        ],
    )
    row = cursor.fetchone()
    return int(row[0]) if row else 0


def backfilled(cursor: Cursor, source: str, resource: str) -> set[str]:
    """The names of the partitions (windows) of a resource that backfills have loaded."""
    cursor.execute(_BACKFILLED, {"source": source, "resource": resource})
    return {partition for (partition,) in cursor}


def incomplete_partitions(
    cursor: Cursor, source: str, resource: str, names: Sequence[str]
) -> list[str]:
    """Those of the partitions whose newest load since the last reset failed or left open rejects.

    A partition without a load of its own is complete if a group has succeeded.
    """
    given = {"source": source, "resource": resource, "names": list(names)}
    cursor.execute(_INCOMPLETE, given)
    return [name for (name,) in cursor]


def has_loaded(cursor: Cursor, address: Address) -> bool:
    """Whether a load of any partition of the resource has succeeded with at least one record."""
    cursor.execute(_HAS_LOADED, vars(address))
    return bool(cursor.fetchall()[0][0])


def has_stored(cursor: Cursor, address: Address) -> bool:
    """Whether a load of any partition of the resource has stored rows since its last reset."""
    cursor.execute(_HAS_STORED, vars(address))
    return bool(cursor.fetchall()[0][0])


def abandon(cursor: Cursor, source: str, resource: str, error: str) -> None:
    """Mark all running loads of a resource as abandoned; they store nothing more."""
    cursor.execute(
        "update elt.loads set state = 'abandoned', ended_at = clock_timestamp(), error = %s"
        " where (source, resource, state) = (%s, %s, 'running')",
        [error, source, resource],
    )


def refuse_secret(address: Address, what: str, text: str) -> None:
    """Refuse a text with a secret that can't be redacted because the next load uses it."""
    if shows_secret(text):
        raise ConfigurationError(
            f"{address}: its {what} contains a secret of the login, which the ledger would store: "
            f"{text}. Change the resource's `params`, `paging` or `partitions`."
        )


def add_counts(cursor: Cursor, load_id: int, counts: Counts) -> None:
    """Add a checkpoint's numbers to the load's entry."""
    cursor.execute(_ADD, {**asdict(counts), "load_id": load_id})


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


def end(
    cursor: Cursor, load_id: int, state: str, error: str | None = None, is_part: bool = False
) -> None:
    """Close the entry of a load that stored all of its pages, in its last transaction."""
    cursor.execute(
        "update elt.loads set state = %s, error = %s, is_complete = true, is_part = %s,"
        " ended_at = clock_timestamp() where load_id = %s",
        [state, error and redact(error), is_part, load_id],
    )


def fail(cursor: Cursor, load_id: int, error: str, traffic: Traffic = NO_TRAFFIC) -> None:
    """Close the entry of a load that failed; an entry that has ended stays unchanged.

    `traffic` is what its checkpoints have not counted.
    """
    cursor.execute(_FAIL, {"error": redact(error), "load_id": load_id, **asdict(traffic)})


def completed_by(cursor: Cursor, address: Address, run_id: str, is_backfill: bool) -> Entry | None:
    """The load in which a run stored all pages of a partition, if there is one."""
    condition = sql.SQL(
        "where (source, resource, partition) = (%(source)s, %(resource)s, %(partition)s)"
        " and (run_id, is_backfill) = (%(run_id)s, %(is_backfill)s)"
        " and replays is null and is_complete and load_id > {} order by load_id desc limit 1"
    ).format(_LAST_RESET)
    given = {**vars(address), "run_id": run_id, "is_backfill": is_backfill}
    cursor.execute(_ENTRIES + condition, given)
    return next(iter(_entries(cursor)), None)


def groups_of_run(cursor: Cursor, address: Address, run_id: str | None) -> list[int]:
    """The groups that a run has opened for a resource; none without a run."""
    cursor.execute(
        "select load_id from elt.loads"
        " where (source, resource, run_id) = (%s, %s, %s) and is_group",
        [address.source, address.resource, run_id],
    )
    return [load_id for (load_id,) in cursor]


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
    cursor.execute(_ENTRIES + sql.SQL("where load_id > %s order by load_id"), [after])
    return _entries(cursor)


def entry(cursor: Cursor, load_id: int) -> Entry:
    cursor.execute(_ENTRIES + sql.SQL("where load_id = %s"), [load_id])
    return _entries(cursor)[0]


def entries_of_run(cursor: Cursor, run_id: str | None) -> list[Entry]:
    """All loads of a run, in order of their start."""
    cursor.execute(_ENTRIES + sql.SQL("where run_id = %s order by load_id"), [run_id])
    return _entries(cursor)


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


def _entries(cursor: Cursor) -> list[Entry]:
    """The result of a query that begins with `_ENTRIES`."""
    names = [field.name for field in fields(Entry)]
    return [Entry(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]
