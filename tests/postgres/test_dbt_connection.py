"""Promises of dbt's sessions: they follow the warehouse's URL, like those of loads."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from blocks.warehouse import Warehouse
from flows.dbt_build import dbt_runner
from flows.errors import ConfigurationError
from tests.postgres.servers import PGBOUNCER, certificate, pgbouncer, postgres_on_tcp

PROJECT = dbt_runner.ROOT / "dbt_project"
SECONDS = 120
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))  # Debian's have OpenSSL
FACTS = """
select
    (select ssl from pg_stat_ssl where pid = pg_backend_pid()) as is_encrypted,
    current_setting('work_mem') as work_mem,
    current_setting('client_encoding') as client_encoding,
    current_setting('statement_timeout') as statement_timeout,
    current_setting('tcp_keepalives_idle') as keepalives_idle,
    current_setting('application_name') as application_name
"""


def asked(address: URL, folder: Path, *command: str) -> tuple[list[str], list[str]]:
    """The output of dbt, run as the pipeline runs it, and the errors in it."""
    where = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
    folders = dict.fromkeys(("DBT_TARGET_PATH", "DBT_LOG_PATH"), str(folder))
    environment = {**Warehouse(address).dbt_environment(), **folders}
    said = list(dbt_runner.run(environment, SECONDS, [*command, *where]))
    errors = [each["info"]["msg"] for each in said if each["info"]["level"] == "error"]
    return [each["info"]["msg"] for each in said], errors


def facts(address: URL, folder: Path) -> dict[str, object]:
    said, errors = asked(address, folder, "show", "--inline", FACTS, "--output", "json")
    assert errors == []
    [shown] = [each for each in said if "is_encrypted" in each]
    [found] = json.loads(shown[shown.index("{") :])["show"]
    return found


@pytest.fixture(scope="module")
def with_tls() -> Iterator[URL]:
    """A server that lets nobody in without TLS; the URL has its CA."""
    if not BINARIES:
        pytest.skip("there is no Postgres with OpenSSL here")
    with postgres_on_tcp(BINARIES[-1].parent, tls=True) as address:
        yield address.update_query_dict({"sslmode": "verify-full"})


@pytest.mark.long
def test_loads_and_dbt_verify_the_servers_certificate(with_tls: URL, tmp_path: Path) -> None:
    """And the rest of the URL reaches both."""
    address = with_tls.update_query_dict({"options": "-c work_mem=7MB"})
    with closing(Warehouse(address).connect()) as connection, connection.cursor() as cursor:
        assert connection.info.ssl_in_use
        cursor.execute("show work_mem")
        assert cursor.fetchone() == ("7MB",)
    assert facts(address, tmp_path) == {
        "is_encrypted": True,
        "work_mem": "7MB",
        "client_encoding": "UTF8",
        "statement_timeout": "2min",
        "keepalives_idle": "30",
        "application_name": "elt dbt",
    }


def test_neither_loads_nor_dbt_trust_another_certificate(with_tls: URL, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    certificate(other)
    address = with_tls.update_query_dict({"sslrootcert": str(other)})
    with pytest.raises(ConfigurationError, match="certificate verify failed"):
        Warehouse(address).connect()
    said, _ = asked(address, tmp_path, "debug", "--connection")
    assert any("certificate verify failed" in each for each in said), said


def test_a_url_without_tls_is_a_wrong_configuration(with_tls: URL) -> None:
    address = with_tls.update_query_dict({"sslmode": "disable"})
    with pytest.raises(ConfigurationError, match="no encryption"):
        Warehouse(address).connect()


@pytest.mark.long
@pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer here")
def test_dbt_works_through_a_pooler_in_session_mode(database: URL, tmp_path: Path) -> None:
    """Which lets nobody in that names its limits at login."""
    with pgbouncer(database, "session") as address:
        found = facts(address, tmp_path)
    assert found["statement_timeout"] == "2min"
    assert found["client_encoding"] == "UTF8"
