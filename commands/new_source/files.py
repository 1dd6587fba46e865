"""The files of a new source on the disk: all of them, or none.

They are written in a folder beside and moved in two steps: the dbt folder, then the module. What an
interrupted run left, in either step, the next one removes.
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
    """Where a source is declared."""
    return root / "flows" / "sources" / f"{name}.py"


def models_path(root: Path, name: str) -> Path:
    """Where its dbt source and staging models are."""
    return root / "dbt_project" / "models" / "staging" / name


def add(root: Path, name: str, module: str, models: Mapping[str, str]) -> list[Path]:
    """Write a source's module, and its dbt files by their names.

    Raises:
        ConfigurationError: when there are such files already, or the disk does not take them;
            nothing is left of them then.
    """
    with _alone(root):
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
def _alone(root: Path) -> Iterator[None]:
    """Let one process at a time write, so that none removes what another is writing."""
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
            f"{present[0].relative_to(root)} is there already. Add the resource to it by hand, or "
            "choose another NAME."
        )


def _has_files(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def _write(draft: Path, module: str, models: Mapping[str, str]) -> None:
    """The folder comes before the module: a module without a folder shows that it was moved."""
    (draft / "models").mkdir(parents=True)
    for file, text in models.items():
        (draft / "models" / file).write_text(text, encoding="utf-8")
    (draft / "module.py").write_text(module, encoding="utf-8")


def _clean(root: Path) -> None:
    """Remove what is not complete; a folder that was moved in without its module, too."""
    drafts = root / DRAFTS
    for draft in drafts.iterdir() if drafts.is_dir() else ():
        if (draft / "module.py").exists() and not (draft / "models").exists():
            shutil.rmtree(models_path(root, draft.name), ignore_errors=True)
        (draft / "module.py").unlink(missing_ok=True)
    shutil.rmtree(drafts, ignore_errors=True)
