"""How Prefect tries again what failed because another side was away: loads and builds."""

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task
from pydantic import BaseModel, Field

from flows.errors import UnavailableError


class Retry(BaseModel):
    """How often, and after how long, a task is tried again where its API or Postgres was away.

    A wrong configuration, a refused login and an answer that is not what the API promises are
    never tried again: they would end the same way.
    """

    attempts: int = Field(0, ge=0, le=10, title="Retries", description="After the first try.")
    delay_seconds: float = Field(
        30, ge=0, le=3600, title="First delay (seconds)", description="Doubled before each retry."
    )
    jitter: float = Field(
        0.3, ge=0, le=1, title="Jitter", description="Delays vary at random by this part of them."
    )

    def options(self) -> dict[str, Any]:
        """The same as options of a Prefect task, which doubles no delays by itself."""
        return {
            "retries": self.attempts,
            "retry_delay_seconds": [self.delay_seconds * 2**n for n in range(self.attempts)],
            "retry_jitter_factor": self.jitter,
        }


def is_worth_retrying(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """Whether the other side was only away."""
    return isinstance(state.result(raise_on_failure=False), UnavailableError)
