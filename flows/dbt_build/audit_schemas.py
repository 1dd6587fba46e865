"""Prepares the audit schemas for the nodes that dbt is about to build."""

from collections.abc import Sequence

from psycopg2.errors import QueryCanceled
from psycopg2.extensions import cursor as Cursor

from flows.dbt_build import manifests, scratch_schemas
from flows.dbt_build.build_run import BuildRun
from flows.dbt_build.manifests import Json
from flows.dbt_build.publish import AUDIT, RelationName, refuse_others
from flows.dbt_build.published_copies import copy_published
from flows.dbt_build.started_build import StartedBuild
from flows.errors import BuildError


def prepare(run: BuildRun, started: StartedBuild, selected: Sequence[str]) -> None:
    """Prepare for the nodes with these ids: make room for them, and copy what they add to.

    Raises:
        BuildError: when this takes longer than the timeout.
        ConfigurationError: when a relation or schema that no build made is in the way.
    """
    manifest, limit = run.project.manifest(), f"{run.options.timeout_seconds:.0f}"
    try:
        with run.database.transaction() as cursor:
            cursor.execute("set local statement_timeout = %s", [f"{limit}s"])
            _make_room(cursor, started, manifest, selected)
            _copy(cursor, started, manifest, selected)
            unknown = scratch_schemas.unknown(cursor, AUDIT)
    except QueryCanceled as error:
        raise BuildError(
            "Copying the tables of incremental models and snapshots took more than "
            f"{limit} s (timeout_seconds); nothing was published. Raise the timeout."
        ) from error
    if unknown:
        _warn_of(run, unknown)


def _make_room(
    cursor: Cursor, started: StartedBuild, manifest: Json, selected: Sequence[str]
) -> None:
    refuse_others(cursor, manifests.relations(manifest, selected, AUDIT), started.ours)
    made = manifests.to_make(manifest, selected, AUDIT)
    # dbt itself would drop relations with `cascade`.
    scratch_schemas.drop_leftovers(cursor, AUDIT, made if started.selection.resumes else None)
    scratch_schemas.prepare(cursor, made)


def _copy(cursor: Cursor, started: StartedBuild, manifest: Json, selected: Sequence[str]) -> None:
    full_refresh = started.selection.full_refresh
    copied = manifests.to_copy(manifest, started.published, selected, AUDIT, full_refresh)
    copy_published(cursor, copied)


def _warn_of(run: BuildRun, unknown: Sequence[RelationName]) -> None:
    run.logger.warning(
        "Not made by a build, so left in place: %s. Move them to another schema.",
        ", ".join(f"{name.schema}.{name.relation}" for name in unknown),
    )
