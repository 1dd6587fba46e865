"""The chunks of a backfill that several runs load: how its windows are cut, and what is loaded.

Asks nothing of Prefect: `flows.backfill_runs` starts the runs and reads their states.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any, cast

from prefect.client.schemas.objects import FlowRun, State

from blocks.warehouse import Warehouse
from flows.backfill_windows import Slice
from flows.load import ledger
from flows.retries import Retry
from flows.source import Window

# More chunks than runs, so that the runs end at about the same time though APIs have slow years.
CHUNKS_PER_RUN = 4
FEWEST_WINDOWS = 4  # a run takes seconds to start

_SHARED = ("source", "resources", "window_days", "again")

Key = tuple[str, str]


@dataclass(frozen=True)
class Request:
    """What all runs of a backfill have in common."""

    source: str
    resources: Sequence[str]
    window_days: int
    at_once: int
    again: bool
    retry: Retry

    def parameters(self, since: date, until: date) -> dict[str, Any]:
        """The parameters of a run that loads these days itself and builds nothing."""
        return {
            "source": self.source,
            "since": since.isoformat(),
            "until": until.isoformat(),
            "resources": list(self.resources),
            "window_days": self.window_days,
            "at_once": self.at_once,
            "runs_at_once": 1,
            "again": self.again,
            "transform": False,
            "retry": self.retry.model_dump(),
        }

    def days_of(self, run: FlowRun, windows: Collection[Window]) -> tuple[date, date] | None:
        """The days that a run loads for this request; None if it loads something else.

        Their number at once and their retries may differ. The windows must be the same.
        """
        since, until = (date.fromisoformat(run.parameters[name]) for name in ("since", "until"))
        wanted = self.parameters(since, until)
        is_same = all(run.parameters.get(name) == wanted[name] for name in _SHARED)
        starts, ends = {first_day(each) for each in windows}, {end_day(each) for each in windows}
        return (since, until) if is_same and since in starts and until in ends else None


@dataclass
class Chunk:
    """Consecutive windows that one run loads.

    Attributes:
        until: the day after the last one.
        keys: the slices that it still has to load.
        run: as last read from Prefect; None before it is started.
        loaded: how many of the keys it has loaded.
    """

    since: date
    until: date
    keys: frozenset[Key]
    run: FlowRun | None = None
    loaded: int = 0

    def __str__(self) -> str:
        """E.g. `2020-01-01 to 2021-01-01`."""
        return f"{self.since} to {self.until}"

    @property
    def state(self) -> State[Any] | None:
        """The state of its run; None before it is started."""
        return self.run.state if self.run else None

    def contains(self, window: Window) -> bool:
        """Whether the window is one of its windows."""
        return self.since <= first_day(window) and end_day(window) <= self.until

    def count(self, database: Warehouse) -> None:
        """Read from the ledger how many of the keys its run has loaded."""
        if self.run is None:
            return
        with database.transaction() as cursor:
            entries = ledger.entries_of_run(cursor, str(self.run.id))
        ended = {(each.resource, each.partition) for each in entries if each.state == "succeeded"}
        self.loaded = len(ended & self.keys)


def cut(
    slices: Sequence[Slice], taken: Sequence[Chunk], runs_at_once: int, fewest: int
) -> list[Chunk]:
    """Cut the slices into chunks of about equally many windows, in the order of their days.

    A chunk may contain windows that need no load, which its run skips, but none of `taken`.

    Args:
        slices: those to load.
        taken: chunks that other runs load or have loaded.
        runs_at_once: how many runs will load them.
        fewest: windows that a chunk should have at least.
    """
    keys: dict[Window, set[Key]] = defaultdict(set)
    for each in slices:
        keys[each.window].add(each.key)
    size = max(fewest, FEWEST_WINDOWS, -(-len(keys) // (runs_at_once * CHUNKS_PER_RUN)))
    return [
        Chunk(
            first_day(windows[0]),
            end_day(windows[-1]),
            frozenset[Key]().union(*(keys[window] for window in windows)),
        )
        for windows in _groups(sorted(keys, key=first_day), taken, size)
    ]


def _groups(
    windows: Sequence[Window], taken: Sequence[Chunk], size: int
) -> Iterator[Sequence[Window]]:
    """Groups of at most that many windows, none with a taken chunk in between."""

    def before(window: Window) -> int:
        return sum(chunk.since <= first_day(window) for chunk in taken)

    for _, stretch in groupby(windows, before):
        free = list(stretch)
        for first in range(0, len(free), size):
            yield free[first : first + size]


def first_day(window: Window) -> date:
    """The first day of a window of `split`."""
    return cast(datetime, window.since).date()


def end_day(window: Window) -> date:
    """The day after the last one of a window of `split`."""
    return cast(datetime, window.until).date()
