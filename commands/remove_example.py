"""`make remove-example`: removes the example from a clone, so that its owner starts with nothing.

What the pipeline needs stays: the models of the ledger, the macros, and the tests of the engine.
"""

import argparse
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from commands.new_source import deployment
from commands.repository import Repository
from flows.errors import ConfigurationError, EltError

ROOT = Path(__file__).resolve().parents[1]
DBT = Path("dbt_project")
# Files, and folders of recorded answers. `make upgrade` reads the list of other versions as well.
LIST = Path("commands", "example.txt")
PARTS = tuple(map(Path, (ROOT / LIST).read_text(encoding="utf-8").split()))
SOURCES = tuple(part.stem for part in PARTS if part.parent == Path("flows", "sources"))
READS = re.compile(r"""\b(?:ref|source)\(\s*['"](\w+)['"]""")
NEXT = """
README.md and the examples in docs/ still speak of it: they are yours to change.
What it loaded stays in the databases; `make deploy` takes its deployments from the server.

Next:
  git add -A && git commit -m "Remove the example"
  make new-source NAME=shop URL=https://api.example.com/v2/orders"""


def main() -> int:
    """Remove all of it, or print the reason and remove nothing."""
    parser = argparse.ArgumentParser(prog="make remove-example", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to change")
    root = parser.parse_args().root
    try:
        removed = remove(root)
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    print("Removed:\n" + "\n".join(f"  {each}" for each in removed) + f"\n{NEXT}")
    return 0


def remove(root: Path) -> list[str]:
    """Remove the example; returns what it removed.

    Raises:
        ConfigurationError: when there is none, something is not committed, or the owner's models
            need those of the example.
    """
    present = [part for part in PARTS if (root / part).exists()]
    if not present:
        raise ConfigurationError("There is no example here any more. Next: make new-source")
    Repository(root).check_committed()
    _check_unused(root, present)
    file = root / deployment.PATH
    before = file.read_text(encoding="utf-8")
    after = deployment.without_deployments(before, SOURCES)
    for part in present:
        if (root / part).is_dir():
            shutil.rmtree(root / part)
        else:
            (root / part).unlink()
    _remove_empty(root, present)
    file.write_text(after, encoding="utf-8")
    files = Counter(str(part.parent) for part in present)
    names = [f"{count} of {folder}" for folder, count in files.items()]
    return names if after == before else [*names, f"its deployments in {deployment.PATH}"]


def _check_unused(root: Path, present: Sequence[Path]) -> None:
    """Refuse to remove a model, or its description, that files of the owner's need."""
    gone = {file for part in present for file in _files(root / part)}
    names = {*SOURCES, *(file.stem for file in gone if file.suffix == ".sql")}
    names |= {name for file in gone for name in re.findall(r"- name: (snp_\w+)", _text(file))}
    kept = set(_files(root / DBT)) - gone
    beside = {root / part.parent for part in present if part.name.endswith("__models.yml")}
    for file in sorted(kept):
        path = file.relative_to(root)
        if used := sorted(names.intersection(READS.findall(_text(file)))):
            raise ConfigurationError(
                f"{path} reads {', '.join(used)} of the example. Change or delete it, commit, and "
                "run this again."
            )
        if file.parent in beside:
            raise ConfigurationError(
                f"{path} is in a folder whose descriptions belong to the example. Move it and its "
                "description to another folder or file, commit, and run this again."
            )


def _files(path: Path) -> Iterator[Path]:
    """The files of dbt at a path, which may be one."""
    found = path.rglob("*") if path.is_dir() else [path]
    built = ("target", "logs")
    yield from (
        file
        for file in found
        if file.suffix in (".sql", ".yml") and not set(built) & set(file.parts)
    )


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _remove_empty(root: Path, removed: Sequence[Path]) -> None:
    """Remove the folders that held nothing else; git does not keep them either."""
    for folder in {root / part.parent for part in removed}:
        if all(entry.name == "__pycache__" for entry in folder.iterdir()):
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
