"""Builds the working tree's changes in separate schemas; reads the rest from the published ones.

Writes nothing else in the warehouse, and drops the schemas when the caller is done with them. The
schemas themselves record that a trial created them (`flows.dbt_build.scratch_schemas`), because
its role may write nowhere else.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from psycopg2.extensions import cursor as Cursor

from blocks.warehouse import Warehouse
from flows import transform
from flows.dbt_build import dbt_runner, history, manifests, scratch_schemas
from flows.dbt_build.manifests import Json
from flows.dbt_build.publish import AUDIT
from flows.dbt_build.selection import CHANGED_CODE, Selection
from flows.errors import BuildError, ConfigurationError
from flows.postgres import locks, schemas

TIMEOUT_SECONDS = 3600
_NAME = re.compile(r"(?!_)(?!.*__)[a-z0-9_]{1,30}")


@dataclass(frozen=True)
class Trial:
    """The result of a dbt build in schemas that end with `suffix`.

    Attributes:
        results: each node's entry in run_results.json; empty if the tree changes nothing.
        left_out: raw tables that are not loaded in full; their dependants are not built.
    """

    suffix: str
    manifest: Json
    results: Sequence[Json]
    left_out: Sequence[str]


@contextmanager
def trial(database: Warehouse, name: str) -> Iterator[Trial]:
    """Build what the working tree changes; drop the trial's schemas when the block ends.

    First drops what an earlier trial of that name left.

    Raises:
        BuildError: when dbt ended before it built anything.
        ConfigurationError: when the name is invalid or in use, when nothing is published, or when
            a schema of that name exists that no trial created.
    """
    suffix = _suffix(name)
    with _lock(database, name):
        with database.transaction() as cursor:
            scratch_schemas.drop_schemas(cursor, suffix)
            selection, published = _plan(cursor)
        try:
            yield _build(database, suffix, selection, published)
        finally:
            with database.transaction() as cursor:
                scratch_schemas.drop_schemas(cursor, suffix)


def audited(cursor: Cursor) -> Trial:
    """The last build's relations in the audit schemas, if it failed.

    Raises:
        ConfigurationError: when the last build left nothing there.
    """
    last = history.last(cursor) if schemas.is_ours(cursor, history.OWN) else None
    if last is None or last.state != "failed" or not last.results:
        raise ConfigurationError(
            "The audit schemas are empty: the last build was published, or built nothing."
        )
    return Trial(AUDIT, history.manifest_of(cursor, last.build_id), last.results, ())


def drop(database: Warehouse, name: str) -> Sequence[str]:
    """Drop the schemas of a killed trial, which could not drop them itself.

    Returns:
        The schemas that match the trial's name but were not created by it; they stay.
    """
    suffix = _suffix(name)
    with _lock(database, name), database.transaction() as cursor:
        scratch_schemas.drop_schemas(cursor, suffix)
        return scratch_schemas.others_schemas(cursor, suffix)


def _suffix(name: str) -> str:
    if not _NAME.fullmatch(name) or f"__{name}" == AUDIT:
        raise ConfigurationError(
            f"{name!r} can't be a trial's name: 1 to 30 of a–z, 0–9 and single _ between them, and "
            "not audit."
        )
    return f"__{name}"


def _plan(cursor: Cursor) -> tuple[Selection, Json]:
    """The selection of what changed, and the published manifest."""
    published = None
    if schemas.is_ours(cursor, history.OWN):
        published = history.published_manifest(cursor)
    if published is None:
        raise ConfigurationError(
            "Nothing is published here yet: load and build first, then compare."
        )
    left_out = tuple(table for table in transform.raw_tables(cursor) if not table.is_complete)
    return Selection((), left_out, (CHANGED_CODE,), "A trial."), published


def _build(database: Warehouse, suffix: str, selection: Selection, published: Json) -> Trial:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "target")
        environment = {
            **database.dbt_environment(),
            "WAREHOUSE_SCHEMA_SUFFIX": suffix,
            "WAREHOUSE_APPLICATION": "elt trial",
            "DBT_LOG_PATH": folder,
        }
        project = [
            "--project-dir",
            str(transform.PROJECT),
            "--profiles-dir",
            str(transform.PROJECT),
        ]
        state = ["--defer", "--favor-state", "--state", folder]
        where = [*state, *project, "--target-path", str(target)]
        listing = [*dbt_runner.LISTING, *selection.nodes(), *where]
        building = ["build", *selection.arguments(), *where]
        Path(folder, "manifest.json").write_text(json.dumps(published))
        events = dbt_runner.run(environment, TIMEOUT_SECONDS, listing, building)
        prepare = partial(_prepare, database, suffix, target)
        build_events = dbt_runner.after_listing(events, prepare)
        errors = [each["info"]["msg"] for each in build_events if each["info"]["level"] == "error"]
        if not (target / "run_results.json").exists():
            raise BuildError(
                "dbt ended before it built anything: " + dbt_runner.last_errors(errors)
            )
        manifest = json.loads((target / "manifest.json").read_text())
        results = json.loads((target / "run_results.json").read_text())["results"]
    return Trial(suffix, manifest, results, [str(table) for table in selection.left_out])


def _prepare(database: Warehouse, suffix: str, target: Path, selected: Sequence[str]) -> None:
    manifest = json.loads((target / "manifest.json").read_text())
    with database.transaction() as cursor:
        scratch_schemas.prepare(cursor, manifests.to_make(manifest, selected, suffix))


@contextmanager
def _lock(database: Warehouse, name: str) -> Iterator[None]:
    with closing(database.connect()) as connection:
        if not locks.try_to_hold(connection, locks.trial_key(name)):
            raise ConfigurationError(f"A trial named {name!r} is running: choose another name.")
        yield
