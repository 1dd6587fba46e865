"""Flow `transform`: dbt builds and tests in audit schemas; if all tests pass, it is published.

`flows.dbt_build` decides what to build, runs dbt and publishes. This module calls those steps in
order and shows them in Prefect.
"""

import dataclasses
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect_dbt import PrefectDbtSettings
from psycopg2.errors import QueryCanceled
from psycopg2.extensions import cursor as Cursor
from pydantic import Field

from blocks import warehouse
from blocks.warehouse import Warehouse
from flows import sources
from flows.dbt_build import dbt_runner, docs, freshness, history, manifests, scratch_schemas
from flows.dbt_build.failures import first_rows
from flows.dbt_build.history import Build, RawTable
from flows.dbt_build.manifests import Json, ManifestNode
from flows.dbt_build.node_results import ERROR, counted, done, is_done
from flows.dbt_build.publish import AUDIT, RelationName, exists, publish, refuse_others
from flows.dbt_build.published_copies import copy_published
from flows.dbt_build.selection import Selection, checksum, loads_of, select, why_nothing
from flows.dbt_task_runs import TaskRunMirror, failed, node_of, show_summary
from flows.errors import BuildError, EltError, UnavailableError
from flows.postgres import locks
from flows.postgres.errors import is_transient_text
from flows.retries import Retry, is_retryable

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parents[1] / "dbt_project"
NOTHING = "nothing to build"
UPGRADED = "Everything, from all rows: incremental models of an earlier version may lack some."
RESULTS, MANIFEST = "run_results.json", "manifest.json"
DUPLICATE_ERROR_EVENTS = ("LogFreshnessResult",)  # repeated by a separate error event

Command = Sequence[str]


@flow(name="transform", flow_run_name="dbt build")
def transform(
    only_stale: bool = False,
    full_refresh: bool = False,
    check_freshness: bool = False,
    timeout_seconds: Annotated[int, Field(ge=1)] = 3600,
    keep_docs: bool = False,
    keep_days: Annotated[int, Field(ge=0)] = 30,
    replace: Sequence[Annotated[str, Field(pattern=r"^[^.]+\.[^.]+$")]] = (),
    retry: Retry = Retry(),  # noqa: B008 (never changed, and shown in Prefect's form)
) -> str:
    """Build and test the models, then publish all of them at once if every test passed.

    Models that depend on incomplete raw tables are excluded. Builds of one warehouse run one at a
    time; each takes everything that is stale when it starts, and always the ledger's models.

    Args:
        only_stale: Build only what changed since it was published, or failed in the last build.
        full_refresh: Rebuild incremental models from all rows.
        check_freshness: Fail, after publishing, if a raw table's last load is too long ago.
        timeout_seconds: Stop dbt and its queries after this time.
        keep_docs: Store dbt's documentation of the published models in dbt.builds.
        keep_days: Days to keep a build's artifacts and documentation in dbt.builds.
        replace: Relations that no build made but this one may replace, each as `schema.name`.
        retry: How to retry a build if Postgres was unavailable.
    """
    database = warehouse.load(warehouse.TRANSFORMER_BLOCK)
    attempt = task(
        name="dbt",
        cache_policy=NO_CACHE,
        retry_condition_fn=is_retryable,
        persist_result=False,
        **retry.options(),
    )(build)
    options = BuildOptions(
        only_stale, full_refresh, check_freshness, keep_docs, timeout_seconds, replace
    )
    summary = attempt(database, options)
    with database.transaction() as cursor:
        history.forget_artifacts(cursor, keep_days)
    return summary


@dataclass(frozen=True)
class BuildOptions:
    """Parameters of a `transform` run; see the flow for what each means."""

    only_stale: bool
    full_refresh: bool
    check_freshness: bool
    keep_docs: bool
    timeout_seconds: float
    replace: Sequence[str] = ()


def build(database: Warehouse, options: BuildOptions) -> str:
    """Build and publish; return the counts of nodes by status.

    Raises:
        BuildError: when a node failed or dbt ended before it built any; nothing is published then.
            Or when a raw table is stale or the documentation failed; everything is published then.
        UnavailableError: the same, if Postgres was unavailable.
    """
    first = [freshness.COMMAND] if options.check_freshness else []
    seconds = options.timeout_seconds
    with _exclusive(database):
        started = _begin(database, options)
        if started is not None:
            outcome = _build(database, started, first, seconds)
            summary, errors = counted(outcome.results), outcome.errors
        else:
            summary, errors = NOTHING, _run_dbt(database, first, seconds) if first else []
        if options.keep_docs and started is not None:
            page = docs.packed(database.dbt_environment(), PROJECT, seconds)
            with database.transaction() as cursor:
                history.keep_docs(cursor, started.build_id, page)
        if options.check_freshness:
            _judge_ages(errors)
    return summary


