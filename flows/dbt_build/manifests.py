"""Manifests of dbt: where each model is to be read, and what is published of which version."""

from collections.abc import Collection, Mapping
from typing import Any

from flows.dbt_build.publish import Name, Relation

Json = Mapping[str, Any]
Node = Mapping[str, Any]

_RELATIONS = (
    "model",
    "seed",
    "snapshot",
)  # what is built in the audit schemas and moved from there


def _in_production(node: Node, suffix: str) -> Node:
    """The node as it is where it was published: without the suffix of its schema."""
    schema = str(node["schema"])
    name = node.get("relation_name")
    return {
        **node,
        "schema": schema.removesuffix(suffix),
        "relation_name": name and name.replace(f'"{schema}".', f'"{schema.removesuffix(suffix)}".'),
    }


def after_publishing(
    new: Json,
    old: Json | None,
    built: Collection[str],
    suffix: str,
    left_over: Mapping[str, Node],
) -> Json:
    """The manifest of all that is published: what was built as it is now, the rest as it was.

    What was left out of the build stays as it was, or away; what is `left_over` stays.
    """
    before = old["nodes"] if old else {}
    nodes = {
        unique_id: _in_production(node, suffix) if unique_id in built else before[unique_id]
        for unique_id, node in new["nodes"].items()
        if unique_id in built or unique_id in before
    }
    return {**new, "nodes": {**left_over, **nodes}}


def no_longer_built(new: Json, old: Json | None, suffix: str) -> dict[str, Node]:
    """What was published and has left the project, by its id; its relation may still be there."""
    places = {
        (node["schema"].removesuffix(suffix), node["alias"]) for node in new["nodes"].values()
    }
    return {
        unique_id: node
        for unique_id, node in (old["nodes"] if old else {}).items()
        if unique_id not in new["nodes"]
        and _is_moved(node)
        and (node["schema"], node["alias"]) not in places
    }


def relations(
    manifest: Json, built: Collection[str], suffix: str, full_refresh: bool
) -> list[Relation]:
    """What a build made and where it goes.

    What an incremental model replaces is kept to go on with, unless the model may have changed.
    """
    return [
        Relation(
            Name(node["schema"], node["alias"]),
            Name(node["schema"].removesuffix(suffix), node["alias"]),
            is_kept=_is_incremental(node) and not full_refresh,
        )
        for unique_id, node in manifest["nodes"].items()
        if unique_id in built and _is_moved(node)
    ]


def _is_moved(node: Node) -> bool:
    return node["resource_type"] in _RELATIONS and node["config"]["materialized"] != "ephemeral"


def _is_incremental(node: Node) -> bool:
    return bool(node["config"]["materialized"] == "incremental")


def incremental(published: Json | None, suffix: str) -> list[Name]:
    """Where incremental models find the table that they go on with."""
    return [
        Name(f"{node['schema']}{suffix}", node["alias"])
        for node in (published["nodes"].values() if published else ())
        if node["resource_type"] in _RELATIONS and _is_incremental(node)
    ]


def to_resume(published: Json | None, audited: Json, done: set[str]) -> Json:
    """A state in which what an earlier attempt built is read where that attempt built it."""
    before = published["nodes"] if published else {}
    built = {unique_id: audited["nodes"][unique_id] for unique_id in done & audited["nodes"].keys()}
    return {**audited, "nodes": {**before, **built}}
