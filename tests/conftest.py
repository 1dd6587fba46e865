"""Real services for the tests: Postgres, HTTP servers on loopback, the whole local stack.

The tests run a project of their own (`tests/project`), whatever sources and models are here.
"""

import contextlib
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="elt-tests-prefect-")
os.environ.pop("PREFECT_API_URL", None)
os.environ.pop("ENVIRONMENT", None)

import psycopg2
import pytest
from hypothesis import settings
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL, make_url

from deployments.local.postgres import drop_database, ensure_database, libpq, postgres
from deployments.local.stack import Stack, running
from flows import redaction, sources
from flows.dbt_build import dbt_project
from flows.errors import ConfigurationError
from flows.postgres import connection_url
from tests import certificates
from tests.databases import Databases, session
from tests.http_servers import Serve, serving
from tests.project.tree import SOURCES, make_tree

# Each of Prefect's clients reads all certificates it may need, for 40 ms. The server has no TLS.
CERTIFICATE = Path(os.environ["PREFECT_HOME"], "certificate.pem")
CERTIFICATE.write_bytes(certificates.self_signed("unused"))
os.environ["PREFECT_API_SSL_CERT_FILE"] = str(CERTIFICATE)

TREE = make_tree(Path(os.environ["PREFECT_HOME"], "project"))
sources.__path__ = [str(TREE / "flows" / "sources")]
dbt_project.PROJECT = TREE / "dbt_project"

# A busy machine takes as long as it takes, and examples of an earlier run are not this tree's.
settings.register_profile("tests", deadline=None, database=None)
settings.load_profile("tests")

# All tests run, and all cases of each.
IS_FULL = os.environ.get("CHAOS") == "full"
STACKS = 2
LONG_FOLDERS = ("commands", "deployments", "example", "flows", "owner", "dbt_build", "dbt_project")


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[URL]:
    """The embedded Postgres, one for all tests; or the one that TEST_POSTGRES_URL names."""
    if named := os.environ.get("TEST_POSTGRES_URL"):
        yield make_url(named)
        return
    with postgres(tmp_path_factory.mktemp("postgres") / "data") as server:
        _without_fsync(server)
        yield server


def _without_fsync(server: URL) -> None:
    """Spare the disk: no test pulls the plug of the machine."""
    with closing(psycopg2.connect(libpq(server))) as opened:
        opened.autocommit = True
        with opened.cursor() as cursor:
            cursor.execute("alter system set fsync = off")
            cursor.execute("select pg_reload_conf()")


@pytest.fixture(scope="session")
def databases(postgres_server: URL) -> Iterator[Databases]:
    """The databases of the tests, used again where that is the same as a new one."""
    with closing(Databases(postgres_server)) as found:
        yield found


@pytest.fixture
def database(request: pytest.FixtureRequest, databases: Databases) -> Iterator[URL]:
    """A database of the test's own: empty but for the ledger, or empty if it is marked so."""
    with databases.empty(has_ledger=not request.node.get_closest_marker("no_ledger")) as url:
        yield url


@contextlib.contextmanager
def empty_database(server: URL, name: str) -> Iterator[URL]:
    yield ensure_database(server, name)
    drop_database(server, name)


@pytest.fixture
def connection(database: URL) -> Iterator[Connection]:
    """A connection to the test's own database, as a load gets it."""
    with closing(psycopg2.connect(libpq(database))) as opened:
        yield opened


