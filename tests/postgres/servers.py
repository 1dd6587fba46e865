"""Servers for single tests: Postgres on TCP, with or without TLS, and PgBouncer in front of one."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL

from deployments.local.processes import free_port
from tests import certificates

# Neither server runs as root.
OWNER = "nobody" if os.getuid() == 0 else None
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def postgres_on_tcp(binaries: Path, *settings: str, tls: bool = False) -> Iterator[URL]:
    """A server without a Unix socket; with `tls` it refuses connections without TLS."""
    with _folder(OWNER) as folder:
        data, port = folder / "data", free_port()
        flags = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [binaries / "initdb", "-D", data, *flags],
            check=True, capture_output=True, user=OWNER, cwd=folder,
        )  # fmt: skip
        options = ["fsync=off", "listen_addresses=127.0.0.1", "unix_socket_directories=", *settings]
        if tls:
            certificate(data / "server.pem")
            options += ["ssl=on", *(f"ssl_{kind}_file=server.pem" for kind in ("cert", "key"))]
            (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 trust\n")
        command = [binaries / "postgres", "-D", data, "-p", str(port)]
        command += [word for option in options for word in ("-c", option)]
        with _running(command, "ready to accept connections", folder, OWNER):
            query = {"sslrootcert": str(data / "server.pem")} if tls else {}
            yield URL.create(
                "postgresql", "postgres", None, "127.0.0.1", port, "postgres", query=query
            )


@contextmanager
def pgbouncer(
    server: URL, mode: str, pool_size: int = 20, **more_settings: object
) -> Iterator[URL]:
    """A PgBouncer in front of the server; the URL of the same database through it."""
    host, server_port = str(server.host or server.query["host"]), server.port or 5432
    # Only their owner looks into the folders of Unix sockets.
    owner = Path(host).owner() if OWNER and host.startswith("/") else OWNER
    with _folder(owner) as folder:
        port = free_port()
        settings: Mapping[str, object] = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": mode,
            "default_pool_size": pool_size,
            "log_connections": 0,
            "log_disconnections": 0,
            **more_settings,
        }
        lines = ["[databases]", f"* = host={host} port={server_port} user=postgres", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        (folder / "pgbouncer.ini").write_text("\n".join(lines))
        with _running([str(PGBOUNCER), folder / "pgbouncer.ini"], "process up", folder, owner):
            yield URL.create("postgresql", "postgres", None, "127.0.0.1", port, server.database)


def certificate(path: Path) -> None:
    """Write a key and a self-signed certificate of 127.0.0.1, which is its own CA."""
    path.write_bytes(certificates.self_signed("warehouse"))
    path.chmod(0o600)
    _give(path, OWNER)


@contextmanager
def _folder(owner: str | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="elt-tests-server-") as name:
        _give(Path(name), owner)
        yield Path(name)


def _give(path: Path, owner: str | None) -> None:
    if owner:
        shutil.chown(path, owner)


@contextmanager
def _running(
    command: Sequence[str | Path], ready: str, folder: Path, owner: str | None
) -> Iterator[None]:
    """Run a server until the block ends; waits for its line that reports readiness."""
    with subprocess.Popen(
        command, user=owner, cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        said: list[str] = []
        try:
            for line in process.stderr:
                said.append(line)
                if ready in line:
                    break
            assert process.poll() is None and ready in said[-1], "".join(said)
            yield
        finally:
            process.terminate()
            process.communicate()
