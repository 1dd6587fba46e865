"""Databases of the local Postgres that last as long as they are used."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count

import psycopg2
from sqlalchemy.engine import URL

from deployments.local.postgres import drop_database, ensure_database, libpq

_numbers = count(1)
# Those whose process is gone: the lock of a process ends with it.
_LEFT_BEHIND = """
with scratch as materialized (
    select datname from pg_database where starts_with(datname, 'scratch_')
)
select datname from scratch where pg_try_advisory_lock(hashtextextended(datname, 0))
"""


@contextmanager
def scratch_database(server: URL) -> Iterator[URL]:
    """An empty database, dropped when the block ends, or by the next one if this process dies."""
    name = f"scratch_{os.getpid()}_{next(_numbers)}"
    with closing(psycopg2.connect(libpq(server))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(_LEFT_BEHIND)
            for (left,) in cursor.fetchall():
                drop_database(server, left)
            cursor.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [name])
            try:
                yield ensure_database(server, name)
            finally:
                drop_database(server, name)
