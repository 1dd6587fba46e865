"""Reports the progress of running loads, from the ledger."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

import psycopg2
from psycopg2.extensions import cursor as Cursor

from flows.load import ledger
from flows.load.ledger import Entry

COUNTED = ("extracted", "inserted", "updated", "unchanged", "rejected")
POLL_SECONDS = 0.25
PROGRESS_SECONDS = 5.0
# So many loads that succeeded are shown; all of them are in the ledger.
MOST_SHOWN = 12

_NAME_WIDTH = 36


def heading() -> str:
    """The column names for the lines of `watch`."""
    return f"{'Loading':{_NAME_WIDTH}}" + "".join(f"{name:>11}" for name in (*COUNTED, "seconds"))


@contextmanager
def watch(dsn: str, tell: Callable[[str], None]) -> Iterator[Mapping[str, int]]:
    """Report each load when it ends, and now and then the progress of long loads.

    Yields the total counts of the loads that started within the block; they are final after it.
    """
    totals = dict.fromkeys(COUNTED, 0)
    over = threading.Event()
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            thread = threading.Thread(
                target=_follow, args=(cursor, ledger.newest(cursor), over, tell, totals)
            )
            thread.start()
            try:
                yield totals
            finally:
                over.set()
                thread.join()


def _follow(
    cursor: Cursor,
    after: int,
    over: threading.Event,
    tell: Callable[[str], None],
    totals: dict[str, int],
) -> None:
    seen: set[int] = set()
    lines = _Lines(tell)
    quiet_since = time.monotonic()
    last = False
    while not last:
        last = over.wait(POLL_SECONDS)
        entries = [entry for entry in ledger.entries(cursor, after) if entry.load_id not in seen]
        ended = [entry for entry in entries if entry.state != "running"]
        for entry in ended:
            lines.add(entry)
            for name in COUNTED:
                totals[name] += getattr(entry, name)
        seen.update(entry.load_id for entry in ended)
        was_quiet = time.monotonic() - quiet_since > PROGRESS_SECONDS
        if was_quiet:
            for entry in entries:
                tell(f"  {entry.title} ... {entry.extracted:,} so far")
        if ended or was_quiet:
            quiet_since = time.monotonic()
    lines.end()


class _Lines:
    """Tells of the first loads, and of every one that did not succeed."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._left = MOST_SHOWN
        self._untold = 0

    def add(self, entry: Entry) -> None:
        if self._left > 0 or entry.state != "succeeded":
            self._tell(_line(entry))
            self._left -= 1
        else:
            self._untold += 1

    def end(self) -> None:
        if self._untold:
            self._tell(f"  … and {self._untold:,} loads, all in elt.loads")


def _line(entry: Entry) -> str:
    counts = "".join(f"{getattr(entry, name):>11,}" for name in COUNTED)
    ending = "" if entry.state == "succeeded" else f"  {entry.state.upper()}"
    return f"  {entry.title:{_NAME_WIDTH - 2}}{counts}{entry.seconds:>11.1f}{ending}"
