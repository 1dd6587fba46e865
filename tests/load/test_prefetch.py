"""Prefetching changes only the time when items are produced."""

import threading
from collections.abc import Iterator

import pytest

from flows.load.prefetch import prefetch


def one(item: object) -> int:
    return 1


def test_items_keep_their_order() -> None:
    assert list(prefetch(range(1000), one, budget_bytes=3)) == list(range(1000))


def test_an_error_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("no third one")

    items = prefetch(failing(), one, budget_bytes=1000)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(LookupError, match="no third one"):
        next(items)


def test_prefetch_continues_while_the_reader_is_busy_up_to_the_budget() -> None:
    made: list[int] = []
    enough = threading.Event()

    def counting() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 4:
                enough.set()
            yield number

    items = prefetch(counting(), one, budget_bytes=4)
    assert next(items) == 0
    assert enough.wait(10)
    items.close()
    assert len(made) <= 6


def test_an_item_larger_than_the_budget_gets_through() -> None:
    assert list(prefetch([b"x" * 100, b"y" * 100], len, budget_bytes=10)) == [
        b"x" * 100,
        b"y" * 100,
    ]


def test_a_reader_that_stops_ends_the_thread() -> None:
    before = threading.active_count()
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    items = prefetch(endless(), one, budget_bytes=1000)
    next(items)
    items.close()
    assert ended.wait(10)
    assert threading.active_count() <= before + 1
