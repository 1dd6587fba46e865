"""Checkpoints: where the next load of each resource partition resumes (`elt.checkpoints`).

Every function works inside the caller's transaction.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from flows.load.ledger import Address, refuse_secret
from flows.page import Resume
from flows.source import Resource

_READ = (
    "select partition, cursor_at, cursor_seen_at,"
    " case when not %s or saved_at > clock_timestamp() - interval '12 hours' then resume end,"
    " window_until, begun_by, parent_load_id, load_id, saved_at"
    " from elt.checkpoints where (source, resource) = (%s, %s) and partition = any(%s)"
)
_SAVE = (
    "insert into elt.checkpoints (source, resource, partition, cursor_at, cursor_seen_at,"
    " resume, window_until, begun_by, parent_load_id, load_id) values %s"
    " on conflict (source, resource, partition) do update set cursor_at = excluded.cursor_at,"
    " cursor_seen_at = excluded.cursor_seen_at, resume = excluded.resume,"
    " window_until = excluded.window_until, begun_by = excluded.begun_by,"
    " parent_load_id = excluded.parent_load_id, load_id = excluded.load_id,"
    " saved_at = clock_timestamp()"
)


@dataclass(frozen=True)
class Checkpoint:
    """Where the next load resumes; times are UTC.

    Attributes:
        cursor_at: the newest cursor value of the last complete load.
        cursor_seen_at: the newest cursor value of the incomplete load.
        window_until: the end of the window that the incomplete load reads.
        begun_by: the first load that read this window; None if unknown.
        parent_load_id: the load that had last changed the parent's row when the partition was
            read; 0 if it was final then (`Partition.version`); None if it has to be read again.
        load_id: the load that saved this; set by `save`.
        saved_at: when this was saved; None if there is no checkpoint.
    """

    cursor_at: datetime | None = None
    cursor_seen_at: datetime | None = None
    resume: Resume | None = None
    window_until: datetime | None = None
    begun_by: int | None = None
    parent_load_id: int | None = None
    load_id: int | None = None
    saved_at: datetime | None = None


def may_expire(resource: Resource) -> bool:
    """Whether resume points expire: not if reading again stores rows twice, or never ends.

    A load of at most `max_pages` that always started again would never come to the rest.
    """
    return resource.writes != "append" and resource.max_pages is None


def read(cursor: Cursor, address: Address, expires: bool = True) -> Checkpoint:
    """The partition's checkpoint; empty if there is none. See `read_many`."""
    found = read_many(cursor, address, [address.partition], expires)
    return found.get(address.partition, Checkpoint())


def read_many(
    cursor: Cursor, resource: Address, partitions: Sequence[str], expires: bool = True
) -> dict[str, Checkpoint]:
    """The checkpoints of these partitions that have one.

    If they expire, those over twelve hours old have no resume point. Pages shift and tokens expire:
    after that time, reading from the cursor is safer, unless it would store rows twice.
    """
    cursor.execute(_READ, [expires, resource.source, resource.resource, list(partitions)])
    return {
        partition: Checkpoint(cursor_at, seen_at, resume and resume_from(resume), *others)
        for partition, cursor_at, seen_at, resume, *others in cursor
    }


def resume_from(stored: Mapping[str, Any]) -> Resume:
    """A resume point as it was before `resume_json`, also of versions before 2026-12."""
    stored = {("first_request" if k == "first_url" else k): v for k, v in stored.items()}
    since = stored["since"] and datetime.fromisoformat(stored["since"])
    return Resume(**{**stored, "since": since})


def save(cursor: Cursor, address: Address, load_id: int, checkpoint: Checkpoint) -> None:
    """Save where the next load resumes.

    Raises:
        ConfigurationError: when the next request contains a secret: redacted, it can't be sent.
    """
    save_many(cursor, [address], load_id, [checkpoint])


def save_many(
    cursor: Cursor, addresses: Sequence[Address], load_id: int, checkpoints: Sequence[Checkpoint]
) -> None:
    """Save the checkpoints of several partitions. Raises as `save` does."""
    rows = []
    for address, checkpoint in zip(addresses, checkpoints, strict=True):
        resume = checkpoint.resume and resume_json(checkpoint.resume)
        refuse_secret(address, "next request", resume or "")
        row = {**asdict(address), **vars(checkpoint), "resume": resume, "load_id": load_id}
        del row["saved_at"]
        rows.append(tuple(row.values()))
    execute_values(cursor, _SAVE, rows, page_size=1000)


def resume_json(resume: Resume) -> str:
    """A resume point as `elt.checkpoints` holds it."""
    return json.dumps(vars(resume), default=_as_json)


def _as_json(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


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
