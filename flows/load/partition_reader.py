"""Reads small partitions completely before they are committed; runs in the threads of a load."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from time import monotonic

from flows.errors import EltError
from flows.load.checkpoints import Checkpoint
from flows.load.group import Group, PlannedPartition, ReadPartition
from flows.load.parse import PageParser, ParsedPiece
from flows.page import Page, Resume
from flows.source import Partition, Resource, Window

# A partition with more than this is loaded on its own.
SMALL_BYTES = 256 << 10

ReadPages = Callable[[Partition, Window, Resume | None], Iterator[Page]]


@dataclass
class PartlyRead:
    """A partition for a load of its own, with the pages that were read before it began.

    Attributes:
        rest: the pages after them; None if nothing was read.
    """

    planned: PlannedPartition
    pages: Sequence[Page] = ()
    rest: Iterator[Page] | None = None

    def take(
        self, window: Window, resume: Resume | None, present: Checkpoint
    ) -> Iterator[Page] | None:
        """All pages, once; None if the load needs others.

        That is, another window, or what another load has stored since: it may be newer.
        """
        rest, self.rest = self.rest, None
        is_same = window == self.planned.window and resume is None
        is_current = present.saved_at == self.planned.checkpoint.saved_at
        return chain(self.pages, rest) if rest and is_same and is_current else None


class SmallReader:
    """Reads small partitions, one after the other, in one thread."""

    def __init__(self, group: Group | None, resource: Resource, read_pages: ReadPages) -> None:
        self._group = group
        self._resource = resource
        self._read_pages = read_pages
        self._parser: PageParser | None = None

    def read(self, planned: PlannedPartition) -> ReadPartition | PartlyRead:
        """All pages of a partition; the first ones if it needs a load of its own."""
        if self._group is None or planned.checkpoint.resume is not None:
            return PartlyRead(planned)
        began_at = monotonic()
        self._parser = parser = self._group.parser(planned.partition, self._parser)
        pages: list[Page] = []
        pieces: list[ParsedPiece] = []
        rest = self._read_pages(planned.partition, planned.window, None)
        try:
            for page in rest:
                pages.append(page)
                pieces += parser.readings(page)
                is_slow = monotonic() - began_at > self._resource.checkpoint_seconds
                if is_slow or not _is_small(pieces):
                    return PartlyRead(planned, pages, rest)
        except EltError as error:
            return PartlyRead(planned, pages, _failing(error))
        lacks_token = any(piece.token == "" for piece in pieces)
        is_unread = bool(pages) and pages[-1].resume is not None
        if parser.missing_cursor() or lacks_token or is_unread:
            return PartlyRead(planned, pages, rest)
        return ReadPartition(planned, pages, pieces)


def _is_small(pieces: Sequence[ParsedPiece]) -> bool:
    """Whether it is little, and nothing that only a load of its own can record."""
    size_bytes = sum(piece.memory_bytes for piece in pieces)
    return size_bytes <= SMALL_BYTES and not any(
        piece.rejects or piece.values.ahead for piece in pieces
    )


def _failing(error: EltError) -> Iterator[Page]:
    """No more pages, but the error that reading them met."""
    raise error
    yield
