"""dbt's manifests: where each node is read from, and which version of it is published."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from flows.dbt_build.publish import SCHEMA, Made, Relation, RelationName
from flows.errors import ConfigurationError

Json = Mapping[str, Any]
ManifestNode = Mapping[str, Any]

MADE = "made"  # our key in published nodes: what builds attached to the relation
_RELATIONS = ("model", "seed", "snapshot")  # built in audit schemas, then moved


def _in_production(node: ManifestNode, suffix: str) -> ManifestNode:
    """The node as published: without the suffix of its schema."""
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
    made: Made,
) -> Json:
    """The manifest of everything published: built nodes as they are now, the others as before.

    Excluded nodes keep their published entry, if any; `left_over` nodes are kept. Each built node
    contains what the build attached to its relation.
    """
    before = old["nodes"] if old else {}
    nodes = {
        unique_id: _as_published(node, suffix, made)
        if unique_id in built or _is_ephemeral(node)
        else before[unique_id]
        for unique_id, node in new["nodes"].items()
        if unique_id in built or unique_id in before or _is_ephemeral(node)
    }
    return {**new, "nodes": {**left_over, **nodes}}


def _as_published(node: ManifestNode, suffix: str, made: Made) -> ManifestNode:
    keys = made.get(_relation(node, suffix).published, frozenset())
    return {**_in_production(node, suffix), MADE: sorted(keys)}


def no_longer_built(
    new: Json, old: Json | None, built: Collection[str], suffix: str
) -> dict[str, ManifestNode]:
    """Published nodes whose relation the project no longer builds; it may still exist.

    By id; a node that has moved to another schema or name, or has become ephemeral, has another
    key, because its id belongs to what it is now.
    """
    nodes = new["nodes"]
    places = {_relation(node, suffix).published for node in nodes.values() if _is_moved(node)}
    return {
        f"{unique_id}@{node['schema']}.{node['alias']}" if unique_id in nodes else unique_id: node
        for unique_id, node in (old["nodes"] if old else {}).items()
        if unique_id not in nodes or unique_id in built or _is_ephemeral(nodes[unique_id])
        if _is_moved(node) and _relation(node, suffix).published not in places
    }


def relations(
    manifest: Json,
    built: Collection[str],
    suffix: str,
    copied: Collection[RelationName] = (),
) -> list[Relation]:
    """The relations that a build made, and where to publish them; which were copied before."""
    made = [
        _relation(node, suffix)
        for unique_id, node in manifest["nodes"].items()
        if unique_id in built and _is_moved(node)
    ]
    return [replace(each, is_copy=each.published in copied) for each in made]


def to_copy(
    new: Json, old: Json | None, selected: Collection[str], suffix: str, full_refresh: bool
) -> list[Relation]:
    """Relations to copy from their published schema before the build adds to them.

    Incremental models only if a build published them. Snapshots always, because the new version
    must contain the whole history.
    """
    nodes = [node for unique_id, node in new["nodes"].items() if unique_id in selected]
    published = published_relations(old)
    incremental = [
        relation
        for node in nodes
        if _is_incremental(node) and not _is_full_refresh(node, full_refresh)
        if (relation := _relation(node, suffix)).published in published
    ]
    snapshots = [_relation(node, suffix) for node in nodes if node["resource_type"] == "snapshot"]
    return incremental + snapshots


def to_make(manifest: Json, selected: Iterable[str], suffix: str) -> list[RelationName]:
    """The relations that dbt makes for the selected nodes, including tables of failed tests.

    Raises:
        ConfigurationError: when one would be outside of the audit schemas, or would be published
            to a raw schema, `elt` or `dbt`.
    """
    nodes = manifest["nodes"]
    made = [nodes[each] for each in selected if each in nodes and _makes_a_relation(nodes[each])]
    for node in made:
        _refuse_wrong_schema(node, suffix)
    return [RelationName(node["schema"], node["alias"]) for node in made]


def published_relations(published: Json | None) -> Made:
    """The relations that builds published, and what these attached to them."""
    nodes = published["nodes"].values() if published else ()
    return {
        RelationName(node["schema"], node["alias"]): frozenset(node.get(MADE, ()))
        for node in nodes
        if _is_moved(node)
    }


def large_seeds(published: Json | None) -> list[str]:
    """The names of published seeds whose checksum is of their path: those of more than 1 MiB."""
    return [
        node["name"]
        for node in (published["nodes"].values() if published else ())
        if node["resource_type"] == "seed" and node["checksum"]["name"] == "path"
    ]


def made_before(manifests: Iterable[Json], suffix: str) -> set[RelationName]:
    """The relations that builds with these manifests may have made in schemas with that suffix."""
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
            "builds work. Give it a custom schema, and do not change the macro "
            "generate_schema_name (dbt_project/macros)."
        )
    if _is_reserved(schema.removesuffix(suffix)):
        raise ConfigurationError(
            f"dbt would build {node['unique_id']} for schema {schema.removesuffix(suffix)}, which "
            "is reserved for loads and builds. Give it another custom schema."
        )


def _is_reserved(schema: str) -> bool:
    return schema.startswith("raw_") or schema in ("elt", SCHEMA)


def _relation(node: ManifestNode, suffix: str) -> Relation:
    schema, name = node["schema"], node["alias"]
    return Relation(RelationName(schema, name), RelationName(schema.removesuffix(suffix), name))


def _is_moved(node: ManifestNode) -> bool:
    return node["resource_type"] in _RELATIONS and not _is_ephemeral(node)


def _is_ephemeral(node: ManifestNode) -> bool:
    return bool(node["config"].get("materialized") == "ephemeral")


def _is_incremental(node: ManifestNode) -> bool:
    return bool(node["config"]["materialized"] == "incremental")


def _is_full_refresh(node: ManifestNode, full_refresh: bool) -> bool:
    """Whether dbt builds an incremental model from all rows; the model's setting wins."""
    own = node["config"].get("full_refresh")
    return full_refresh if own is None else bool(own)


def to_resume(published: Json | None, audited: Json, done: set[str]) -> Json:
    """A state manifest that makes dbt read the nodes an earlier attempt built from its schemas."""
    before = published["nodes"] if published else {}
    built = {unique_id: audited["nodes"][unique_id] for unique_id in done & audited["nodes"].keys()}
    return {**audited, "nodes": {**before, **built}}
