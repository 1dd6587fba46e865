"""`make upgrade`: merge a later version of the pipeline into a clone with its own sources."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from commands.remove_example import ROOT
from commands.repository import Repository
from commands.upgrade import changelog, example, locks, trees
from commands.upgrade.merge import merge, statistics
from commands.upgrade.trees import Trees
from commands.upgrade.versions import Versions, address, between, fetch, remember
from flows.errors import EltError


def main(arguments: Sequence[str] | None = None) -> int:
    """Upgrade, or print the reason and change nothing; 1 also where conflicts are left."""
    parser = argparse.ArgumentParser(prog="make upgrade", description=__doc__)
    parser.add_argument("--from", dest="address", default="", help="a URL, path or git remote")
    parser.add_argument("--to", default="", help="a tag or branch; by default the main branch")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to change")
    given = parser.parse_args(arguments)
    try:
        return upgrade(Repository(given.root), given.address, given.to)
    except EltError as error:
        print(f"FAILED: {error}")
        return 1


def upgrade(repository: Repository, given: str, to: str) -> int:
    """Fetch, merge and report; 1 if conflicts are left.

    Raises:
        ConfigurationError: with the remedy; the working tree is then as before.
    """
    repository.check_committed()
    source = address(repository, given)
    print(f"Fetching {to or 'the main branch'} from {source} ...", flush=True)
    versions = fetch(repository, source, to)
    remember(repository, source)
    if not versions.is_newer:
        print("This clone has all of it: there is nothing to upgrade.")
        return 0
    print(between(repository, versions))
    name = f"{to} ({versions.theirs[:10]})" if to else versions.theirs[:10]
    return _merge(trees.read(repository, versions), versions, f"Upgrade the pipeline to {name}")


def _merge(sides: Trees, versions: Versions, message: str) -> int:
    texts = (sides.text(tree, changelog.PATH) for tree in (sides.base, sides.theirs))
    news = changelog.new_entries(*texts)
    gone = example.removed(sides)
    inputs = locks.changed_inputs(sides)
    left = merge(locks.resolved(example.without(sides, gone), inputs), versions, message)
    print(f"Merged{statistics(sides.repository, left)}.")
    if gone:
        print("What you removed of the example stays removed.")
    if news:
        print(f"\nNew in {changelog.PATH}, with what you have to do:\n\n{news}")
    print(
        "\n".join([*_conflicts(left), "", "Next:", *(f"  {step}" for step in _next(left, inputs))])
    )
    return 1 if left else 0


def _conflicts(left: Mapping[str, str]) -> list[str]:
    if not left:
        return []
    lines = [f"  {path}: {remedy}" for path, remedy in left.items()]
    undo = "`git merge --abort` brings everything back as it was."
    return ["", f"Conflicts in {len(left)} file(s):", *lines, undo]


def _next(left: Mapping[str, str], inputs: Sequence[str]) -> list[str]:
    steps = ["git commit"] if left else []
    if inputs:
        steps.append(f"make lock && git commit -a    # you have changed {', '.join(inputs)}")
    return [*steps, "make check", "make deploy-plan"]


if __name__ == "__main__":
    sys.exit(main())
