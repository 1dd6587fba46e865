"""Locks are generated from requirements*.in: no line of theirs is the owner's to decide about."""

import tempfile
from collections.abc import Collection
from pathlib import Path

from commands.upgrade.trees import Trees


def changed_inputs(trees: Trees) -> list[str]:
    """The requirements*.in that the owner has changed or added."""
    inputs = (path for path in sorted(trees.ours) if _is_requirements(path, ".in"))
    return [path for path in inputs if trees.ours[path] != trees.base.get(path)]


def resolved(trees: Trees, inputs: Collection[str]) -> Trees:
    """Locks that both sides changed are the pipeline's.

    If the owner changed inputs, their packages stay in the locks, for `make lock` to begin with.
    """
    base, theirs = dict(trees.base), dict(trees.theirs)
    for path in trees.theirs:
        if _is_requirements(path, ".txt") and _is_changed_by_both(trees, path):
            if inputs:
                theirs = trees.with_text(theirs, path, _union(trees, path))
            base[path] = trees.ours[path]
    return trees.with_sides(base, theirs)


def _is_requirements(path: str, suffix: str) -> bool:
    return path.startswith("requirements") and path.endswith(suffix) and "/" not in path


def _is_changed_by_both(trees: Trees, path: str) -> bool:
    entries = [tree.get(path) for tree in (trees.base, trees.ours, trees.theirs)]
    return None not in entries and len(set(entries)) == len(entries)


def _union(trees: Trees, path: str) -> str:
    """The changes of both sides; where both changed the same lines, those of the pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("ours", "base", "theirs")]
        for file, tree in zip(files, (trees.ours, trees.base, trees.theirs), strict=True):
            file.write_text(trees.text(tree, path), encoding="utf-8", newline="")
        return trees.repository.git("merge-file", "-p", "--theirs", *map(str, files))
