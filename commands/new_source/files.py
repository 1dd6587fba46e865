"""Writes the files of a source to disk, new and changed ones: all of them, or none.

What they replace is kept until all are written. The next run takes back what an interrupted run
left, except for files that somebody has edited since.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.errors import ConfigurationError

DRAFTS = ".new-source"
# The drafts are complete under this name; a kill before that has changed nothing.
READY = "ready"


@dataclass(frozen=True)
class Change:
    """A file to write.

    Attributes:
        path: relative to the repository.
        before: its content until now; None for a file that does not exist.
    """

    path: Path
    before: bytes | None
    after: bytes


def module_path(name: str) -> Path:
    """The path of a source's module, relative to the repository."""
    return Path("flows", "sources", f"{name}.py")


def models_path(name: str) -> Path:
    """The folder of a source's dbt source and staging models, relative to the repository."""
    return Path("dbt_project", "models", "staging", name)


def content(path: Path) -> bytes | None:
    """The content of a file; None if there is none."""
    return path.read_bytes() if path.is_file() else None


def write(root: Path, changes: Sequence[Change]) -> list[Path]:
    """Make the changes.

    Raises:
        ConfigurationError: when a file has another content than expected, or can't be written;
            then none of them is changed.
    """
    with _lock(root):
        _undo(root)
        _check_before(root, changes)
        try:
            _prepare(root, changes)
            for number, change in enumerate(changes):
                (root / change.path).parent.mkdir(parents=True, exist_ok=True)
                (root / DRAFTS / READY / f"{number}.after").rename(root / change.path)
            # From here on there is nothing to take back.
            (root / DRAFTS / READY).rename(root / DRAFTS / "done")
        except OSError as error:
            raise ConfigurationError(
                f"{changes[0].path} and the other files could not be written: {error.strerror}. "
                "None of them is left. Make room, or correct the permissions, and run this again."
            ) from error
        finally:
            _undo(root)
    return [root / change.path for change in changes]


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Let one process write at a time, so that no other removes its unfinished files."""
    folder = os.open(root / "flows" / "sources", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _check_before(root: Path, changes: Sequence[Change]) -> None:
    for change in changes:
        found = content(root / change.path)
        if change.before is None and found is not None:
            raise ConfigurationError(
                f"{change.path} exists already. Delete it, or choose another NAME."
            )
        if found != change.before:
            raise ConfigurationError(f"{change.path} was changed meanwhile. Run this again.")


def _prepare(root: Path, changes: Sequence[Change]) -> None:
    """Write all drafts, and what is needed to take them back, under the name `READY`."""
    draft = root / DRAFTS / "draft"
    draft.mkdir(parents=True)
    for number, change in enumerate(changes):
        (draft / f"{number}.path").write_text(str(change.path), encoding="utf-8")
        (draft / f"{number}.after").write_bytes(change.after)
        # A second copy: the first one is moved.
        (draft / f"{number}.written").write_bytes(change.after)
        if change.before is not None:
            (draft / f"{number}.before").write_bytes(change.before)
    draft.rename(root / DRAFTS / READY)


def _undo(root: Path) -> None:
    """Take back what an interrupted run has written, and remove its drafts."""
    ready = root / DRAFTS / READY
    for note in ready.glob("*.path") if ready.is_dir() else ():
        path = root / note.read_text(encoding="utf-8")
        if content(path) == note.with_suffix(".written").read_bytes():
            if note.with_suffix(".before").exists():
                note.with_suffix(".before").rename(path)
            else:
                path.unlink()
        if path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()
    shutil.rmtree(root / DRAFTS, ignore_errors=True)
