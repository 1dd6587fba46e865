"""Checkpoints: where the next load of each resource partition resumes (`elt.checkpoints`).

Every function works inside the caller's transaction.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from flows.load.ledger import Address, refuse_secret
from flows.page import Resume
from flows.source import Resource

_READ = (
    "select partition, cursor_at, cursor_seen_at, cursor_number, cursor_seen_number, cursor_token,"
    " cursor_field,"
    " case when saved_at > clock_timestamp() - interval '12 hours'"
    " or not (%s or coalesce((resume ->> 'is_first')::boolean, false)) then resume end,"
    " window_until, begun_by, parent_load_id, load_id, saved_at"
    " from elt.checkpoints where (source, resource) = (%s, %s) and partition = any(%s)"
)
_SAVE = (
    "insert into elt.checkpoints (source, resource, partition, cursor_at, cursor_seen_at,"
    " cursor_number, cursor_seen_number, cursor_token, cursor_field,"
    " resume, window_until, begun_by, parent_load_id, load_id) values %s"
    " on conflict (source, resource, partition) do update set cursor_at = excluded.cursor_at,"
    " cursor_seen_at = excluded.cursor_seen_at, cursor_number = excluded.cursor_number,"
    " cursor_seen_number = excluded.cursor_seen_number, cursor_token = excluded.cursor_token,"
    " cursor_field = excluded.cursor_field, resume = excluded.resume,"
    " window_until = excluded.window_until, begun_by = excluded.begun_by,"
    " parent_load_id = excluded.parent_load_id, load_id = excluded.load_id,"
    " saved_at = clock_timestamp()"
)

CursorValue = datetime | int | str


@dataclass(frozen=True)
class Checkpoint:
    """Where the next load resumes; times are UTC.

    Attributes:
        cursor: the newest cursor value of the last complete load, or its token.
        seen: the newest cursor value of the incomplete load.
        field: the field that has these values; None if unknown.
        window_until: the end of the window that the incomplete load reads.
        begun_by: the first load that read this window; None if unknown.
        parent_load_id: the load that had last changed the parent's row when the partition was
            read; 0 if it was final then (`Partition.version`); None if it has to be read again.
        load_id: the load that saved this; set by `save`.
        saved_at: when this was saved; None if there is no checkpoint.
    """

    cursor: CursorValue | None = None
    seen: CursorValue | None = None
    field: str | None = None
    resume: Resume | None = None
    window_until: datetime | None = None
    begun_by: int | None = None
    parent_load_id: int | None = None
    load_id: int | None = None
    saved_at: datetime | None = None


def may_expire(resource: Resource) -> bool:
    """Whether all resume points expire: not if reading again stores rows twice, or never ends.

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

    Those over twelve hours old have no resume point, if they expire or nothing is stored before it.
    Pages shift and tokens expire: after that time, reading from the cursor is safer, unless it
    would store rows twice.
    """
    cursor.execute(_READ, [expires, resource.source, resource.resource, list(partitions)])
    return {
        partition: Checkpoint(
            _value(at, number) if token is None else token,
            _value(seen_at, seen_number),
            field,
            resume and resume_from(resume),
            *others,
        )
        for partition, at, seen_at, number, seen_number, token, field, resume, *others in cursor
    }


def _value(at: datetime | None, number: Decimal | None) -> CursorValue | None:
    """The value of a cursor, of which only one column is set."""
    return int(number) if number is not None else at


def resume_from(stored: Mapping[str, Any]) -> Resume:
    """A resume point as it was before `resume_json`, also of versions before 2026-12."""
    stored = {("first_request" if k == "first_url" else k): v for k, v in stored.items()}
    since = stored["since"] and datetime.fromisoformat(stored["since"])
    return Resume(**{**stored, "since": since})


def save(cursor: Cursor, address: Address, load_id: int, checkpoint: Checkpoint) -> None:
    """Save where the next load resumes.

    Raises:
        ConfigurationError: when the next request or the token contains a secret: redacted, it
            can't be sent.
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
        token = _as(str, checkpoint.cursor)
        refuse_secret(address, "token", token or "")
        rows.append(
            (
                *vars(address).values(),
                *(_as(datetime, value) for value in (checkpoint.cursor, checkpoint.seen)),
                *(_as(int, value) for value in (checkpoint.cursor, checkpoint.seen)),
                token,
                checkpoint.field,
                resume,
                checkpoint.window_until,
                checkpoint.begun_by,
                checkpoint.parent_load_id,
                load_id,
            )
        )
    execute_values(cursor, _SAVE, rows, page_size=1000)


def _as(kind: type, value: CursorValue | None) -> Any:
    """The value if it belongs in the columns of this kind."""
    return value if isinstance(value, kind) else None


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
