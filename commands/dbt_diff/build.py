"""Building what the working tree changes in schemas of its own; the rest is read as published.

Writes nothing else in the warehouse, and drops the schemas when the caller is done with them. Which
schemas a trial made is recorded in those schemas (`flows.dbt_build.scratch_schemas`): its role may
write nowhere else.
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
from flows.postgres import schemas

TIMEOUT_SECONDS = 3600
_NAME = re.compile(r"(?!_)(?!.*__)[a-z0-9_]{1,30}")


@dataclass(frozen=True)
class Trial:
    """What dbt left of a build in schemas that end with `suffix`.

    Attributes:
        results: of each node what run_results.json says; none where the tree changes nothing.
        left_out: raw tables that are not loaded in full; what depends on them is not built.
    """

    suffix: str
    manifest: Json
    results: Sequence[Json]
    left_out: Sequence[str]


@contextmanager
def trial(database: Warehouse, name: str) -> Iterator[Trial]:
    """Build what the working tree changes; its schemas are there until the block ends.

    What an earlier one of that name left is dropped first.

    Raises:
        BuildError: when dbt ended before it built anything.
        ConfigurationError: when the name can't be a schema's or is in use, nothing is published, or
            something that no trial made is in the way.
    """
    suffix = _suffix(name)
    with _alone(database, name):
        with database.transaction() as cursor:
            scratch_schemas.drop_schemas(cursor, suffix)
            selection, published = _plan(cursor)
        try:
            yield _built(database, suffix, selection, published)
        finally:
            with database.transaction() as cursor:
                scratch_schemas.drop_schemas(cursor, suffix)


def audited(cursor: Cursor) -> Trial:
    """What the last build left in the audit schemas, because not all of it passed.

    Raises:
        ConfigurationError: when the last build left nothing there.
    """
    last = history.last(cursor) if schemas.is_ours(cursor, history.OWN) else None
    if last is None or last.state != "failed" or not last.results:
        raise ConfigurationError(
            "Nothing waits in the audit schemas: the last build was published, or built nothing."
        )
    return Trial(AUDIT, history.manifest_of(cursor, last.build_id), last.results, ())


def drop(database: Warehouse, name: str) -> Sequence[str]:
    """Drop what a trial left that could not do so itself, because its machine is gone.

    Returns:
        The schemas that only look like those of that trial, and stay.
    """
    suffix = _suffix(name)
    with _alone(database, name), database.transaction() as cursor:
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
    """What differs from what is published, and the manifest of that."""
    published = None
    if schemas.is_ours(cursor, history.OWN):
        published = history.published_manifest(cursor)
    if published is None:
        raise ConfigurationError(
            "Nothing is published here yet: load and build first, then compare."
        )
    left_out = tuple(table for table in transform.raw_tables(cursor) if not table.is_complete)
    return Selection((), left_out, (CHANGED_CODE,), "A trial."), published


def _built(database: Warehouse, suffix: str, selection: Selection, published: Json) -> Trial:
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
        said = dbt_runner.after_listing(events, prepare)
        errors = [each["info"]["msg"] for each in said if each["info"]["level"] == "error"]
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
def _alone(database: Warehouse, name: str) -> Iterator[None]:
    with closing(database.connect()) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(
                "select pg_try_advisory_lock(hashtextextended(%s, 0))", [f"elt:trial:{name}"]
            )
            if cursor.fetchall() == [(False,)]:
                raise ConfigurationError(f"A trial named {name!r} is at work: choose another name.")
        yield
