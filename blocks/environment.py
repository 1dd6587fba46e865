"""The environment that a deploy or a run is for: production, or another with names of its own.

`ENVIRONMENT=staging` names one. What it has on the Prefect server ends with `-staging`: blocks,
deployments, tags and automations. So one server can have several. Must not import Prefect.
"""

import os

VARIABLE = "ENVIRONMENT"
PRODUCTION = "production"


def name() -> str:
    """`ENVIRONMENT`, or production."""
    return os.environ.get(VARIABLE) or PRODUCTION


def is_production() -> bool:
    return name() == PRODUCTION


def own(given: str) -> str:
    """A name as this environment has it: `warehouse` in production, or `warehouse-staging`."""
    return given if is_production() else f"{given}-{name()}"
