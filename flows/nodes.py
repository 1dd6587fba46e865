"""dbt's nodes as Prefect shows them: a task run each, tables with their lineage, and a summary.

Knows dbt's artifacts and events, and nothing of how dbt is run.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.assets import Asset, materialize
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

OUTCOMES = {
    "success": "passed",
    "pass": "passed",
    "warn": "warned",
    "error": "failed",
    "fail": "failed",
    "runtime error": "failed",
    "skipped": "skipped",
    "no-op": "skipped",
}
SHOWN_FAILURES = 10
SHOWN_MODELS = 10


@dataclass(frozen=True)
class Node:
    """A dbt node that has ended: pass, success, warn, fail, error, skipped."""

    unique_id: str
    name: str
    status: str
    message: str


def node_of(data: Mapping[str, Any]) -> Node:
    """The node of dbt's event `NodeFinished`."""
    info, result = data["node_info"], data["run_result"]
    return Node(
        unique_id=info["unique_id"],
        name=f"{info['resource_type']} {info['node_name']}",
        status=result["status"],
        message=" ".join(result["message"].split()),
    )


class Lineage:
    """Which tables a model makes, and of which; dbt writes its manifest before it builds."""

    def __init__(self, manifest: Path) -> None:
        self._path = manifest

    def show(self, node: Node) -> None:
        """Show an ended node as a task run with dbt's own status and message."""
        asset = self._assets.get(node.unique_id)
        options: dict[str, Any] = {
            "name": "dbt-node",
            "task_run_name": node.name,
            "cache_policy": NO_CACHE,
            "retries": 0,
        }
        if asset is None:
            task(**options)(mirror)(node, return_state=True)
            return
        parents = self._manifest["nodes"][node.unique_id]["depends_on"]["nodes"]
        sources: list[str | Asset] = [
            self._assets[parent] for parent in parents if parent in self._assets
        ]
        materialize(asset, by="dbt", asset_deps=sources, **options)(mirror)(node, return_state=True)

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(self._path.read_text())
        return manifest

    @cached_property
    def _assets(self) -> dict[str, Asset]:
        tables = {**self._manifest["nodes"], **self._manifest["sources"]}
        return {
            unique_id: Asset(
                key=f"postgres://warehouse/{entry['schema']}/"
                f"{entry.get('alias') or entry['identifier']}"
            )
            for unique_id, entry in tables.items()
            if entry["resource_type"] in ("model", "source", "seed", "snapshot")
        }


def mirror(node: Node) -> State[Any]:
    """One dbt node, after it has ended."""
    if OUTCOMES.get(node.status) == "failed":
        return Failed(name=node.status.title(), message=node.message)
    return Completed(name=node.status.title(), message=node.message)


def counted(results: Sequence[Mapping[str, Any]]) -> str:
    """`3 passed, 0 warned, …` of what dbt's run_results.json lists."""
    counts = Counter(OUTCOMES.get(node["status"], node["status"]) for node in results)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in dict.fromkeys(OUTCOMES.values()))


def failed(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What dbt says of each node that failed, the first ten."""
    bad = [node for node in results if OUTCOMES.get(node["status"]) == "failed"]
    return [_complaint(node) for node in bad[:SHOWN_FAILURES]]


def _complaint(node: Mapping[str, Any]) -> str:
    kind, _, name = node["unique_id"].split(".")[:3]
    return f"{kind} {name}: {' '.join((node['message'] or '').split())}"


def show_summary(results: Sequence[Mapping[str, Any]], built: str) -> None:
    """An artifact that says what was built, of what, how long it took, and what failed."""
    models = [node for node in results if node["unique_id"].startswith("model.")]
    slowest = sorted(models, key=lambda node: float(node["execution_time"]), reverse=True)
    lines = [
        f"Built what depends on {built}: {counted(results)}.",
        "",
        *(f"* **failed** {complaint}" for complaint in failed(results)),
        "",
        "| model | status | seconds |",
        "| --- | --- | --- |",
        *(
            f"| {node['unique_id'].rpartition('.')[2]} | {node['status']}"
            f" | {node['execution_time']:.1f} |"
            for node in slowest[:SHOWN_MODELS]
        ),
    ]
    create_markdown_artifact("\n".join(lines), key="dbt-build")
