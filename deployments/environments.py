"""Environments beside production, on production's Prefect server or on another.

`ENVIRONMENT=staging` gives everything that this project deploys a name that ends with `-staging`,
tags included: so automations, and the removal of what left the files, keep to one environment.
Schedules are off unless the file says `active: true`.
"""

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from blocks import environment
from blocks.environment import is_production, own

_BLOCK = re.compile(r"(\bprefect\.blocks\.[\w-]+\.[\w-]+)")
_TAG = "prefect.tag."


def own_deployments(
    entries: Sequence[Mapping[str, Any]], project: str
) -> Sequence[Mapping[str, Any]]:
    """The entries of prefect.yaml as this environment deploys them."""
    if is_production():
        return entries
    tags = _tags(entries, project)
    return [_own_deployment(_renamed(each, tags)) for each in entries]


def own_automations(
    specs: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]], project: str
) -> Sequence[Mapping[str, Any]]:
    """The automations as this environment has them; `entries` are those of prefect.yaml."""
    if is_production():
        return specs
    tags = _tags(entries, project)
    return [{**_renamed(each, tags), "name": own(each["name"])} for each in specs]


def own_steps(pull: Any) -> Any:
    """Pull steps that read this environment's blocks."""
    return pull if is_production() else _renamed(pull, frozenset())


def _tags(entries: Sequence[Mapping[str, Any]], project: str) -> frozenset[str]:
    return frozenset([project, *(tag for each in entries for tag in each.get("tags") or [])])


def _own_deployment(entry: Mapping[str, Any]) -> dict[str, Any]:
    pool = dict(entry.get("work_pool") or {})
    variables = dict(pool.get("job_variables") or {})
    variables["env"] = {**(variables.get("env") or {}), environment.VARIABLE: environment.name()}
    pool["job_variables"] = variables
    if pool.get("name"):
        pool["name"] = own(pool["name"])
    found = {**entry, "name": own(entry["name"]), "work_pool": pool}
    if entry.get("schedules"):
        found["schedules"] = [{"active": False, **each} for each in entry["schedules"]]
    if entry.get("triggers"):
        found["triggers"] = [_named(each) for each in entry["triggers"]]
    return found


def _named(trigger: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**trigger, "name": own(trigger["name"])} if trigger.get("name") else trigger


def _renamed(value: Any, tags: frozenset[str]) -> Any:
    """The value with this environment's names of tags, blocks and other deployments."""
    if isinstance(value, Mapping):
        found = {key: _renamed_entry(key, each, tags) for key, each in value.items()}
        if found.get("prefect.resource.role") == "deployment":
            _rename_resource(found)
        return found
    if isinstance(value, list):
        return [_renamed(each, tags) for each in value]
    if isinstance(value, str):
        head, is_tag, tag = value.partition(_TAG)
        return f"{head}{_TAG}{own(tag)}" if is_tag and tag in tags else _own_blocks(value)
    return value


def _renamed_entry(key: Any, value: Any, tags: frozenset[str]) -> Any:
    if key == "tags" and isinstance(value, list):
        return [own(each) if each in tags else each for each in value]
    if key == "for_each_scheduled" or (key in ("block", "deployment") and "/" in str(value)):
        return own(value)
    return _renamed(value, tags)


def _rename_resource(labels: dict[Any, Any]) -> None:
    """Rename the deployments that an event must be about; `{{ … }}` becomes a name later."""
    key = "prefect.resource.name"
    names = labels.get(key)
    if isinstance(names, str) and "{{" not in names:
        labels[key] = own(names)
    elif isinstance(names, list):
        labels[key] = [own(name) for name in names]


def _own_blocks(text: str) -> str:
    return _BLOCK.sub(lambda found: own(found[1]), text)


@contextmanager
def prefect_file(
    project: str, pull: Any, deployments: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, ...]]:
    """The words that make `prefect deploy` read this environment's entries, if not production."""
    if is_production():
        yield ()
        return
    content = {"name": project, "pull": pull, "deployments": list(deployments)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "prefect.yaml")
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        yield ("--prefect-file", os.fspath(file))
