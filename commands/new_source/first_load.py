"""The first load of what `make new-source` wrote: a page of each resource, its views and tests."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from commands.new_source.draft import Draft
from commands.new_source.draft_files import present_source
from commands.new_source.literals import Call
from deployments.local import running_server
from flows.extract.auth import variable

Say = Callable[[str], None]


def load(root: Path, drafts: Sequence[Draft], known: Mapping[str, str], say: Say) -> int:
    """Load into the local warehouse, build and test; 0 unless that fails. The files stay anyway.

    `known` are variables with secrets that the environment lacks.
    """
    source = drafts[0].source
    if reason := _reason_not_to(root, drafts, known):
        say(f"\nNot loaded yet: {reason}")
        return 0
    names = ",".join(draft.resource for draft in drafts if _is_by_page(draft))
    say(f"\nNow a first page of {names} is loaded, and the views are built and tested:")
    command = [sys.executable, "-m", "commands.run_local", f"--source={source}"]
    done = subprocess.run(
        [*command, f"--resources={names}", "--limit=1"], cwd=root, env={**os.environ, **known}
    )
    if done.returncode:
        say(
            f"\nThe files stay. Correct flows/sources/{source}.py, or what the error names; then\n"
            f"  make run-local SOURCE={source} RESOURCES={names} LIMIT=1"
        )
    return done.returncode


def _reason_not_to(root: Path, drafts: Sequence[Draft], known: Mapping[str, str]) -> str:
    """Why there is nothing to load now, and what to do; empty if there is."""
    name = drafts[0].source
    source = present_source(root, name)
    secrets = [variable(secret) for secret in source.secret_names] if source else []
    missing = [each for each in secrets if not (known.get(each) or os.environ.get(each))]
    again = f"make run-local SOURCE={name} LIMIT=1"
    if missing:
        return f"write {', '.join(f'{each}=…' for each in missing)} to .env, then {again}"
    if personal := [f"{each.resource}.{field}" for each in drafts for field in each.personal]:
        return (
            f"{', '.join(personal)} may be personal. Declare in flows/sources/{name}.py what is "
            'stored of them, e.g. personal={"email": masked()} (docs/sources.md, Personal data), '
            f"or leave them as they are; then {again}"
        )
    if parent := _parent_to_load(drafts):
        return (
            f"each row of {parent} has its own "
            f"{', '.join(draft.resource for draft in drafts)}, which are loaded together with it. "
            f"Check their paging in flows/sources/{name}.py; then make run-local SOURCE={name}"
        )
    if running_server.find(root / ".local"):
        return f"`make up` is running. It deploys {name} by itself: start a run in its UI."
    if not any(map(_is_by_page, drafts)):
        return f"each load replaces the whole table: make run-local SOURCE={name}"
    return ""


def _parent_to_load(drafts: Sequence[Draft]) -> str:
    """A parent that this load would lack, and that may have no rows yet; empty if there is none."""
    parents = [d.partitions.args[0] for d in drafts if isinstance(d.partitions, Call)]
    return next((each for each in parents if each not in {d.resource for d in drafts}), "")


def _is_by_page(draft: Draft) -> bool:
    """Whether a page can be loaded: it can't replace a table."""
    return draft.disposition != "replace" or draft.paging is None
