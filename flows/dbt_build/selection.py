"""What a build builds, and why: read from what the loads changed and what was built before.

Pure: knows dbt's selectors and nothing of how they are run.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.dbt_build.history import Build, RawTable

LEDGER = "source:elt+"  # every load changes it: it is part of every build, and no cause of one
CHANGED_CODE = "state:modified+"
DONE = ("success", "pass", "warn", "no-op")
_NO_CODE = ("target", "logs", "dbt_packages")


@dataclass(frozen=True)
class Selection:
    """What one build builds.

    Attributes:
        built: the raw tables all of whose descendants are up to date once it is published.
        left_out: raw tables that are not there in full; nothing that depends on them is built.
        select: dbt's selectors; none of them means everything.
        reason: a sentence for people.
        full_refresh: build incremental models anew from all rows.
        resumes: the failed build whose failed and skipped nodes alone are built.
    """

    built: tuple[RawTable, ...]
    left_out: tuple[RawTable, ...]
    select: tuple[str, ...]
    reason: str
    full_refresh: bool = False
    resumes: Build | None = None

    def nodes(self) -> list[str]:
        """The selected nodes as arguments of any dbt command."""
        arguments = ["--select", *self.select] if self.select else []
        if self.left_out:
            arguments += ["--exclude", *(_descendants(table) for table in self.left_out)]
        return arguments

    def arguments(self) -> list[str]:
        """The selection as arguments of `dbt build`."""
        return [*self.nodes(), *(["--full-refresh"] if self.full_refresh else [])]


def select(
    tables: Sequence[RawTable],
    code: str,
    published: Build | None,
    failed: Build | None,
    only_stale: bool,
    full_refresh: bool,
) -> Selection | None:
    """What to build now; None when that is nothing (`why_nothing`).

    Args:
        tables: every raw table that a source declares.
        code: the checksum of the dbt project as it is.
        published: the last build that was published.
        failed: the last build, where it failed and may be resumed.
        only_stale: build what changed since it was published, and no more.
        full_refresh: build everything anew, incremental models from all rows.
    """
    complete = tuple(table for table in tables if table.is_complete)
    left_out = tuple(table for table in tables if not table.is_complete)
    if not complete:
        return None
    if failed and not full_refresh and _is_the_same(failed, tables, code):
        resumed = _resumed(failed, complete, left_out)
        if resumed:
            return resumed
    if published is None:
        return Selection(complete, left_out, (), "Everything: nothing is published yet.")
    if full_refresh or not only_stale:
        anew = _why_anew(complete, published.code != code, full_refresh)
        return Selection(complete, left_out, (), f"Everything: as asked{anew}.", bool(anew))
    return _stale(complete, left_out, published.code != code)


def why_nothing(tables: Iterable[RawTable]) -> str:
    """Why there is nothing to build."""
    if any(table.is_complete for table in tables):
        return "neither a raw table nor the dbt project has changed"
    return "no raw table is loaded in full"


def _stale(
    complete: tuple[RawTable, ...], left_out: tuple[RawTable, ...], has_new_code: bool
) -> Selection | None:
    stale = tuple(table for table in complete if table.is_stale)
    causes = ["the dbt project"] if has_new_code else []
    causes += [_named(stale)] if stale else []
    if not causes:
        return None
    anew = _why_anew(stale, has_new_code)
    selectors = [_descendants(table) for table in stale]
    selectors += [CHANGED_CODE] if has_new_code else []
    reason = f"What changed: {' and '.join(causes)}"
    return Selection(stale, left_out, (LEDGER, *selectors), f"{reason}{anew}.", bool(anew))


def _why_anew(tables: Iterable[RawTable], has_new_code: bool, asked: bool = False) -> str:
    """Why incremental models can't go on from the rows they have; empty when they can."""
    reshaped = _named(table for table in tables if table.is_reshaped)
    if asked:
        return ", all rows anew"
    if reshaped:
        return f", all rows anew: {reshaped} lost rows, changed its columns or was left out before"
    return ", all rows anew: the models may differ" if has_new_code else ""


def _is_the_same(build: Build, tables: Iterable[RawTable], code: str) -> bool:
    """Whether a build of now would read what that one read, with the same code."""
    return build.code == code and build.loads == loads_of(tables)


def _resumed(
    failed: Build, complete: tuple[RawTable, ...], left_out: tuple[RawTable, ...]
) -> Selection | None:
    """What failed and what was skipped; None when dbt had built nothing, or all of it."""
    left = [node["unique_id"] for node in failed.results if node["status"] not in DONE]
    if not left or len(left) == len(failed.results):
        return None
    reason = f"Build {failed.build_id} failed: its failed and skipped nodes again."
    names = tuple(sorted(unique_id.split(".")[2] for unique_id in left))
    built = tuple(table for table in complete if table.is_stale)
    return Selection(built, left_out, names, reason, resumes=failed)


def loads_of(tables: Iterable[RawTable]) -> Mapping[str, int]:
    """The last load that changed each table that is there in full, by the table's name."""
    return {str(table): table.load_id for table in tables if table.is_complete}


def _descendants(table: RawTable) -> str:
    return f"source:{table}+"


def _named(tables: Iterable[RawTable]) -> str:
    return ", ".join(map(str, tables))


def checksum(project: Path) -> str:
    """A checksum of all that makes up a dbt project, and not of what dbt wrote there."""
    digest = hashlib.sha256()
    for file in sorted(project.rglob("*")):
        name = file.relative_to(project)
        if file.is_file() and name.parts[0] not in _NO_CODE and not name.name.startswith("."):
            digest.update(f"{name.as_posix()} {file.stat().st_size} ".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
