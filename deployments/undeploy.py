"""`make undeploy`: remove all that `make deploy` made for an environment beside production.

Not its database and not the history of its runs.
"""

import os
import sys
from contextlib import suppress
from dataclasses import replace

from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound

from blocks import environment
from blocks.__main__ import slugs
from blocks.environment import is_production, own
from deployments import actual, desired
from deployments.check import prefect_yaml
from deployments.check.prefect_yaml import Declared
from deployments.deploy import (
    NOTHING,
    ROOT,
    Say,
    connected,
    inside,
    print_environment,
    settle,
)
from deployments.env_file import read_environment
from deployments.plan import compare, named_blocks
from flows.errors import ConfigurationError, EltError


def main() -> int:
    """Remove the environment that ENVIRONMENT names; 0 on success."""
    read_environment()
    print_environment()
    try:
        with connected() as client, inside(ROOT):
            undeploy(client, prefect_yaml.read(ROOT), print)
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    return 0


def undeploy(client: SyncPrefectClient, project: Declared, say: Say) -> None:
    """Remove the environment's automations, deployments, work pools and blocks.

    Raises:
        ConfigurationError: for production.
    """
    if is_production():
        raise ConfigurationError(
            f"Production is not removed: name another environment, {environment.VARIABLE}=staging "
            "make undeploy."
        )
    found = compare(client, replace(project, deployments=(), automations=()))
    settle(client, found)
    removed = [str(change) for change in found.changes]
    removed += [f"remove work pool {name}" for name in _remove_pools(client, project)]
    removed += [f"remove block {slug}" for slug in _remove_blocks(client, project)]
    for line in removed or [NOTHING]:
        say(line)


def _remove_pools(client: SyncPrefectClient, project: Declared) -> list[str]:
    """Delete the pools that have the environment's name; others may serve more than it."""
    pools = sorted({each.pool for each in desired.deployments(project)})
    names = [name for name in pools if name.endswith(own("")) and actual.has_pool(client, name)]
    for name in names:
        client.delete_work_pool(name)
    return names


def _remove_blocks(client: SyncPrefectClient, project: Declared) -> list[str]:
    removed = []
    for slug in sorted({*slugs(os.environ), *named_blocks(project)}):
        if block := actual.block(client, slug):
            with suppress(ObjectNotFound):  # deleted meanwhile
                client.delete_block_document(block)
            removed.append(slug)
    return removed


if __name__ == "__main__":
    sys.exit(main())
