"""Prefetch: run an iterator in a background thread, bounded by bytes."""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")


def prefetch(
    items: Iterable[Item],
    size_bytes: Callable[[Item], int],
    budget_bytes: int,
    is_mark: Callable[[Item], bool] = lambda _: False,
) -> Generator[Item, None, None]:
    """The items in order, produced by a thread that is at most `budget_bytes` ahead.

    Nothing is produced after a mark before the reader asks for it, having dealt with the mark.

    One item is always allowed, whatever its size. An error in the thread is raised here, after the
    items before it. If the reader stops early, the thread ends after its current item; nobody
    waits for that, because the thread may be waiting for an API.
    """
    buffer = _Buffer(items, size_bytes, budget_bytes, is_mark)
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(buffer.make,), daemon=True).start()
    try:
        yield from iter(buffer.take, None)
    finally:
        buffer.stop()


class _Buffer(Generic[Item]):
    """Items that are produced and not yet consumed, under one lock."""

    def __init__(
        self,
        items: Iterable[Item],
        size_bytes: Callable[[Item], int],
        budget_bytes: int,
        is_mark: Callable[[Item], bool],
    ) -> None:
        self._items = items
        self._size_bytes = size_bytes
        self._budget_bytes = budget_bytes
        self._is_mark = is_mark
        self._is_asked = False
        self._made: deque[Item] = deque()
        self._made_bytes = 0
        self._error: BaseException | None = None
        self._is_over = False
        self._is_stopped = False
        self._changed = threading.Condition()

    def make(self) -> None:
        """Produce items until there are no more, one fails, or the reader has stopped."""
        error = None
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as raised:
            error = raised
        with self._changed:
            self._error, self._is_over = error, True
            self._changed.notify_all()

    def _put(self, item: Item) -> bool:
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._made.append(item)
            self._is_asked = False
            self._made_bytes += self._size_bytes(item)
            self._changed.notify_all()
            if self._is_mark(item):
                self._changed.wait_for(lambda: self._is_stopped or self._is_asked)
            return not self._is_stopped

    def _has_room(self) -> bool:
        return self._is_stopped or not self._made or self._made_bytes < self._budget_bytes

    def take(self) -> Item | None:
        """The next item; None after the last one."""
        with self._changed:
            self._is_asked = not self._made
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._made or self._is_over)
            self._is_asked = False
            if self._made:
                item = self._made.popleft()
                self._made_bytes -= self._size_bytes(item)
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    def stop(self) -> None:
        """End the thread after its current item."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
