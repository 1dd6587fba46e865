"""Begins a build: decides what to build, and records it in the history."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from psycopg2.extensions import cursor as Cursor

from flows.dbt_build import dbt_runner, history, manifests, scratch_schemas
from flows.dbt_build.build_run import BuildRun
from flows.dbt_build.history import Build, RawTable
from flows.dbt_build.manifests import Json
from flows.dbt_build.publish import AUDIT, Made, RelationName
from flows.dbt_build.selection import (
    CHANGED_CODE,
    Selection,
    checksum,
    declared_tables,
    loads_of,
    select,
    why_nothing,
)

UPGRADED = "Everything, from all rows: incremental models of an earlier version may lack some."


@dataclass(frozen=True)
class StartedBuild:
    """A build that has started.

    Attributes:
        published: the manifest of everything published; None before the first publication.
        ours: the relations that the build may replace, and what builds attached to each.
    """

    build_id: int
    selection: Selection
    published: Json | None
    ours: Made


def begin(run: BuildRun) -> StartedBuild | None:
    """Decide what to build and record the build; None when there is nothing to build.

    The caller must be the only build of the warehouse.
    """
    with run.database.transaction() as cursor:
        history.prepare(cursor)
        dbt_runner.end_sessions(cursor)
        tables = declared_tables(history.raw_tables(cursor), run.resources)
        code = checksum(run.project.folder)
        selection = _select(cursor, run, tables, code)
        if selection is None:
            run.logger.info("Nothing to build: %s.", why_nothing(tables))
            return None
        _adopt_earlier_relations(cursor)
        published = history.published_manifest(cursor)
        selection = _with_large_seeds(selection, published)
        build_id = history.begin(
            cursor, run.run_id, selection.reason, code, loads_of(tables), selection.full_refresh
        )
    if selection.left_out:
        incomplete = ", ".join(map(str, selection.left_out))
        run.logger.warning(
            "Excluded everything that depends on %s: not loaded in full.", incomplete
        )
    ours = _replaceable(published, run.options.replace)
    return StartedBuild(build_id, selection, published, ours)


def _select(
    cursor: Cursor, run: BuildRun, tables: Sequence[RawTable], code: str
) -> Selection | None:
    last_published = history.last(cursor, "published")
    is_upgraded = history.is_first_with_copies(cursor)
    selection = select(
        tables,
        code,
        last_published,
        _to_resume(cursor, run),
        run.options.only_stale,
        run.options.full_refresh or is_upgraded,
    )
    return replace(selection, reason=UPGRADED) if selection and is_upgraded else selection


def _with_large_seeds(selection: Selection, published: Json | None) -> Selection:
    """After a change of the project, select seeds that dbt can't compare with their old file."""
    if CHANGED_CODE not in selection.select:
        return selection
    seeds = [f"{name}+" for name in manifests.large_seeds(published)]
    return replace(selection, select=(*selection.select, *seeds))


def _to_resume(cursor: Cursor, run: BuildRun) -> Build | None:
    """The last build if it failed and may be resumed.

    A run that builds everything resumes only its own attempts, not those of another run.
    """
    last = history.last(cursor)
    if last is None or last.state != "failed":
        return None
    is_this_run = last.run_id is not None and last.run_id == run.run_id
    return last if run.options.only_stale or is_this_run else None


def _adopt_earlier_relations(cursor: Cursor) -> None:
    """Record what builds of earlier versions made in the audit schemas."""
    earlier = history.unrecorded_manifests(cursor)
    scratch_schemas.adopt(cursor, manifests.made_before(earlier, AUDIT))


def _replaceable(published: Json | None, requested: Iterable[str]) -> Made:
    """The relations that builds published, and those to replace on request (`schema.name`)."""
    on_request = {RelationName(*name.split(".", 1)): frozenset[str]() for name in requested}
    return {**on_request, **manifests.published_relations(published)}
