"""Secrets by name: from the environment, or from the Prefect block of that name.

`shop-token` (or `shop_token`) is the variable SHOP_TOKEN, or the Secret block `shop-token`. Values
are read when a run needs them, and stored nowhere else.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import httpx
from prefect.blocks.system import Secret

from blocks.environment import own
from flows import sources
from flows.errors import RefusedLoginError, UnavailableError
from flows.extract.auth import variable


def block(name: str) -> str:
    """Name of a secret's Prefect block: Prefect allows only lower case, digits and dashes."""
    return own(variable(name).lower().replace("_", "-"))


def names() -> list[str]:
    """The secrets that sources name."""
    return sorted({name for source in sources.usable() for name in source.secret_names})


def read(name: str) -> str:
    """The value of a secret exactly as stored; Prefect's own `get` turns "null" into `null`.

    Raises:
        RefusedLoginError: when neither the environment nor Prefect has it.
        UnavailableError: when the environment does not have it, and Prefect does not respond.
    """
    if value := os.environ.get(variable(name)):
        return value
    try:
        found: Any = Secret.load(block(name))
    except ValueError as error:
        raise RefusedLoginError(
            f"The secret {name!r} is missing. Set {variable(name)}, or store it in Prefect: "
            "write the variable to .env, which `make run-local` reads and `make deploy` stores."
        ) from error
    except httpx.HTTPError as error:
        raise UnavailableError(
            f"Prefect does not respond ({type(error).__name__}), so the secret {name!r} can't be "
            f"read. Start its server, or set {variable(name)}; then run this again."
        ) from error
    value = found.value.get_secret_value()
    return value if isinstance(value, str) else json.dumps(value)


def save(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Create or update blocks for the secrets that sources name and the environment contains.

    Returns the names of the saved secrets.
    """
    saved = [name for name in names() if environment.get(variable(name))]
    for name in saved:
        Secret(value=environment[variable(name)]).save(block(name), overwrite=True)
    return saved


if __name__ == "__main__":
    save()
