"""Work ahead: an iterator that runs in a thread of its own, a few items before its reader."""

import contextvars
import threading
from collections.abc import Generator, Iterable
from contextlib import suppress
from queue import Full, Queue
from typing import TypeVar

Item = TypeVar("Item")

DEPTH = 4
_LOOK_SECONDS = 0.1


class _End:
    """What the thread says last; with the error that ended it, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[Item], depth: int = DEPTH) -> Generator[Item, None, None]:
    """The items in their order, made in a thread at most `depth` items ahead.

    An error in the thread is raised here, after the items before it. When the reader stops early,
    the thread makes no further item; it is not waited for, since it may be waiting for an API.
    """
    made: Queue[Item | _End] = Queue(depth)
    stopped = threading.Event()
    work = contextvars.copy_context().run
    threading.Thread(target=work, args=(_make, items, made, stopped), daemon=True).start()
    try:
        while True:
            item = made.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()


def _make(items: Iterable[Item], made: "Queue[Item | _End]", stopped: threading.Event) -> None:
    end = _End()
    try:
        for item in items:
            if not _put(made, item, stopped):
                break
    except BaseException as error:
        end = _End(error)
    _put(made, end, stopped)


def _put(made: "Queue[Item | _End]", item: Item | _End, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        with suppress(Full):
            made.put(item, timeout=_LOOK_SECONDS)
            return True
    return False