@dataclass(frozen=True)
class StartedBuild:
    """A build that has started.

    Attributes:
        published: the manifest of everything published; None before the first publication.
        ours: the relations that the build may replace.
    """

    build_id: int
    selection: Selection
    published: Json | None
    ours: frozenset[RelationName]


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


def raw_tables(cursor: Cursor) -> list[RawTable]:
    """All raw tables that a source declares, including those never loaded.

    For a source that can't be imported, only those that were loaded.
    """
    known = {(table.source, table.resource): table for table in history.raw_tables(cursor)}
    usable = sources.usable()
    broken = {*sources.names()} - {source.name for source in usable}
    return [table for table in known.values() if table.source in broken] + [
        known.get((source.name, resource.name), RawTable(source.name, resource.name))
        for source in usable
        for resource in source.resources
    ]


def _begin(database: Warehouse, options: BuildOptions) -> StartedBuild | None:
    """Decide what to build and record the build; None when there is nothing to build."""
    logger = get_run_logger()
    with database.transaction() as cursor:
        history.prepare(cursor)
        dbt_runner.end_sessions(cursor)
        tables = raw_tables(cursor)
        code = checksum(PROJECT)
        last_published = history.last(cursor, "published")
        failed = _to_resume(cursor, options.only_stale)
        is_upgraded = history.is_first_with_copies(cursor)
        full_refresh = options.full_refresh or is_upgraded
        selection = select(tables, code, last_published, failed, options.only_stale, full_refresh)
        if selection is None:
            logger.info("Nothing to build: %s.", why_nothing(tables))
            return None
        if is_upgraded:
            selection = dataclasses.replace(selection, reason=UPGRADED)
        scratch_schemas.adopt(
            cursor, manifests.made_before(history.unrecorded_manifests(cursor), AUDIT)
        )
        build_id = history.begin(cursor, flow_run.id, selection.reason, code, loads_of(tables))
        published = history.published_manifest(cursor)
    if selection.left_out:
        incomplete = ", ".join(map(str, selection.left_out))
        logger.warning("Excluded everything that depends on %s: not loaded in full.", incomplete)
    replaceable = {RelationName(*name.split(".")) for name in options.replace}
    ours = frozenset(manifests.published_relations(published) | replaceable)
    return StartedBuild(build_id, selection, published, ours)


def _to_resume(cursor: Cursor, only_stale: bool) -> Build | None:
    """The last build if it failed and may be resumed.

    A run that builds everything resumes only its own attempts, not those of another run.
    """
    last = history.last(cursor)
    if last is None or last.state != "failed":
        return None
    is_this_run = last.run_id is not None and last.run_id == flow_run.id
    return last if only_stale or is_this_run else None


