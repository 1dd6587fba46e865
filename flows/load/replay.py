"""Replay: load the rejects of earlier loads again, from `elt.rejects` instead of the API."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from psycopg2.extensions import connection as Connection

from flows.deletes import Tombstones
from flows.errors import BadPayloadError, ConfigurationError, EltError
from flows.guards import without_secrets
from flows.load import ledger, reject_log
from flows.load.failures import postgres_errors_of
from flows.load.ledger import Address, Entry
from flows.load.loader import load
from flows.load.options import DEFAULT_OPTIONS, LoadOptions
from flows.load.page_pieces import WHOLE
from flows.load.partition_lock import transaction
from flows.page import Page, Resume
from flows.source import Partition, Resource, Window

REJECTS_A_PAGE = 1000
PAGE_BYTES = 8 << 20
# A replay sends no request, and those may name the cursor, which it does not move.
_WITHOUT_REQUEST: Mapping[str, Any] = {
    "params": {},
    "headers": {},
    "body": None,
    "sends": "json",
    "job": None,
}


def replay(
    connect: Callable[[], Connection],
    source: str,
    resource: Resource,
    partition: Partition,
    options: LoadOptions = DEFAULT_OPTIONS,
) -> list[Entry]:
    """Replay the rejects of a resource partition: one load, with its entry, per rejecting load.

    Records are stored by the present declaration. A row that a later load wrote stays unchanged.
    A record that is rejected again stays in `elt.rejects`, with its new reason, and does not block
    the others.

    Raises:
        EltError: as `flows.load.loader.load` does; if replays of several loads fail, the first
            error, after all were tried.
    """
    as_sent = replace(
        resource,
        records=WHOLE,
        paging=None,
        cursor=None,
        **_WITHOUT_REQUEST,
        disposition="merge" if resource.key else "append",
        deletes=resource.deletes if isinstance(resource.deletes, Tombstones) else None,
    )
    address = Address(source, resource.name, partition.name)
    entries: list[Entry] = []
    errors: list[EltError] = []
    with closing(connect()) as connection, closing(connect()) as reading:
        for load_id in open_rejects(connection, address):
            pages = _Rejects(reading, load_id)
            once = replace(options, replays=load_id)
            try:
                entries.append(load(connection, source, as_sent, partition, pages, once))
            except (BadPayloadError, ConfigurationError) as error:
                errors.append(error)
    if errors:
        raise errors[0]
    return entries


class _Rejects:
    """The rejects of a load, in pages."""

    def __init__(self, connection: Connection, load_id: int) -> None:
        self._connection = connection
        self._load_id = load_id

    def __call__(self, window: Window, resume: Resume | None) -> Iterator[Page]:
        """A page's resume point is the number of its last reject."""
        last = 0
        while rows := self._after(last):
            last = rows[-1][0]
            body = f"[{','.join(record for _, record in rows)}]"
            resume = Resume("", None, None, reject_id=last)
            yield Page(body.encode(), f"elt.rejects of load {self._load_id}", resume=resume)

    def _after(self, last: int) -> list[tuple[int, str]]:
        with self._connection, self._connection.cursor() as cursor:
            return reject_log.records_of(cursor, self._load_id, last, REJECTS_A_PAGE, PAGE_BYTES)


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
