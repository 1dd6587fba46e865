"""Merges trees into the clone, and says which conflicts are left."""

from collections.abc import Mapping

from commands.repository import Repository, failed
from commands.upgrade.trees import Trees
from commands.upgrade.versions import Versions

EDIT = "changed by both. Edit it, then `git add {path}`."
GONE_HERE = "deleted by you, changed by the pipeline. `git rm {path}`, or `git add {path}`."
GONE_THERE = "changed by you, deleted by the pipeline. `git rm {path}`, or `git add {path}`."
MOVED = "moved. `git add {path}` if it belongs here, or `git rm {path}`."
# By the two letters of `git status --porcelain`.
REMEDIES = {
    "UU": EDIT,
    "AA": EDIT,
    "DU": GONE_HERE,
    "UD": GONE_THERE,
    "AU": MOVED,
    "UA": MOVED,
    "DD": MOVED,
}


def merge(trees: Trees, versions: Versions, message: str) -> dict[str, str]:
    """Merge and commit; where there are conflicts, leave the commit open.

    The merge commit has the pipeline's commit as a parent, so the next upgrade begins there. What
    git applies is the difference of two other trees, hence no plain `git merge`.

    Returns:
        What to do for each file in conflict.

    Raises:
        ConfigurationError: when git fails; the working tree is then as before.
    """
    repository = trees.repository
    change = trees.commit(message)
    opened = ("--quiet", "--strategy=ours", "--no-commit", "--no-ff", "-m", message)
    repository.git("merge", *opened, versions.theirs)
    try:
        applied = repository.attempt("cherry-pick", "--no-commit", change)
        left = conflicts(repository)
        if applied.returncode and not left:
            raise failed(applied)
        if not left:
            repository.git("commit", "--quiet", "-m", message)
    except BaseException:
        repository.git("merge", "--abort")
        raise
    return left


def conflicts(repository: Repository) -> dict[str, str]:
    """What to do, by file."""
    lines = repository.git("status", "--porcelain", "-z", "--no-renames").split("\0")
    found = ((line[:2], line[3:]) for line in lines)
    return {path: REMEDIES[state].format(path=path) for state, path in found if state in REMEDIES}


def statistics(repository: Repository, left: Mapping[str, str]) -> str:
    """How many files and lines the merge changed, while it is open or after its commit."""
    counted = repository.git("diff", "--shortstat", "HEAD" if left else "HEAD^").rstrip()
    return f":{counted}" if counted else ": no file changed"
