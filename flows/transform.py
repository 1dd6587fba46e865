"""Flow `transform`: dbt builds and tests in audit schemas; if all tests pass, it is published.

`flows.dbt_build` builds and publishes. This module runs a build as a Prefect task, and shows in
Prefect what it did.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from pydantic import Field

from blocks import warehouse
from blocks.environment import own
from blocks.warehouse import Warehouse
from flows import sources
from flows.dbt_build import dbt_project, history
from flows.dbt_build.build import build
from flows.dbt_build.build_run import BuildOptions, BuildRun
from flows.dbt_build.dbt_project import MANIFEST, DbtProject
from flows.dbt_build.manifests import Json
from flows.dbt_task_runs import TaskRunMirror, node_of, show_summary
from flows.retries import Retry, is_retryable

log = logging.getLogger(__name__)

# `{{ prefect.blocks.… }}` and `{{ prefect.variables.… }}` begin so.
REFERENCE = "prefect."
_RESOURCES = """
select
    history.source || '.' || history.resource as resource,
    history.last_state,
    cast(freshness.hours_since_loaded as double precision) as hours_since_loaded,
    history.loads,
    history.failed,
    history.open_rejects,
    history.last_error
from marts.rpt_load_history as history
left join marts.rpt_resource_freshness as freshness using (source, resource)
order by resource
"""


@flow(name="transform", flow_run_name="dbt build")
def transform(
    only_stale: bool = False,
    full_refresh: bool = False,
    check_freshness: bool = False,
    timeout_seconds: Annotated[int, Field(ge=1)] = 3600,
    keep_docs: bool = False,
    keep_days: Annotated[int, Field(ge=0)] = 30,
    replace: Sequence[Annotated[str, Field(pattern=r"^[^.]+\..+$")]] = (),
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
    )(_build)
    options = BuildOptions(
        only_stale, full_refresh, check_freshness, keep_docs, timeout_seconds, replace
    )
    summary = attempt(database, options)
    with database.transaction() as cursor:
        history.forget_artifacts(cursor, keep_days)
    if not only_stale:
        _show_resources(database)
    return summary


def _build(database: Warehouse, options: BuildOptions) -> str:
    """Run a build for this flow run, and return the counts of nodes by status."""
    project = _project()
    mirror = TaskRunMirror(project.path(MANIFEST))
    return build(
        BuildRun(
            database=database,
            project=project,
            resources=sources.resources_by_source(),
            options=options,
            run_id=flow_run.id,
            logger=get_run_logger(),
            show_node=partial(_show_node, mirror),
            show_summary=show_summary,
        )
    )


def _show_resources(database: Warehouse) -> None:
    """Show how the loads of each resource went; nothing if the project lacks those marts."""
    with database.transaction() as cursor:
        cursor.execute(
            "select num_nulls(to_regclass('marts.rpt_load_history'),"
            " to_regclass('marts.rpt_resource_freshness')) > 0"
        )
        if cursor.fetchall() == [(True,)]:
            return
        cursor.execute(_RESOURCES)
        names = [column.name.replace("_", " ") for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
    create_table_artifact(
        key=own("resources"),
        table=rows,
        description="How the loads of each resource went. `make report` draws charts of them.",
    )


def _project() -> DbtProject:
    folder = dbt_project.PROJECT
    target = os.environ.get("DBT_TARGET_PATH", "target")
    return DbtProject(folder, folder / target, partial(resolve_profiles, folder))


def resolve_profiles(folder: Path) -> AbstractContextManager[str]:
    """The folder of a profiles.yml with the values of Prefect's blocks and variables in it.

    Ours names none, and prefect-dbt imports all of dbt: seconds, and dbt has a process of its own.
    """
    if REFERENCE not in (folder / "profiles.yml").read_text(encoding="utf-8"):
        return nullcontext(str(folder))
    from prefect_dbt import PrefectDbtSettings

    settings = PrefectDbtSettings(project_dir=folder, profiles_dir=folder)
    profiles: AbstractContextManager[str] = settings.resolve_profiles_yml()
    return profiles


def _show_node(mirror: TaskRunMirror, data: Json) -> None:
    """Show a node that has ended, by the data of dbt's event `NodeFinished`."""
    node = node_of(data)
    log.debug("%s: %s", node.name, node.status)
    mirror.show(node)
