"""Manifests of dbt: where each model is to be read, and what is published of which version."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from flows.dbt_build.publish import SCHEMA, Relation, RelationName
from flows.errors import ConfigurationError

Json = Mapping[str, Any]
ManifestNode = Mapping[str, Any]

_RELATIONS = (
    "model",
    "seed",
    "snapshot",
)  # what is built in the audit schemas and moved from there


def _in_production(node: ManifestNode, suffix: str) -> ManifestNode:
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
    left_over: Mapping[str, ManifestNode],
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


def no_longer_built(new: Json, old: Json | None, suffix: str) -> dict[str, ManifestNode]:
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


def relations(manifest: Json, built: Collection[str], suffix: str) -> list[Relation]:
    """What a build made and where it goes."""
    return [
        _relation(node, suffix)
        for unique_id, node in manifest["nodes"].items()
        if unique_id in built and _is_moved(node)
    ]


def to_copy(
    new: Json, old: Json | None, selected: Collection[str], suffix: str, full_refresh: bool
) -> list[Relation]:
    """What a build adds to, rather than making it from nothing.

    An incremental model adds to what a build published. A snapshot adds to whatever is there: what
    replaces history must hold all of it.
    """
    nodes = [node for unique_id, node in new["nodes"].items() if unique_id in selected]
    published = published_relations(old)
    incremental = [
        relation
        for node in nodes
        if _is_incremental(node) and not _is_built_anew(node, full_refresh)
        if (relation := _relation(node, suffix)).published in published
    ]
    snapshots = [_relation(node, suffix) for node in nodes if node["resource_type"] == "snapshot"]
    return incremental + snapshots


def to_make(manifest: Json, selected: Iterable[str], suffix: str) -> list[RelationName]:
    """The relations that dbt makes of the selected nodes; the rows of failed tests are some, too.

    Raises:
        ConfigurationError: when one of them would not be where builds work, or would be published
            among raw tables or our own.
    """
    nodes = manifest["nodes"]
    made = [nodes[each] for each in selected if each in nodes and _makes_a_relation(nodes[each])]
    for node in made:
        _refuse_wrong_schema(node, suffix)
    return [RelationName(node["schema"], node["alias"]) for node in made]


def published_relations(published: Json | None) -> set[RelationName]:
    """The relations that builds published, and that no later one has forgotten."""
    nodes = published["nodes"].values() if published else ()
    return {RelationName(node["schema"], node["alias"]) for node in nodes if _is_moved(node)}


def made_before(manifests: Iterable[Json], suffix: str) -> set[RelationName]:
    """The relations of that suffix that builds of these manifests made or left."""
    return {
        RelationName(node["schema"].removesuffix(suffix) + suffix, node["alias"])
        for manifest in manifests
        for node in manifest["nodes"].values()
        if _makes_a_relation(node) and not _is_reserved(node["schema"])
    }


def _makes_a_relation(node: ManifestNode) -> bool:
    return bool(_is_moved(node) or node.get("relation_name"))


def _refuse_wrong_schema(node: ManifestNode, suffix: str) -> None:
    schema = str(node["schema"])
    if not schema.endswith(suffix):
        raise ConfigurationError(
            f"dbt would build {node['unique_id']} in schema {schema}, outside of *{suffix}, where "
            "builds work. Give it a custom schema, and keep the macro generate_schema_name as it "
            "is (dbt_project/macros)."
        )
    if _is_reserved(schema.removesuffix(suffix)):
        raise ConfigurationError(
            f"dbt would build {node['unique_id']} for schema {schema.removesuffix(suffix)}, which "
            "holds what loads and builds write. Give it another custom schema."
        )


def _is_reserved(schema: str) -> bool:
    return schema.startswith("raw_") or schema in ("elt", SCHEMA)


def _relation(node: ManifestNode, suffix: str) -> Relation:
    schema, name = node["schema"], node["alias"]
    return Relation(RelationName(schema, name), RelationName(schema.removesuffix(suffix), name))


def _is_moved(node: ManifestNode) -> bool:
    return node["resource_type"] in _RELATIONS and node["config"]["materialized"] != "ephemeral"


def _is_incremental(node: ManifestNode) -> bool:
    return bool(node["config"]["materialized"] == "incremental")


def _is_built_anew(node: ManifestNode, full_refresh: bool) -> bool:
    """Whether dbt builds an incremental model from all rows; its own setting comes first."""
    own = node["config"].get("full_refresh")
    return full_refresh if own is None else bool(own)


def to_resume(published: Json | None, audited: Json, done: set[str]) -> Json:
    """A state in which what an earlier attempt built is read where that attempt built it."""
    before = published["nodes"] if published else {}
    built = {unique_id: audited["nodes"][unique_id] for unique_id in done & audited["nodes"].keys()}
    return {**audited, "nodes": {**before, **built}}
