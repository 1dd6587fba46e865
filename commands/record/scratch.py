"""Databases of the local Postgres that last as long as they are used."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count

import psycopg2
from psycopg2 import sql
from sqlalchemy.engine import URL

from deployments.local.postgres import ensure_database, libpq

_numbers = count(1)


@contextmanager
def scratch_database(server: URL) -> Iterator[URL]:
    """An empty database, dropped when the block ends."""
    name = f"scratch_{os.getpid()}_{next(_numbers)}"
    drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
    with closing(psycopg2.connect(libpq(server))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(drop)
            try:
                yield ensure_database(server, name)
            finally:
                cursor.execute(drop)
