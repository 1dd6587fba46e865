"""A rate that all processes keep together: Postgres tells each request when it may be sent.

A request takes the next moment of its source from `elt.rates`, in one statement, and waits for it.
The moments are spaced evenly, so no window has more of them than the rate allows.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from time import monotonic, sleep

from psycopg2.extensions import connection as Connection

from flows.load import ledger
from flows.postgres.errors import naming_errors
from flows.source import Rate, Source

# A request is sent a little later than its moment, so two windows' requests may come close.
CAUTION = 0.9
# On a busy machine it may be much later. After this share of the rate's time, it takes another one.
LATE = 0.05
MOST_MOMENTS = 3
# A crash of Postgres may undo what it has not written to disk yet, less than a second's moments.
# It takes longer than a second to come back.
UNWRITTEN_SECONDS = 1.0
_TAKE = """
select set_config('synchronous_commit', %(commit)s, true);
insert into elt.rates as known (source, due_at) values (%(source)s, clock_timestamp())
on conflict (source) do update
set due_at = greatest(known.due_at + %(seconds)s * interval '1 second', clock_timestamp())
returning extract(epoch from due_at - clock_timestamp())::float
"""


class SharedRate:
    """The turns of a source's requests in this process; thread-safe."""

    def __init__(self, connection: Connection, source: str, rate: Rate) -> None:
        """`connection` is used for nothing else."""
        self._connection = connection
        self._source = source
        seconds = seconds_between(rate)
        self._late_seconds = LATE * rate.seconds
        commit = "off" if seconds < UNWRITTEN_SECONDS else "on"
        self._values = {"source": source, "seconds": seconds, "commit": commit}
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Block until the next request may be sent.

        Raises:
            UnavailableError: Postgres went away.
            ConfigurationError: the database role may not use the table.
        """
        for _ in range(MOST_MOMENTS):
            due_at = self._take()
            sleep(max(0.0, due_at - monotonic()))
            if monotonic() - due_at <= self._late_seconds:
                return

    def _take(self) -> float:
        """Take the next moment, on the clock `time.monotonic`."""
        with (
            self._lock,
            _naming_errors(self._source),
            self._connection as connection,
            connection.cursor() as cursor,
        ):
            asked_at = monotonic()
            cursor.execute(_TAKE, self._values)
            [(seconds,)] = cursor.fetchall()
        return asked_at + max(0.0, float(seconds))


def seconds_between(rate: Rate) -> float:
    """The pause from one moment to the next."""
    return rate.seconds / rate.requests / CAUTION


@contextmanager
def turns_of(source: Source, connect: Callable[[], Connection]) -> Iterator[Callable[[], None]]:
    """What a source's clients call before each request: it waits if the rate is shared.

    Raises:
        UnavailableError: Postgres is down.
        ConfigurationError: the database role may not use the ledger.
    """
    if source.rate is None or not source.rate.is_shared:
        yield lambda: None
        return
    with closing(connect()) as connection:
        with _naming_errors(source.name), connection, connection.cursor() as cursor:
            ledger.prepare(cursor, ledger.OWN.name)
        yield SharedRate(connection, source.name, source.rate).wait


def _naming_errors(source: str) -> AbstractContextManager[None]:
    waiting = f"a request of {source!r} waited for its turn"
    return naming_errors(f"The rate of {source!r}", waiting)
