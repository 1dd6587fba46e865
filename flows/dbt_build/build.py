"""One build: dbt builds and tests in audit schemas; if all tests pass, it is published.

Knows the order of the steps. What only a flow can know or show is in the caller's `BuildRun`.
"""

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg2.extensions import cursor as Cursor

from flows.dbt_build import (
    audit_schemas,
    dbt_project,
    dbt_runner,
    docs,
    freshness,
    history,
    manifests,
    scratch_schemas,
)
from flows.dbt_build.build_run import BuildRun, Database
from flows.dbt_build.dbt_project import AGES, MANIFEST, Command, Prepare, State
from flows.dbt_build.failures import first_rows
from flows.dbt_build.history import Build
from flows.dbt_build.manifests import Json, ManifestNode
from flows.dbt_build.node_results import counted, done
from flows.dbt_build.publish import AUDIT, RelationName, exists, publish
from flows.dbt_build.started_build import StartedBuild, begin
from flows.dbt_build.verdict import Summary, judge, judge_ages
from flows.errors import EltError, UnavailableError
from flows.postgres import locks

NOTHING = "nothing to build"


@dataclass(frozen=True)
class DbtResult:
    """dbt's results of a build, including those of the build that it resumes.

    Attributes:
        results: each node's entry in run_results.json.
        errors: dbt's error messages that belong to no node.
        left_over: published nodes that left the project but whose relation still exists, by id.
    """

    results: Sequence[Json]
    manifest: Json
    errors: Sequence[str]
    left_over: Mapping[str, ManifestNode]


def build(run: BuildRun) -> str:
    """Build and publish; return the counts of nodes by status.

    Raises:
        BuildError: when a node failed or dbt ended before it built any; nothing is published then.
            Or when a raw table is stale or the documentation failed; everything is published then.
        UnavailableError: the same, if Postgres was unavailable.
    """
    first = [freshness.COMMAND] if run.options.check_freshness else []
    with _exclusive(run.database):
        started = begin(run)
        if started is not None:
            result = _build(run, started, first)
            counts, errors = counted(result.results), result.errors
        else:
            counts, errors = NOTHING, _run_dbt(run, first) if first else []
        if run.options.keep_docs and started is not None:
            _keep_docs(run, started)
        if run.options.check_freshness:
            judge_ages(run.project, errors)
    return counts


@contextmanager
def _exclusive(database: Database) -> Iterator[None]:
    """Wait for other builds of this warehouse; Postgres releases the lock if its holder dies."""
    with database.session() as connection:
        locks.hold(connection, locks.BUILD_KEY)
        yield


def _build(run: BuildRun, started: StartedBuild, first: Sequence[Command]) -> DbtResult:
    """Build, test and publish; `first` are dbt commands to run before, in the same process."""
    try:
        errors = _build_in_audit_schemas(run, started, first)
        result = _read_result(run, started, errors)
        summary = _summarize(run, started, result)
        run.show_summary(summary)
        judge(summary)
        _publish(run.database, started, result)
    except BaseException as error:
        _record_failure(run, started, error)
        raise
    reason, counts = started.selection.reason, counted(result.results)
    run.logger.info("dbt build %d. %s %s", started.build_id, reason, counts)
    return result


def _build_in_audit_schemas(
    run: BuildRun, started: StartedBuild, first: Sequence[Command]
) -> list[str]:
    """Run dbt for the selected nodes, and return its errors that belong to no node."""
    with tempfile.TemporaryDirectory() as folder:
        state = State(_state(run.database, started), Path(folder))
        # Exposures describe readers of marts; they build nothing.
        only = ["--exclude-resource-type", "exposure"]
        listing = [*dbt_runner.LISTING, *only, *started.selection.nodes(), *state.compared()]
        building = ["build", *only, *started.selection.arguments(), *state.deferred()]

        def prepare(selected: Sequence[str]) -> None:
            audit_schemas.prepare(run, started, selected)
            state.defer(selected)

        return _run_dbt(run, [listing, *first, building], prepare)


def _state(database: Database, started: StartedBuild) -> Json | None:
    """The manifest of where dbt reads nodes that it does not build; None if there is nothing."""
    state = started.published
    if resumed := started.selection.resumes:
        with database.transaction() as cursor:
            audited = history.manifest_of(cursor, resumed.build_id)
        state = manifests.to_resume(state, audited, done(resumed.results))
    return state