@pytest.fixture
def query(database: URL) -> Callable[..., list[tuple]]:
    """Run one statement on the test's own database and return its rows."""
    return partial(rows, database)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Postgres, a Prefect server and the API of the tests' project; this process talks to them.

    Its own flow runs send no heartbeats: each would wait up to a second for their thread.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    with (
        running_with_api(tmp_path_factory.mktemp("stack")) as started,
        pytest.MonkeyPatch.context() as patch,
    ):
        _without_fsync(started.warehouse)
        started.wait()
        for name, value in started.environment.items():
            patch.setenv(name, value)
        url = started.environment["PREFECT_API_URL"]
        with temporary_settings({PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            yield started
            APILogWorker.drain_all()
            EventsWorker.drain_all()


@contextlib.contextmanager
def running_with_api(home: Path) -> Iterator[Stack]:
    """The local stack, whose environment has the address of the tests' API for each source."""
    from tests.project.api import answer

    with running(home, "warehouse") as started, serving() as serve:
        url = serve(answer).url
        addresses = {f"{name.upper()}_BASE_URL": url for name in SOURCES}
        yield replace(started, environment={**started.environment, **addresses})


@pytest.fixture(scope="session")
def warehouses(stack: Stack) -> Iterator[Databases]:
    """The warehouses of the tests, used again as `databases` are."""
    with closing(Databases(stack.warehouse)) as found:
        yield found


@pytest.fixture
def warehouse_url(warehouses: Databases) -> Iterator[URL]:
    """An empty warehouse of the test's own, which both blocks of the warehouse point to."""
    from blocks import warehouse

    with warehouses.empty() as url:
        if not is_in_blocks(url):  # saving them takes half a second
            warehouse.save({warehouse.URL_VARIABLE: libpq(url)})
        yield url


def is_in_blocks(url: URL) -> bool:
    """Whether loads and dbt would use this address."""
    from blocks import warehouse

    address = connection_url.from_url(url, "The test's warehouse")
    names = (warehouse.BLOCK, warehouse.TRANSFORMER_BLOCK)
    try:
        return all(warehouse.load(name).address == address for name in names)
    except ConfigurationError:
        return False


@pytest.fixture
def ask(warehouse_url: URL) -> Callable[..., list[tuple]]:
    """Run one statement on the test's own warehouse and return its rows."""
    return partial(rows, warehouse_url)


def rows(url: URL, statement: str | sql.Composable, *values: object) -> list[tuple]:
    """Run one statement and return its rows."""
    with session(url) as opened, opened, opened.cursor() as cursor:
        cursor.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have slept, in order."""
    seconds: list[float] = []
    monkeypatch.setattr("flows.extract.client.sleep", seconds.append)
    return seconds


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """All that was logged, at whatever level."""
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "flows"):
        caplog.set_level(logging.DEBUG, name)
    yield lambda: "\n".join(
        f"{caplog.handler.format(record)} {record.msg} {record.args}" for record in caplog.records
    )


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start HTTP servers that answer what a function of the path returns; with TLS, if wanted."""
    with serving() as start:
        yield start


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, so that each file's services are started once.

    Before xdist's own hook, which looks for these marks. Files that use the stack are in two
    processes, because a Prefect server takes as long to start as a hundred tests. They come first,
    then those that start other programs: a long one that begins last would run alone. What takes
    long, such as waiting for a schedule, is marked `long`, and tests of very many cases are marked
    `sampled`: CHAOS=full runs all of them.
    """
    groups = _groups(items)
    items.sort(key=lambda item: item.path.parent.name not in LONG_FOLDERS)
    items.sort(key=lambda item: not groups[item.path].startswith("stack"))
    sampled: set[str] = set()
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.path]))
        if not IS_FULL and (item.get_closest_marker("long") or _is_left_out(item, sampled)):
            item.add_marker(pytest.mark.skip(reason="only with CHAOS=full"))


def _has_stack(item: pytest.Item) -> bool:
    return "stack" in getattr(item, "fixturenames", ())


def _groups(items: list[pytest.Item]) -> dict[Path, str]:
    """The process of each file, by a name: its own, or that of one of the stacks."""
    groups = {item.path: str(item.path) for item in items}
    using = sorted({item.path for item in items if _has_stack(item)})
    return {**groups, **{path: f"stack {n % STACKS}" for n, path in enumerate(using)}}


def _is_left_out(item: pytest.Item, sampled: set[str]) -> bool:
    """Whether it is marked `sampled(n)` and not among the cases that run: the first, and 1 in n.

    Which ones those are depends on their names alone, so a new case changes no other's turn.
    """
    mark = item.get_closest_marker("sampled")
    if mark is None:
        return False
    test = item.nodeid.partition("[")[0]
    is_first = test not in sampled
    sampled.add(test)
    [one_in] = mark.args
    return not is_first and zlib.crc32(item.nodeid.encode()) % one_in != 0


# The first of them by its name, so that it looks when all others have restored what they changed.
@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    """Fail a test that leaves a variable of the environment behind: another would find it."""
    before = {**os.environ}
    yield
    changed = {**os.environ}.items() ^ before.items()
    assert {name for name, _ in changed} <= {"PYTEST_CURRENT_TEST"}


@pytest.fixture(autouse=True)
def _no_known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the secrets of earlier tests, which may be words in this one's messages."""
    monkeypatch.setattr(redaction, "_known", redaction.Secrets())


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    """Undo what a command sets: `make record` silences the warnings of its loads."""
    log = logging.getLogger("flows")
    level = log.level
    yield
    log.setLevel(level)
