"""A load that ends by SIGKILL at a step of its own; the chaos tests start it as a process.

The steps' functions are wrapped from outside: the code that is tested knows nothing of this.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psycopg2
from psycopg2.extensions import connection as Connection

from flows.extract.client import Client
from flows.load import checkpoints, ledger, primary_key
from flows.load import loader as loading
from flows.load.staging_table import StagingTable
from tests.chaos.scenarios import Scenario

NAME = "chaos victim"
Moment = Literal["before", "after"]


class Session(Connection):
    """A connection whose commits can be wrapped: psycopg2's own class takes no attributes."""

    def __exit__(self, *error: Any) -> None:
        """Commit, or roll back after an error."""
        super().__exit__(*error)


STEPS: dict[str, tuple[Any, str]] = {
    "lock": (ledger, "lock"),
    "begin": (ledger, "begin"),
    "stage": (StagingTable, "create"),
    "page": (Client, "get"),
    "copy": (StagingTable, "_copy"),
    "direct": (StagingTable, "add_directly"),
    "flush": (StagingTable, "flush"),
    "key": (primary_key, "create_deferred"),
    "account": (ledger, "add_counts"),
    "remember": (checkpoints, "save"),
    "end": (ledger, "end"),
    "commit": (Session, "__exit__"),
}


@dataclass(frozen=True)
class Death:
    """Just before or just after which step a load dies, and the how manieth of its kind.

    Attributes:
        in_lockstep: a page is fetched only when the one before it has been dealt with, so that
            checkpoints lie between the pages even of a small load.
    """

    moment: Moment
    step: str
    times: int
    in_lockstep: bool = False

    def __str__(self) -> str:
        """`before commit 3`."""
        return f"{self.moment} {self.step} {self.times}"


def interrupt(
    death: Death,
    action: Callable[[], None],
    patch: Callable[[Any, str, Any], None] = setattr,
    steps: Mapping[str, tuple[Any, str]] = STEPS,
) -> None:
    """Have `action` called at the moment of the death."""
    owner, name = steps[death.step]
    real = getattr(owner, name)
    calls = 0

    def step(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        is_due = calls == death.times
        if is_due and death.moment == "before":
            action()
        result = real(*args, **kwargs)
        if is_due and death.moment == "after":
            action()
        return result

    patch(owner, name, step)
    if death.in_lockstep:
        patch(
            loading.Loader,
            "_read_ahead",
            lambda load, pages: (each for page in pages for each in load._reader.readings(page)),
        )


def order(dsn: str, api_url: str, scenario: Scenario, death: Death | None = None) -> str:
    """The program's argument."""
    wanted = {"dsn": dsn, "api_url": api_url, "scenario": asdict(scenario)}
    return json.dumps(wanted | {"death": death and asdict(death)})


def main(argument: str) -> None:
    """Load as ordered; without a death, somebody else may kill this at any moment."""
    wanted = json.loads(argument)
    if wanted["death"]:
        interrupt(Death(**wanted["death"]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    connection = psycopg2.connect(wanted["dsn"], connection_factory=Session, application_name=NAME)
    with closing(connection):
        Scenario(**wanted["scenario"]).load(connection, wanted["api_url"])


if __name__ == "__main__":
    main(sys.argv[1])