def _build(
    database: Warehouse, started: StartedBuild, first: Sequence[Command], timeout_seconds: float
) -> DbtResult:
    """Build, test and publish; `first` are dbt commands to run before, in the same process."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            state = _state(database, started, Path(folder))
            # Exposures describe readers of marts; they build nothing.
            only = ["--exclude-resource-type", "exposure"]
            listing = [*dbt_runner.LISTING, *only, *started.selection.nodes(), *state]
            building = ["build", *only, *started.selection.arguments(), *state]
            prepare = partial(_prepare, database, started, timeout_seconds)
            errors = _run_dbt(database, [listing, *first, building], timeout_seconds, prepare)
        outcome = _read_result(database, started, errors)
        _judge(database, outcome, started.selection.reason)
        _publish(database, started, outcome)
    except BaseException as error:
        _fail(database, started, error)
        raise
    get_run_logger().info(
        "dbt build %d. %s %s", started.build_id, started.selection.reason, counted(outcome.results)
    )
    return outcome


def _fail(database: Warehouse, started: StartedBuild, error: BaseException) -> None:
    """Record that a build failed, whatever ended it.

    If Postgres is unavailable, the row stays `running` until the next build marks it abandoned.
    """
    message = str(error) if isinstance(error, EltError) else f"{type(error).__name__}: {error}"
    try:
        with database.transaction() as cursor:
            dbt_runner.end_sessions(cursor)
            history.end(cursor, started.build_id, "failed", message)
    except UnavailableError as problem:
        log.warning("Build %d failed, but could not record it: %s", started.build_id, problem)


def _prepare(
    database: Warehouse, started: StartedBuild, timeout_seconds: float, selected: Sequence[str]
) -> None:
    """Prepare the audit schemas for the nodes that dbt is about to build.

    Raises:
        BuildError: when this takes longer than the timeout.
        ConfigurationError: when a relation or schema that no build made is in the way.
    """
    manifest = json.loads(_target(MANIFEST).read_text())
    copied = manifests.to_copy(
        manifest, started.published, selected, AUDIT, started.selection.full_refresh
    )
    try:
        with database.transaction() as cursor:
            cursor.execute("set local statement_timeout = %s", [f"{timeout_seconds:.0f}s"])
            refuse_others(cursor, manifests.relations(manifest, selected, AUDIT), started.ours)
            made = manifests.to_make(manifest, selected, AUDIT)
            # dbt itself would drop relations with `cascade`.
            scratch_schemas.drop_leftovers(
                cursor, AUDIT, made if started.selection.resumes else None
            )
            scratch_schemas.prepare(cursor, made)
            copy_published(cursor, copied)
            unknown = scratch_schemas.unknown(cursor, AUDIT)
    except QueryCanceled as error:
        raise BuildError(
            "Copying the tables of incremental models and snapshots took more than "
            f"{timeout_seconds:.0f} s (timeout_seconds); nothing was published. Raise the timeout."
        ) from error
    if unknown:
        get_run_logger().warning(
            "Not made by a build, so left in place: %s. Move them to another schema.",
            ", ".join(f"{name.schema}.{name.relation}" for name in unknown),
        )


def _run_dbt(
    database: Warehouse,
    commands: Sequence[Command],
    timeout_seconds: float,
    prepare: Callable[[Sequence[str]], None] | None = None,
) -> list[str]:
    """Run dbt in the audit schemas, show its nodes, and return errors that belong to no node.

    With `prepare`, the first command must list the nodes to prepare for.
    """
    settings = PrefectDbtSettings(project_dir=PROJECT, profiles_dir=PROJECT)
    for earlier in (RESULTS, freshness.RESULTS):
        _target(earlier).unlink(missing_ok=True)
    mirror = TaskRunMirror(_target(MANIFEST))
    errors: list[str] = []
    environment = {**database.dbt_environment(), "WAREHOUSE_SCHEMA_SUFFIX": AUDIT}
    with settings.resolve_profiles_yml() as profiles:
        where = ["--project-dir", str(PROJECT), "--profiles-dir", profiles]
        whole = [[*command, *where] for command in commands]
        events = dbt_runner.run(environment, timeout_seconds, *whole)
        with closing(dbt_runner.after_listing(events, prepare) if prepare else events) as remaining:
            for event in remaining:
                if event["info"]["name"] == "NodeFinished":
                    node = node_of(event["data"])
                    log.debug("%s: %s", node.name, node.status)
                    mirror.show(node)
                elif (
                    event["info"]["level"] == "error"
                    and event["info"]["name"] not in DUPLICATE_ERROR_EVENTS
                ):
                    errors.append(" ".join(event["info"]["msg"].split()))
    return errors


def _target(name: str) -> Path:
    """The path of one of dbt's artifacts."""
    settings = PrefectDbtSettings(project_dir=PROJECT, profiles_dir=PROJECT)
    return PROJECT.joinpath(settings.target_path, name)


def _read_result(database: Warehouse, started: StartedBuild, errors: Sequence[str]) -> DbtResult:
    """Read dbt's artifacts of a build, and store them.

    Raises:
        BuildError: when there are no results: dbt ended before it built anything.
        UnavailableError: the same, if Postgres was unavailable.
    """
    found = _read_artifact(RESULTS)
    if found is None:
        raise _ended_early("built anything", errors)
    packed = _target(MANIFEST).read_bytes()
    manifest = json.loads(packed)
    if resumed := started.selection.resumes:
        new = {node["unique_id"] for node in found["results"]}
        before = [node for node in resumed.results if node["unique_id"] not in new]
        found = {**found, "results": [*before, *found["results"]]}
    with database.transaction() as cursor:
        history.keep_artifacts(cursor, started.build_id, found, packed)
        scratch_schemas.forget_missing(cursor, scratch_schemas.own_schemas(cursor, AUDIT))
        gone = manifests.no_longer_built(manifest, started.published, AUDIT)
        left_over = {
            unique_id: node
            for unique_id, node in gone.items()
            if exists(cursor, RelationName(node["schema"], node["alias"]))
        }
    return DbtResult(found["results"], manifest, errors, left_over)


