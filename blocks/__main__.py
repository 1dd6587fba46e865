"""`python -m blocks`: create or update every block for which the environment has the values."""

import os
from collections.abc import Mapping

from prefect.blocks.system import Secret

from blocks import notifications, secrets, warehouse
from blocks.channels import addresses
from blocks.environment import own

GIT_TOKEN = "git-token"  # noqa: S105 (the block's name)


def save(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Save all blocks, and return their slugs, e.g. `secret/shop-token`.

    Without a Git token, an empty one is saved: runs that clone a public repository also load it.

    Raises:
        ConfigurationError: when a value is missing or wrong.
    """
    saved = [f"sqlalchemy-connector/{own(name)}" for name in warehouse.save(environment)]
    saved += [f"secret/{secrets.block(name)}" for name in secrets.save(environment)]
    Secret(value=environment.get("GIT_TOKEN", "")).save(own(GIT_TOKEN), overwrite=True)
    return [*saved, f"secret/{own(GIT_TOKEN)}", *notifications.save(environment)]


def slugs(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Every block that `save` can create; of the channels, those that have an address here."""
    return [
        *(
            f"sqlalchemy-connector/{own(name)}"
            for name in (warehouse.BLOCK, warehouse.TRANSFORMER_BLOCK)
        ),
        *(f"secret/{secrets.block(name)}" for name in secrets.names()),
        f"secret/{own(GIT_TOKEN)}",
        *(notifications.slug(channel) for channel in addresses(environment)),
    ]


if __name__ == "__main__":
    for name in save():
        print(name)
