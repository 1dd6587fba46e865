"""Writes the files of a new source to disk: all of them, or none.

They are written to a separate folder and moved in two steps: the dbt folder, then the module. The
next run removes what an interrupted run left in either step.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flows.errors import ConfigurationError

DRAFTS = ".new-source"


def module_path(root: Path, name: str) -> Path:
    """The path of a source's module."""
    return root / "flows" / "sources" / f"{name}.py"


def models_path(root: Path, name: str) -> Path:
    """The folder of a source's dbt source and staging models."""
    return root / "dbt_project" / "models" / "staging" / name


def add(root: Path, name: str, module: str, models: Mapping[str, str]) -> list[Path]:
    """Write a source's module, and its dbt files by their names.

    Raises:
        ConfigurationError: when the files exist already, or can't be written; then none of them
            is left.
    """
    with _lock(root):
        _clean(root)
        _check_absent(root, name)
        try:
            _write(root / DRAFTS / name, module, models)
            models_path(root, name).parent.mkdir(parents=True, exist_ok=True)
            (root / DRAFTS / name / "models").rename(models_path(root, name))
            (root / DRAFTS / name / "module.py").rename(module_path(root, name))
        except OSError as error:
            raise ConfigurationError(
                f"The files of {name} could not be written: {error.strerror}. None of them is "
                "left. Make room, or correct the permissions, and run this again."
            ) from error
        finally:
            _clean(root)
    return [module_path(root, name), *(models_path(root, name) / file for file in models)]


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Let one process write at a time, so that no other removes its unfinished files."""
    folder = os.open(root / "flows" / "sources", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _check_absent(root: Path, name: str) -> None:
    module, models = module_path(root, name), models_path(root, name)
    present = [path for path in (module, models) if path.is_file() or _has_files(path)]
    if present:
        raise ConfigurationError(
            f"{present[0].relative_to(root)} exists already. Add the resource to it by hand, or "
            "choose another NAME."
        )


def _has_files(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _write(draft: Path, module: str, models: Mapping[str, str]) -> None:
    """Write the folder before the module: a module without the folder shows that it was moved."""
    (draft / "models").mkdir(parents=True)
    for file, text in models.items():
        (draft / "models" / file).write_text(text, encoding="utf-8")
    (draft / "module.py").write_text(module, encoding="utf-8")


def _clean(root: Path) -> None:
    """Remove incomplete files, including a dbt folder that was moved without its module."""
    drafts = root / DRAFTS
    for draft in drafts.iterdir() if drafts.is_dir() else ():
        if (draft / "module.py").exists() and not (draft / "models").exists():
            shutil.rmtree(models_path(root, draft.name), ignore_errors=True)
        (draft / "module.py").unlink(missing_ok=True)
    shutil.rmtree(drafts, ignore_errors=True)
