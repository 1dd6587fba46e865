"""Flow `transform`: dbt build of what depends on complete raw tables, and its verdict.

dbt runs in a process of its own, writes its artifacts to DBT_TARGET_PATH (dbt's own variable), and
tells what it does as JSON lines; each finished node becomes a Prefect task run. The verdict comes
from `run_results.json`.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect_dbt import PrefectDbtSettings

from blocks import warehouse
from blocks.warehouse import Warehouse
from flows import sources
from flows.errors import BuildError
from flows.load import ledger
from flows.load.ledger import RawTable
from flows.nodes import Lineage, counted, failed, node_of, show_summary

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parents[1] / "dbt_project"
DBT = [sys.executable, "-c", "from dbt.cli.main import cli; cli()"]
NOTHING = "nothing to build"
LEDGER = "source:elt+"  # every load changes it: it is part of every build, and no cause of one


@dataclass(frozen=True)
class Selection:
    """The raw tables whose descendants are built, and those whose descendants are not."""

    built: tuple[RawTable, ...]
    left_out: tuple[RawTable, ...]


@flow(name="transform", flow_run_name="dbt build")
def transform(only_stale: bool = False, full_refresh: bool = False) -> str:
    """Build and test the models, those left out whose raw tables are not there in full.

    Builds of one warehouse wait for each other; each takes all that is stale by then, and the
    ledger's models with it.

    Args:
        only_stale: Build only what depends on raw tables that changed since they were last built.
        full_refresh: Build incremental models anew from all rows.
    """
    logger = get_run_logger()
    database = warehouse.load()
    with _alone(database):
        selection = select(raw_tables(database), only_stale)
        if selection.left_out:
            left_out = ", ".join(map(str, selection.left_out))
            logger.warning("Left out is what depends on %s: not loaded in full.", left_out)
        if not selection.built:
            logger.info("Nothing is built: no raw table has changed.")
            return NOTHING
        summary = build(database, selection, full_refresh)
        with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
            ledger.mark_built(cursor, selection.built, selection.left_out)
    logger.info(
        "dbt build of what depends on %s: %s", ", ".join(map(str, selection.built)), summary
    )
    return summary


def raw_tables(database: Warehouse) -> list[RawTable]:
    """All raw tables that a source declares, those too that were never loaded."""
    with closing(database.connect()) as connection, connection, connection.cursor() as cursor:
        for name in sources.names():
            ledger.prepare(cursor, f"raw_{name}")
        known = {(table.source, table.resource): table for table in ledger.tables(cursor)}
    return [
        known.get((name, resource.name), RawTable(name, resource.name, 0, False, True))
        for name in sources.names()
        for resource in sources.find(name).resources
    ]


def select(tables: Sequence[RawTable], only_stale: bool) -> Selection:
    """What depends on complete tables, on stale ones only if so wanted, and on no other."""
    return Selection(
        tuple(t for t in tables if t.is_complete and (t.is_stale or not only_stale)),
        tuple(table for table in tables if not table.is_complete),
    )


def build(database: Warehouse, selection: Selection, full_refresh: bool) -> str:
    """Run dbt and return the counts of its nodes by status.

    Raises:
        BuildError: when a node failed or dbt ended before it built any.
    """
    command = ["build", "--select", LEDGER, *(f"source:{table}+" for table in selection.built)]
    if selection.left_out:
        command += ["--exclude", *(f"source:{table}+" for table in selection.left_out)]
    command += ["--full-refresh"] if full_refresh else []
    settings = PrefectDbtSettings(project_dir=PROJECT, profiles_dir=PROJECT)
    target = PROJECT / settings.target_path
    results = target / "run_results.json"
    results.unlink(missing_ok=True)
    lineage = Lineage(target / "manifest.json")
    errors: list[str] = []
    for event in _dbt_events(command, settings, database.dbt_environment()):
        if event["info"]["name"] == "NodeFinished":
            node = node_of(event["data"])
            log.debug("%s: %s", node.name, node.status)
            lineage.show(node)
        elif event["info"]["level"] == "error":
            errors.append(event["info"]["msg"])
    return _verdict(results, errors, ", ".join(map(str, selection.built)))


@contextmanager
def _alone(database: Warehouse) -> Iterator[None]:
    """Wait for other builds of this warehouse; Postgres frees the lock when its holder dies."""
    with closing(database.connect()) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("select pg_advisory_lock(hashtextextended('elt:build', 0))")
        yield


def _dbt_events(
    command: list[str], settings: PrefectDbtSettings, environment: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Run dbt and yield its log events as they come; dbt ends when the caller stops listening."""
    with settings.resolve_profiles_yml() as profiles:
        arguments = [*DBT, *command, "--project-dir", str(PROJECT), "--profiles-dir", profiles]
        arguments += ["--log-format", "json", "--log-level", "debug", "--log-level-file", "debug"]
        with subprocess.Popen(
            arguments,
            cwd=PROJECT,
            env={**os.environ, **environment, "DBT_USE_COLORS": "false"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield from map(_event, process.stdout or ())
                process.wait()
            finally:
                process.terminate()


def _event(line: str) -> dict[str, Any]:
    """A log line of dbt; what is no JSON (a Python traceback) counts as an error it reports."""
    try:
        event = json.loads(line)
    except ValueError:
        return {"info": {"name": "NoJson", "level": "error", "msg": line.rstrip()}, "data": {}}
    return event if isinstance(event, dict) else _event("")


def _verdict(results: Path, errors: Sequence[str], built: str) -> str:
    if not results.exists():
        said = "\n".join(errors[-20:]) or "it said nothing"
        raise BuildError(f"dbt ended before it built anything: {said}")
    nodes = json.loads(results.read_text())["results"]
    show_summary(nodes, built)
    if bad := failed(nodes):
        raise BuildError(
            f"dbt nodes: {counted(nodes)}. What failed:\n"
            + "\n".join(f"  {complaint}" for complaint in bad)
            + "\nMend the model or its data, then run this again."
        )
    return counted(nodes)