def _judge_ages(errors: Sequence[str]) -> None:
    """Raise when a raw table is stale, or dbt did not check its age."""
    ages, manifest = _read_artifact(freshness.RESULTS), _read_artifact(MANIFEST)
    if ages is None or manifest is None:
        raise _ended_early("checked the age of the raw tables", errors)
    if unchecked := freshness.without_result(manifest, ages["results"]):
        raise _ended_early(f"checked the age of {', '.join(unchecked)}", errors)
    if stale := freshness.stale(ages["results"], is_bad=True):
        raise BuildError(
            "Published everything that could be built, but raw tables are stale: "
            f"{'; '.join(stale)}. Check their loads; the limits are in dbt_project.yml and in the "
            "sources' YAML."
        )


def _read_artifact(name: str) -> Json | None:
    """One of dbt's artifacts; None when dbt did not write it."""
    file = _target(name)
    return json.loads(file.read_text()) if file.exists() else None


def _ended_early(what: str, errors: Sequence[str]) -> EltError:
    message = dbt_runner.last_errors(errors)
    kind = UnavailableError if is_transient_text(message) else BuildError
    return kind(f"dbt ended before it {what}: {message or 'it reported no error'}")


def _state(database: Warehouse, started: StartedBuild, folder: Path) -> list[str]:
    """Arguments that make dbt read nodes it does not build from where they are published."""
    state = started.published
    if resumed := started.selection.resumes:
        with database.transaction() as cursor:
            audited = history.manifest_of(cursor, resumed.build_id)
        state = manifests.to_resume(state, audited, done(resumed.results))
    if state is None:
        return []
    (folder / "manifest.json").write_text(json.dumps(state))
    return ["--defer", "--favor-state", "--state", str(folder)]


def _judge(database: Warehouse, outcome: DbtResult, reason: str) -> None:
    """Show the summary; raise when a node failed or was skipped."""
    with database.transaction() as cursor:
        rows = first_rows(cursor, outcome.manifest, outcome.results)
    ages = _read_artifact(freshness.RESULTS) or {"results": []}
    left_over = [f"{node['schema']}.{node['alias']}" for node in outcome.left_over.values()]
    if left_over:
        get_run_logger().warning(
            "No longer in the dbt project, but still published: %s. Drop those that nobody reads.",
            ", ".join(left_over),
        )
    show_summary(outcome.results, reason, rows, ages["results"], left_over)
    if not all(map(is_done, outcome.results)):
        errors = [str(node["message"]) for node in outcome.results if node["status"] == ERROR]
        kind = UnavailableError if any(map(is_transient_text, errors)) else BuildError
        complaints = "".join(f"\n  {complaint}" for complaint in failed(outcome.results, rows))
        raise kind(
            f"dbt nodes: {counted(outcome.results)}. Failed:{complaints}"
            "\nNothing was published: readers still see the previous data. Fix the model or its "
            "data, then run this again."
        )


def _publish(database: Warehouse, started: StartedBuild, outcome: DbtResult) -> None:
    """Publish the built relations and record it, in one transaction."""
    selection, built = started.selection, done(outcome.results)
    relations = manifests.relations(outcome.manifest, built, AUDIT)
    manifest = manifests.after_publishing(
        outcome.manifest, started.published, built, AUDIT, outcome.left_over
    )
    with database.transaction() as cursor:
        publish(cursor, relations, started.ours)
        scratch_schemas.forget_missing(cursor, scratch_schemas.own_schemas(cursor, AUDIT))
        history.mark_published(
            cursor, started.build_id, manifest, selection.built, selection.left_out
        )


@contextmanager
def _exclusive(database: Warehouse) -> Iterator[None]:
    """Wait for other builds of this warehouse; Postgres releases the lock if its holder dies."""
    with database.session() as connection:
        locks.hold(connection, locks.BUILD_KEY)
        yield
