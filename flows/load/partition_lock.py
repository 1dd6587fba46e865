"""The lock on a partition: a load writes only while its session and its entry are its own."""

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from flows.errors import ConfigurationError, UnavailableError
from flows.load import ledger, primary_key
from flows.load.ledger import Address
from flows.postgres import locks


@contextmanager
def transaction(connection: Connection) -> Iterator[Cursor]:
    """A transaction that does not need the partition's lock."""
    with connection, connection.cursor() as cursor:
        yield cursor


class PartitionLock:
    """The lock on a partition, held for the whole load.

    Attributes:
        load_id: the load's entry; None until there is one.
    """

    def __init__(self, connection: Connection, address: Address, token: str) -> None:
        self.load_id: int | None = None
        self._connection = connection
        self._address = address
        self._token = token

    @contextmanager
    def transaction(self, table: sql.Identifier | None = None) -> Iterator[Cursor]:
        """A transaction that owns the partition; its waits for locks are bounded.

        With `table`, it first takes the lock on the table's shape, before that on its own entry:
        a load that creates the table's key holds the former, and corrects the entries of others.

        A load that takes over marks this one's entry as abandoned, but only after this
        transaction has ended.

        Raises:
            UnavailableError: when another load has taken over.
            ConfigurationError: when the session is not the one that took the lock.
        """
        with transaction(self._connection) as cursor:
            if table is not None:
                primary_key.lock(cursor, table)
            state, token = ledger.state_and_token(cursor, self.load_id, locks.TIMEOUT_SECONDS)
            if token != self._token:
                raise ConfigurationError(
                    f"{self._address}: a pooler has given this load another session, so its lock "
                    "is lost. Nothing more is written. Run the pooler in session mode, or use "
                    "Postgres' own port in WAREHOUSE_URL."
                )
            if state != "running":
                raise UnavailableError(
                    f"{self._address}: another load has taken over, because this one lost its lock "
                    f"(its entry, load_id = {self.load_id}, is {state}). What this load committed "
                    "before is kept. Check whether the other one succeeds, or run this again."
                )
            yield cursor

    def release(self) -> None:
        """Release the lock, unless it is gone with its session."""
        if not self._connection.closed:
            with transaction(self._connection) as cursor:
                ledger.unlock(cursor, self._address, self._token)


@contextmanager
def locked(connection: Connection, address: Address, waits: bool) -> Iterator[PartitionLock]:
    """Lock a partition.

    Raises:
        UnavailableError: when another load holds it and `waits` is False.
    """
    with transaction(connection) as cursor:
        ledger.prepare(cursor, f"raw_{address.source}")
    with transaction(connection) as cursor:
        lock = PartitionLock(connection, address, ledger.lock(cursor, address, waits))
    try:
        yield lock
    finally:
        lock.release()


@contextmanager
def joined(connection: Connection, address: Address, load_id: int) -> Iterator[PartitionLock]:
    """Write for a load whose lock another session holds, as long as its entry is running."""
    with transaction(connection) as cursor:
        lock = PartitionLock(connection, address, ledger.name_session(cursor))
    lock.load_id = load_id
    yield lock
