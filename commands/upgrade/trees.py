"""The files of the three commits that a merge is about, as git stores them."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from commands.repository import Repository
from commands.upgrade.versions import Versions

# Each path with its mode, type and hash, as `git ls-tree` prints them.
Tree = dict[str, str]


@dataclass(frozen=True)
class Trees:
    """The sides of a merge: the common version, what the clone has, and the pipeline's."""

    repository: Repository
    base: Tree
    ours: Tree
    theirs: Tree

    def text(self, tree: Tree, path: str) -> str:
        """A file's content; empty if there is no such file."""
        return (
            self.repository.git("cat-file", "blob", tree[path].split()[2]) if path in tree else ""
        )

    def with_text(self, tree: Tree, path: str, text: str) -> Tree:
        """A copy of the tree in which a file that is there has this content."""
        mode, kind, _ = tree[path].split()
        written = self.repository.git("hash-object", "-w", "--stdin", given=text).strip()
        return {**tree, path: f"{mode} {kind} {written}"}

    def with_sides(self, base: Tree, theirs: Tree) -> "Trees":
        """The same with another change of the pipeline's to merge."""
        return replace(self, base=base, theirs=theirs)

    def commit(self, message: str) -> str:
        """Store a commit that changes `base` to `theirs`; returns its hash."""
        base = self.repository.git("commit-tree", "-m", message, self._written(self.base)).strip()
        tree = self._written(self.theirs)
        return self.repository.git("commit-tree", "-p", base, "-m", message, tree).strip()

    def _written(self, tree: Tree) -> str:
        lines = "".join(f"{entry}\t{path}\0" for path, entry in tree.items())
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder, "index")
            self.repository.git("update-index", "-z", "--index-info", given=lines, index=index)
            return self.repository.git("write-tree", index=index).strip()


def read(repository: Repository, versions: Versions) -> Trees:
    """The files of the common commit, the clone's newest one, and the pipeline's."""
    commits = (versions.base, "HEAD", versions.theirs)
    return Trees(repository, *(_read(repository, commit) for commit in commits))


def _read(repository: Repository, commit: str) -> Tree:
    listed = repository.git("ls-tree", "-r", "-z", commit).split("\0")
    pairs = (line.split("\t", 1) for line in listed if line)
    return {path: entry for entry, path in pairs}
