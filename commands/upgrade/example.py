"""What the owner has removed of the example stays removed, whatever the pipeline changes in it."""

from collections.abc import Collection
from pathlib import Path

from commands.new_source import deployment
from commands.remove_example import LIST
from commands.upgrade.trees import Tree, Trees

SOURCES = "flows/sources/"
DEPLOYMENTS = str(deployment.PATH)


def removed(trees: Trees) -> frozenset[str]:
    """The example's files to leave out: all of them, new ones too, if no source of it is left."""
    parts = {part for tree in (trees.ours, trees.theirs) for part in _listed(trees, tree)}
    known = {path for path in trees.base if _is_in(path, parts)}
    sources = {path for path in known if path.startswith(SOURCES)}
    if sources and not sources & trees.ours.keys():
        return frozenset(known.union(path for path in trees.theirs if _is_in(path, parts)))
    return frozenset(known - trees.ours.keys())


def without(trees: Trees, removed: Collection[str]) -> Trees:
    """As if the pipeline had never had these files, nor the deployments of such sources."""
    return trees.with_sides(
        _without(trees, trees.base, removed), _without(trees, trees.theirs, removed)
    )


def _listed(trees: Trees, tree: Tree) -> list[str]:
    """Files and folders of the example, by the list of this version."""
    return trees.text(tree, LIST.as_posix()).split()


def _is_in(path: str, parts: Collection[str]) -> bool:
    return any(path == part or path.startswith(f"{part}/") for part in parts)


def _without(trees: Trees, tree: Tree, removed: Collection[str]) -> Tree:
    left = {path: entry for path, entry in tree.items() if path not in removed}
    sources = [Path(path).stem for path in removed if path.startswith(SOURCES)]
    if not sources or DEPLOYMENTS not in left:
        return left
    text = deployment.without_deployments(trees.text(left, DEPLOYMENTS), sources)
    return trees.with_text(left, DEPLOYMENTS, text)
