"""Selects what a build builds, and why, from the changes of loads and from earlier builds.

Pure: knows dbt's selectors, but not how dbt is run.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.dbt_build.history import Build, RawTable
from flows.dbt_build.node_results import is_done, name_of

LEDGER = "source:elt+"  # every load changes it: part of every build, never the reason for one
CHANGED_CODE = "state:modified+"
SETTINGS = "dbt_project.yml"
_NO_CODE = ("target", "logs", "dbt_packages")


@dataclass(frozen=True)
class Selection:
    """What one build builds.

    Attributes:
        built: raw tables whose descendants are all up to date once the build is published.
        left_out: incomplete raw tables; nothing that depends on them is built.
        select: dbt's selectors; empty means everything.
        reason: a sentence for people.
        full_refresh: rebuild incremental models from all rows.
        resumes: the failed build of which only the failed and skipped nodes are built.
    """

    built: tuple[RawTable, ...]
    left_out: tuple[RawTable, ...]
    select: tuple[str, ...]
    reason: str
    full_refresh: bool = False
    resumes: Build | None = None

    def nodes(self) -> list[str]:
        """Arguments that select the nodes, for any dbt command."""
        arguments = ["--select", *self.select] if self.select else []
        if self.left_out:
            arguments += ["--exclude", *(_descendants(table) for table in self.left_out)]
        return arguments

    def arguments(self) -> list[str]:
        """Arguments of `dbt build`."""
        return [*self.nodes(), *(["--full-refresh"] if self.full_refresh else [])]


def declared_tables(
    loaded: Iterable[RawTable], resources: Mapping[str, Sequence[str] | None]
) -> list[RawTable]:
    """All raw tables that a source declares, including those never loaded.

    Args:
        loaded: every raw table that was ever loaded.
        resources: the resources of each source; None for a source that can't be imported, of which
            all loaded tables are kept.
    """
    known = {(table.source, table.resource): table for table in loaded}
    broken = {source for source, names in resources.items() if names is None}
    return [table for table in known.values() if table.source in broken] + [
        known.get((source, name), RawTable(source, name))
        for source, names in resources.items()
        for name in names or ()
    ]


def select(
    tables: Sequence[RawTable],
    code: str,
    published: Build | None,
    failed: Build | None,
    only_stale: bool,
    full_refresh: bool,
) -> Selection | None:
    """What to build now; None when there is nothing to build (`why_nothing`).

    Args:
        tables: every raw table that a source declares.
        code: the checksum of the current dbt project.
        published: the last build that was published.
        failed: the last build, if it failed and may be resumed.
        only_stale: build only what changed since it was published.
        full_refresh: build everything, incremental models from all rows.
    """
    complete = tuple(table for table in tables if table.is_complete)
    left_out = tuple(table for table in tables if not table.is_complete)
    if not complete:
        return None
    if failed and not full_refresh and _is_unchanged(failed, tables, code):
        resumed = _resume(failed, complete, left_out)
        if resumed:
            return resumed
    if published is None:
        return Selection(complete, left_out, (), "Everything: nothing is published yet.")
    has_new_settings = _settings(published.code) != _settings(code)
    if full_refresh or not only_stale or has_new_settings:
        why_full = _why_full_refresh(complete, published.code != code, full_refresh)
        is_requested = full_refresh or not only_stale
        cause = "as requested" if is_requested else f"{SETTINGS} has changed"
        reason = f"Everything: {cause}{why_full}."
        return Selection(complete, left_out, (), reason, bool(why_full))
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
    causes += [_join_names(stale)] if stale else []
    if not causes:
        return None
    why_full = _why_full_refresh(stale, has_new_code)
    selectors = [_descendants(table) for table in stale]
    selectors += [CHANGED_CODE] if has_new_code else []
    reason = f"Changed: {' and '.join(causes)}{why_full}."
    return Selection(stale, left_out, (LEDGER, *selectors), reason, bool(why_full))


def _why_full_refresh(
    tables: Iterable[RawTable], has_new_code: bool, is_requested: bool = False
) -> str:
    """Why incremental models must be rebuilt from all rows; empty when they need not."""
    reshaped = _join_names(table for table in tables if table.is_reshaped)
    if is_requested:
        return ", from all rows"
    if reshaped:
        return f", from all rows: {reshaped} lost rows, changed columns or was excluded before"
    return ", from all rows: the models may differ" if has_new_code else ""


def _is_unchanged(build: Build, tables: Iterable[RawTable], code: str) -> bool:
    """Whether neither the code nor the raw tables changed since that build."""
    return build.code == code and build.loads == loads_of(tables)


def _resume(
    failed: Build, complete: tuple[RawTable, ...], left_out: tuple[RawTable, ...]
) -> Selection | None:
    """The failed and skipped nodes; None when the build completed no node, or all of them."""
    remaining = [node["unique_id"] for node in failed.results if not is_done(node)]
    if not remaining or len(remaining) == len(failed.results):
        return None
    reason = f"Build {failed.build_id} failed: building its failed and skipped nodes again."
    names = tuple(sorted(map(name_of, remaining)))
    built = tuple(table for table in complete if table.is_stale)
    return Selection(built, left_out, names, reason, failed.full_refresh, resumes=failed)


def loads_of(tables: Iterable[RawTable]) -> Mapping[str, int]:
    """The last load that changed each complete table, by the table's name."""
    return {str(table): table.load_id for table in tables if table.is_complete}


def _descendants(table: RawTable) -> str:
    return f"source:{table}+"


def _join_names(tables: Iterable[RawTable]) -> str:
    return ", ".join(map(str, tables))


def checksum(project: Path) -> str:
    """A checksum of a dbt project's files, without those that dbt wrote, and one of its settings.

    dbt does not know which models read a variable of the settings.
    """
    digest = hashlib.sha256()
    for file in sorted(project.rglob("*")):
        name = file.relative_to(project)
        if file.is_file() and name.parts[0] not in _NO_CODE and not name.name.startswith("."):
            digest.update(f"{name.as_posix()} {file.stat().st_size} ".encode())
            digest.update(file.read_bytes())
    settings = project / SETTINGS
    own = hashlib.sha256(settings.read_bytes() if settings.exists() else b"")
    return f"{digest.hexdigest()}.{own.hexdigest()}"


def _settings(code: str) -> str:
    """The checksum of the settings; empty for builds of earlier versions."""
    return code.partition(".")[2]
