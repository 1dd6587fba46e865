"""The dbt project: its folders, a run of dbt on it, and the artifacts that the run leaves."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from flows.dbt_build import dbt_runner
from flows.dbt_build.dbt_runner import LogEvent
from flows.dbt_build.manifests import Json
from flows.errors import BuildError, EltError, UnavailableError
from flows.postgres.errors import is_transient_text

PROJECT = dbt_runner.ROOT / "dbt_project"
RESULTS, MANIFEST, AGES = "run_results.json", "manifest.json", "sources.json"
_DUPLICATE_ERROR_EVENTS = ("LogFreshnessResult",)  # repeated by a separate error event

Command = Sequence[str]
Prepare = Callable[[Sequence[str]], None]
ShowNode = Callable[[Json], None]


@dataclass(frozen=True)
class DbtProject:
    """A dbt project and the folders that dbt uses for it.

    Attributes:
        target: where dbt writes its artifacts.
        profiles: opens the folder that has profiles.yml, for one run of dbt; by default that is
            the project's own folder.
    """

    folder: Path
    target: Path
    profiles: Callable[[], AbstractContextManager[str]] | None = None

    def open_profiles(self) -> AbstractContextManager[str]:
        """The folder that has profiles.yml, for as long as the block lasts."""
        return self.profiles() if self.profiles else nullcontext(str(self.folder))

    def arguments(self, profiles: str) -> list[str]:
        """Arguments that name the folders to dbt, for any of its commands."""
        where = ["--project-dir", str(self.folder), "--profiles-dir", profiles]
        return [*where, "--target-path", str(self.target)]

    def path(self, artifact: str) -> Path:
        """Where dbt writes an artifact."""
        return self.target / artifact

    def read(self, artifact: str) -> Json | None:
        """One of dbt's artifacts; None when dbt did not write it."""
        file = self.path(artifact)
        return json.loads(file.read_text()) if file.exists() else None

    def manifest(self) -> Json:
        """The manifest, which dbt writes before it builds."""
        manifest: Json = json.loads(self.path(MANIFEST).read_text())
        return manifest

    def results(self, errors: Sequence[str]) -> Json:
        """The results of the last run, which reported these errors.

        Raises:
            BuildError: when there are no results: dbt ended before it built anything.
            UnavailableError: the same, if Postgres was unavailable.
        """
        found = self.read(RESULTS)
        if found is None:
            raise ended_early("built anything", errors)
        return found


class State:
    """Manifest of what is published, in files that dbt reads in a folder.

    dbt compares the project with it, and reads the nodes that it does not build from there.
    """

    def __init__(self, manifest: Json | None, folder: Path) -> None:
        self._manifest = manifest
        self._compared, self._deferred = folder / "compared", folder / "deferred"
        if manifest is not None:
            _write(manifest, self._compared)

    def compared(self) -> list[str]:
        """Arguments that make dbt compare the project with the manifest."""
        return [] if self._manifest is None else ["--state", str(self._compared)]

    def deferred(self) -> list[str]:
        """Arguments that make dbt also read from there what `defer` says."""
        deferring = ["--defer", "--favor-state", "--defer-state", str(self._deferred)]
        return [] if self._manifest is None else [*self.compared(), *deferring]

    def defer(self, selected: Collection[str]) -> None:
        """Let dbt read all nodes from there but those with these ids, before it builds them.

        Without this, dbt's foreign keys refer to the published table even if it builds a new one.
        """
        if self._manifest is not None:
            nodes = self._manifest["nodes"].items()
            others = {unique_id: node for unique_id, node in nodes if unique_id not in selected}
            _write({**self._manifest, "nodes": others}, self._deferred)


def _write(manifest: Json, folder: Path) -> None:
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def run(
    project: DbtProject,
    environment: Mapping[str, str],
    timeout_seconds: float,
    commands: Sequence[Command],
    prepare: Prepare | None = None,
    show_node: ShowNode | None = None,
) -> list[str]:
    """Run dbt commands one after the other, and return the errors that belong to no node.

    Args:
        project: what dbt runs on.
        environment: environment variables of dbt.
        timeout_seconds: the longest time that all commands may take together.
        commands: dbt's commands, without the project's folders.
        prepare: called with the ids of the nodes that the first command lists, before the second
            starts; the first must start with `dbt_runner.LISTING`.
        show_node: called with the data of dbt's event when a node has ended.

    Raises:
        BuildError: when dbt ran longer than the timeout and was stopped.
    """
    for earlier in (RESULTS, AGES):
        project.path(earlier).unlink(missing_ok=True)
    with project.open_profiles() as profiles:
        whole = [[*command, *project.arguments(profiles)] for command in commands]
        events = dbt_runner.run(environment, timeout_seconds, *whole)
        with closing(dbt_runner.after_listing(events, prepare) if prepare else events) as remaining:
            return list(_errors(remaining, show_node))


def _errors(events: Iterator[LogEvent], show_node: ShowNode | None) -> Iterator[str]:
    """The errors that belong to no node; shows each node that has ended."""
    for event in events:
        info = event["info"]
        if info["name"] == "NodeFinished":
            if show_node:
                show_node(event["data"])
        elif info["level"] == "error" and info["name"] not in _DUPLICATE_ERROR_EVENTS:
            yield " ".join(info["msg"].split())


def ended_early(what: str, errors: Sequence[str]) -> EltError:
    """The error to raise when dbt ended before it did that; retryable if Postgres was away."""
    message = dbt_runner.last_errors(errors)
    kind = UnavailableError if is_transient_text(message) else BuildError
    return kind(f"dbt ended before it {what}: {message or 'it reported no error'}")
