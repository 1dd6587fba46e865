"""Shows dbt's nodes in Prefect: one task run per node, tables with lineage, and a summary.

Knows dbt's artifacts and events, but not how dbt is run.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

from prefect._internal.uuid7 import uuid7
from prefect.artifacts import create_markdown_artifact
from prefect.assets import Asset
from prefect.client.schemas.objects import State, StateType, TaskRun
from prefect.context import AssetContext
from prefect.runtime import flow_run
from prefect.types._datetime import now, parse_datetime
from prefect.utilities.engine import emit_task_run_state_change_event

from blocks.environment import own
from flows.dbt_build import freshness
from flows.dbt_build.manifests import Json
from flows.dbt_build.node_results import (
    FAILED,
    SKIPPED,
    WARNED,
    counted,
    is_test,
    name_of,
    outcome_of,
)
from flows.dbt_build.publish import AUDIT
from flows.dbt_build.verdict import Summary, describe

SHOWN_MODELS = 10


@dataclass(frozen=True)
class DbtNode:
    """A dbt node that has ended, with dbt's status and message; times are UTC."""

    unique_id: str
    name: str
    status: str
    message: str
    started_at: datetime
    ended_at: datetime


def node_of(data: Mapping[str, Any]) -> DbtNode:
    """The node of dbt's event `NodeFinished`."""
    info, result = data["node_info"], data["run_result"]
    ended_at = _time(info["node_finished_at"]) or now("UTC")
    return DbtNode(
        unique_id=info["unique_id"],
        name=f"{info['resource_type']} {info['node_name']}",
        status=result["status"],
        message=" ".join(result["message"].split()),
        started_at=_time(info["node_started_at"]) or ended_at,
        ended_at=ended_at,
    )


def _time(text: str) -> datetime | None:
    """A time of dbt's events: UTC without an offset; empty for a skipped node."""
    return parse_datetime(f"{text}Z") if text else None


class TaskRunMirror:
    """Shows ended nodes in Prefect: task runs with dbt's own times, and tables with lineage.

    Emits one event per task run, as Prefect's engine does for each state; running a real task would
    take longer than most nodes.
    """

    def __init__(self, manifest: Path) -> None:
        self._path = manifest
        self._run_id = flow_run.id and UUID(flow_run.id)

    def show(self, node: DbtNode) -> None:
        """Show an ended node with dbt's own status, message and times."""
        if self._run_id is None:
            return
        state = state_of(node)
        task_run = TaskRun(
            id=uuid7(),
            name=node.name,
            flow_run_id=self._run_id,
            task_key="dbt-node",
            dynamic_key=f"{node.unique_id} {uuid7()}",
            tags=["dbt"],
            run_count=1,
            expected_start_time=node.started_at,
            start_time=node.started_at,
            end_time=node.ended_at,
            total_run_time=node.ended_at - node.started_at,
            state_id=state.id,
            state_type=state.type,
            state_name=state.name,
            state=state,
        )
        state.state_details.flow_run_id = self._run_id
        state.state_details.task_run_id = task_run.id
        emit_task_run_state_change_event(task_run, None, state)
        self._show_table(node, state)

    def _show_table(self, node: DbtNode, state: State[Any]) -> None:
        """Show a built relation as an asset; not for freshness checks or skipped nodes."""
        built = self._manifest["nodes"].get(node.unique_id)
        if built and (asset := self._assets.get(node.unique_id)) and node.status != SKIPPED:
            parents = built["depends_on"].get("nodes", ())  # a seed depends only on macros
            context = AssetContext(
                direct_asset_dependencies={
                    self._assets[parent] for parent in parents if parent in self._assets
                },
                downstream_assets={asset},
                materialized_by="dbt",
            )
            context.emit_events(state)

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        """Read on first use: dbt writes it just before it builds."""
        manifest: dict[str, Any] = json.loads(self._path.read_text())
        return manifest

    @cached_property
    def _assets(self) -> dict[str, Asset]:
        tables = {**self._manifest["nodes"], **self._manifest["sources"]}
        return {
            unique_id: Asset(
                key=asset_key(
                    entry["schema"].removesuffix(AUDIT), entry.get("alias") or entry["identifier"]
                )
            )
            for unique_id, entry in tables.items()
            if entry["resource_type"] in ("model", "source", "seed", "snapshot")
        }


def asset_key(schema: str, relation: str) -> str:
    """The key of a relation as published; Prefect refuses spaces, quotes and `%` in keys."""
    names = (quote(name, safe="").replace("~", "%7E") for name in (schema, relation))
    return f"postgres://{own('warehouse')}/{'/'.join(names)}".replace("%", "~")


def state_of(node: DbtNode) -> State[Any]:
    """The Prefect state for a node's status."""
    kind = StateType.FAILED if outcome_of(node.status) == FAILED else StateType.COMPLETED
    name = node.status.title()
    return State(type=kind, name=name, message=node.message, timestamp=node.ended_at)


def show_summary(summary: Summary) -> None:
    """Create an artifact that shows what was built, why, how long it took, and what failed."""
    seconds = sum(float(node["execution_time"]) for node in summary.results)
    lines = [
        f"{summary.reason} {counted(summary.results)}; {seconds:.1f} s of work.",
        "",
        *_problems(summary),
        "",
        *_slowest_models(summary.results),
    ]
    create_markdown_artifact("\n".join(lines), key=own("dbt-build"))


def _problems(summary: Summary) -> Iterator[str]:
    """List items: the nodes that failed or warned, stale tables, and relations no longer built."""
    for node in summary.results:
        outcome = outcome_of(node["status"])
        if outcome in (FAILED, WARNED):
            yield f"* **{outcome}** {describe(node)}"
            yield from (f"  * `{row}`" for row in summary.failing_rows.get(node["unique_id"], ()))
    yield from (f"* **stale** {table}" for table in freshness.stale(summary.ages, is_bad=True))
    yield from (f"* **late** {table}" for table in freshness.stale(summary.ages, is_bad=False))
    yield from (f"* **no longer built** {relation}" for relation in summary.left_over)


def _slowest_models(results: Sequence[Json]) -> Iterator[str]:
    """A table of the nodes that took longest, without tests."""
    models = [node for node in results if not is_test(node["unique_id"])]
    slowest = sorted(models, key=lambda node: float(node["execution_time"]), reverse=True)
    yield "| model | status | rows | seconds |"
    yield "| --- | --- | --- | --- |"
    for node in slowest[:SHOWN_MODELS]:
        seconds = f"{node['execution_time']:.1f}"
        yield f"| {name_of(node['unique_id'])} | {node['status']} | {_rows(node)} | {seconds} |"


def _rows(node: Json) -> str:
    """Rows written to a table; empty for a view, whose rows dbt does not count."""
    affected = node["adapter_response"].get("rows_affected", -1)
    return str(int(affected)) if affected >= 0 else ""
