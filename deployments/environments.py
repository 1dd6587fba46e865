"""Environments beside production: each has a Prefect server or workspace, and a warehouse.

`ENVIRONMENT=staging` names one. Its deployments have the tag `environment:staging`, by which a
deploy recognises the server of another environment.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient

from deployments import actual
from deployments.env_file import PRODUCTION, environment_name
from flows.errors import ConfigurationError

TAG = "environment:"


def adapted(deployments: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The entries of prefect.yaml with the environment's tag, and with no schedule switched on.

    A schedule that says `active: true` stays so. Production's entries are as written.
    """
    name = environment_name()
    return deployments if name == PRODUCTION else [_adapted(each, name) for each in deployments]


def _adapted(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    changed = {**entry, "tags": [*(entry.get("tags") or []), f"{TAG}{name}"]}
    if entry.get("schedules"):
        changed["schedules"] = [{"active": False, **each} for each in entry["schedules"]]
    return changed


def refuse_other(client: SyncPrefectClient, project: str) -> None:
    """Raise if the server has this project's deployments of another environment.

    Raises:
        ConfigurationError: with both names; a deploy would replace its blocks.
    """
    wanted = environment_name()
    for name, found in sorted(actual.deployments(client, project, []).items()):
        tags = [tag for tag in found.tags if tag.startswith(TAG)]
        has = tags[0].removeprefix(TAG) if tags else PRODUCTION
        if has != wanted:
            raise ConfigurationError(
                f"{client.api_url} is the server of {has}, whose deployment {name} it has, and "
                f"not of {wanted}. Set PREFECT_API_URL in {_file(wanted)} to another server or "
                f"workspace, or ENVIRONMENT={has}."
            )


def _file(name: str) -> str:
    return ".env" if name == PRODUCTION else f".env.{name}"


@contextmanager
def prefect_file(
    project: str, pull: Any, deployments: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, ...]]:
    """The words that make `prefect deploy` read adapted entries; none for production's."""
    if environment_name() == PRODUCTION:
        yield ()
        return
    content = {"name": project, "pull": pull, "deployments": list(deployments)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "prefect.yaml")
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        yield ("--prefect-file", os.fspath(file))
