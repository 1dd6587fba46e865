"""Builds the working tree's changes in separate schemas; reads the rest from the published ones.

Writes nothing else in the warehouse, and drops the schemas when the caller is done with them. The
schemas themselves record that a trial created them (`flows.dbt_build.scratch_schemas`), because
its role may write nowhere else.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg2.extensions import cursor as Cursor

from blocks.warehouse import Warehouse
from flows import sources
from flows.dbt_build import dbt_project, dbt_runner, history, manifests, scratch_schemas
from flows.dbt_build.dbt_project import DbtProject, State
from flows.dbt_build.manifests import Json
from flows.dbt_build.publish import AUDIT
from flows.dbt_build.selection import CHANGED_CODE, Selection, declared_tables
from flows.errors import ConfigurationError
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
        UnavailableError: the same, if Postgres was unavailable.
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
    tables = declared_tables(history.raw_tables(cursor), sources.resources_by_source())
    left_out = tuple(table for table in tables if not table.is_complete)
    return Selection((), left_out, (CHANGED_CODE,), "A trial."), published


def _build(database: Warehouse, suffix: str, selection: Selection, published: Json) -> Trial:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = DbtProject(dbt_project.PROJECT, folder / "target")
        environment = {
            **database.dbt_environment(),
            "WAREHOUSE_SCHEMA_SUFFIX": suffix,
            "WAREHOUSE_APPLICATION": "elt trial",
            "DBT_LOG_PATH": name,
        }
        state = State(published, folder)
        listing = [*dbt_runner.LISTING, *selection.nodes(), *state.compared()]
        building = ["build", *selection.arguments(), *state.deferred()]

        def prepare(selected: Sequence[str]) -> None:
            _prepare(database, suffix, project, selected)
            state.defer(selected)

        commands = [listing, building]
        errors = dbt_project.run(project, environment, TIMEOUT_SECONDS, commands, prepare)
        results, manifest = project.results(errors)["results"], project.manifest()
    return Trial(suffix, manifest, results, [str(table) for table in selection.left_out])


def _prepare(
    database: Warehouse, suffix: str, project: DbtProject, selected: Sequence[str]
) -> None:
    made = manifests.to_make(project.manifest(), selected, suffix)
    with database.transaction() as cursor:
        scratch_schemas.prepare(cursor, made)


@contextmanager
def _lock(database: Warehouse, name: str) -> Iterator[None]:
    with closing(database.connect()) as connection:
        if not locks.try_to_hold(connection, locks.trial_key(name)):
            raise ConfigurationError(f"A trial named {name!r} is running: choose another name.")
        try:
            yield
        finally:
            locks.release(connection, locks.trial_key(name))
