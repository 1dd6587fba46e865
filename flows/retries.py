"""How Prefect retries loads and builds that failed because the API or Postgres was unavailable."""

import logging
from collections.abc import Mapping
from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task
from pydantic import BaseModel, Field, model_validator

from flows.errors import UnavailableError

log = logging.getLogger(__name__)


class Retry(BaseModel):
    """How often, and after how long, a task is retried if its API or Postgres was unavailable.

    A wrong configuration, a refused login and a response that breaks the API's contract are never
    retried: they would fail again in the same way.
    """

    retries: int = Field(0, ge=0, le=10, title="Retries", description="After the first try.")
    delay_seconds: float = Field(
        30, ge=0, le=3600, title="First delay (seconds)", description="Doubled before each retry."
    )
    jitter: float = Field(
        0.3, ge=0, le=1, title="Jitter", description="Delays vary at random by up to this fraction."
    )

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, given: Any) -> Any:
        """Accept `attempts`, the name of `retries` before 2026-12; refuse unknown names.

        Raises:
            ValueError: when a name is unknown; pydantic raises it as a ValidationError.
        """
        if not isinstance(given, Mapping):
            return given
        values = dict(given)
        if "attempts" in values and "retries" not in values:
            log.warning(
                "`retry.attempts` is now called `retry.retries`: rename it in prefect.yaml."
            )
            values["retries"] = values.pop("attempts")
        if unknown := values.keys() - cls.model_fields.keys():
            raise ValueError(
                f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(cls.model_fields)}"
            )
        return values

    def options(self) -> dict[str, Any]:
        """Options of a Prefect task; the delays are listed because Prefect does not double them."""
        return {
            "retries": self.retries,
            "retry_delay_seconds": [self.delay_seconds * 2**n for n in range(self.retries)],
            "retry_jitter_factor": self.jitter,
        }


def is_retryable(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether a task failed only because the API or Postgres was unavailable."""
    return isinstance(state.result(raise_on_failure=False), UnavailableError)
