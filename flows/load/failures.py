"""How a load fails: errors of Postgres with their remedy, and the entry of a failed load."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
import psycopg2.errors
from psycopg2.extensions import connection as Connection

from flows.errors import ConfigurationError, EltError, UnavailableError
from flows.load import ledger
from flows.load.ledger import Address
from flows.load.partition_lock import transaction
from flows.load.staging_table import REFUSALS
from flows.postgres import locks
from flows.postgres.errors import missing_privilege
from flows.redaction import redact
from flows.traffic import NO_TRAFFIC, Traffic

log = logging.getLogger(__name__)


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
        owned = (
            f"the schemas elt and raw_{address.source} with everything in them, and the views on "
            "their tables"
        )
        raise missing_privilege(str(address), owned, error) from error
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


def note_failure(
    connection: Connection, load_id: int, error: BaseException, traffic: Traffic = NO_TRAFFIC
) -> None:
    """Close the entry as failed; if Postgres is unavailable, the next load marks it abandoned.

    `traffic` is what the load's checkpoints have not counted, except for the error's own.
    """
    traffic += error.traffic if isinstance(error, EltError) else NO_TRAFFIC
    message = str(error) if isinstance(error, EltError) else f"{type(error).__name__}: {error}"
    message = message.encode(errors="backslashreplace").decode().replace("\0", "\\0")
    try:
        with transaction(connection) as cursor:
            ledger.fail(cursor, load_id, message, traffic)
    except psycopg2.Error as second:
        log.warning(
            "Could not record in the ledger that load %d failed: %s", load_id, _text(second)
        )