def _run_dbt(
    run: BuildRun, commands: Sequence[Command], prepare: Prepare | None = None
) -> list[str]:
    """Run dbt in the audit schemas, and return its errors that belong to no node."""
    environment = {**run.database.dbt_environment(), "WAREHOUSE_SCHEMA_SUFFIX": AUDIT}
    seconds = run.options.timeout_seconds
    return dbt_project.run(run.project, environment, seconds, commands, prepare, run.show_node)


def _read_result(run: BuildRun, started: StartedBuild, errors: Sequence[str]) -> DbtResult:
    """Read dbt's artifacts of a build, and store them.

    Raises:
        BuildError: when there are no results: dbt ended before it built anything.
        UnavailableError: the same, if Postgres was unavailable.
    """
    found = _with_resumed(run.project.results(errors), started.selection.resumes)
    packed = run.project.path(MANIFEST).read_bytes()
    manifest = json.loads(packed)
    with run.database.transaction() as cursor:
        history.keep_artifacts(cursor, started.build_id, found, packed)
        scratch_schemas.forget_missing(cursor, scratch_schemas.own_schemas(cursor, AUDIT))
        left_over = _left_over(cursor, manifest, started.published, done(found["results"]))
    return DbtResult(found["results"], manifest, errors, left_over)


def _with_resumed(found: Json, resumed: Build | None) -> Json:
    """The results, with those of the resumed build for the nodes that were not built again."""
    if resumed is None:
        return found
    new = {node["unique_id"] for node in found["results"]}
    before = [node for node in resumed.results if node["unique_id"] not in new]
    return {**found, "results": [*before, *found["results"]]}


def _left_over(
    cursor: Cursor, manifest: Json, published: Json | None, built: Collection[str]
) -> dict[str, ManifestNode]:
    """The published nodes that are no longer built but whose relation still exists, by id."""
    old = manifests.no_longer_built(manifest, published, built, AUDIT)
    return {
        unique_id: node
        for unique_id, node in old.items()
        if exists(cursor, RelationName(node["schema"], node["alias"]))
    }


def _summarize(run: BuildRun, started: StartedBuild, result: DbtResult) -> Summary:
    with run.database.transaction() as cursor:
        rows = first_rows(cursor, result.manifest, result.results)
    ages = run.project.read(AGES) or {"results": []}
    left_over = [f"{node['schema']}.{node['alias']}" for node in result.left_over.values()]
    if left_over:
        run.logger.warning(
            "No longer built by the dbt project, but still published: %s. Drop those that nobody "
            "reads.",
            ", ".join(left_over),
        )
    return Summary(started.selection.reason, result.results, rows, ages["results"], left_over)


def _publish(database: Database, started: StartedBuild, result: DbtResult) -> None:
    """Publish the built relations and record it, in one transaction."""
    selection, built = started.selection, done(result.results)
    copies = manifests.to_copy(
        result.manifest, started.published, built, AUDIT, selection.full_refresh
    )
    copied = {relation.published for relation in copies}
    relations = manifests.relations(result.manifest, built, AUDIT, copied)
    with database.transaction() as cursor:
        made = publish(cursor, relations, started.ours)
        manifest = manifests.after_publishing(
            result.manifest, started.published, built, AUDIT, result.left_over, made
        )
        scratch_schemas.forget_missing(cursor, scratch_schemas.own_schemas(cursor, AUDIT))
        history.mark_published(
            cursor, started.build_id, manifest, selection.built, selection.left_out
        )


def _record_failure(run: BuildRun, started: StartedBuild, error: BaseException) -> None:
    """Record that a build failed, whatever ended it.

    If Postgres is unavailable, the row stays `running` until the next build marks it abandoned.
    """
    message = str(error) if isinstance(error, EltError) else f"{type(error).__name__}: {error}"
    try:
        with run.database.transaction() as cursor:
            dbt_runner.end_sessions(cursor)
            history.end(cursor, started.build_id, "failed", message)
    except UnavailableError as problem:
        run.logger.warning(
            "Build %d failed, but could not record it: %s", started.build_id, problem
        )


def _keep_docs(run: BuildRun, started: StartedBuild) -> None:
    """Store dbt's documentation of what is published."""
    environment, seconds = run.database.dbt_environment(), run.options.timeout_seconds
    page = docs.packed(environment, run.project.folder, seconds)
    with run.database.transaction() as cursor:
        history.keep_docs(cursor, started.build_id, page)
