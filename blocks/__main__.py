"""`python -m blocks`: create or update every block for which the environment has the values."""

import os
from collections.abc import Mapping

from prefect.blocks.system import Secret

from blocks import notifications, secrets, warehouse

GIT_TOKEN = "git-token"  # noqa: S105 (the block's name)


def save(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Save all blocks, and return their slugs, e.g. `secret/shop-token`.

    Without a Git token, an empty one is saved: runs that clone a public repository also load it.

    Raises:
        ConfigurationError: when a value is missing or wrong.
    """
    saved = [f"sqlalchemy-connector/{name}" for name in warehouse.save(environment)]
    saved += [f"secret/{secrets.block(name)}" for name in secrets.save(environment)]
    Secret(value=environment.get("GIT_TOKEN", "")).save(GIT_TOKEN, overwrite=True)
    return [*saved, f"secret/{GIT_TOKEN}", *notifications.save(environment)]


if __name__ == "__main__":
    for name in save():
        print(name)
