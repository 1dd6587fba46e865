"""A listing: rows in the order in which they are served, cut into parts.

Knows no HTTP. What a fault does to a listing lasts until another one takes its place.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

from tests.fault_api.catalogue.items import Row


@dataclass(frozen=True)
class Part:
    """Some rows; the next part begins at `next_start`, None after the last one."""

    rows: tuple[Row, ...]
    next_start: int | None
    total: int


@dataclass(frozen=True)
class Listing:
    """Rows to be served.

    Attributes:
        loop_parts: after so many parts comes the first of them again; 0 for no loop.
        next_link: where the link to the next part leads instead of there.
    """

    rows: tuple[Row, ...]
    loop_parts: int = 0
    next_link: str = ""

    def part(self, start: int, size: int) -> Part:
        """The part at `start`; in a loop there is always a next one."""
        stop = start + size
        next_start = stop if stop < len(self.rows) else None
        if self.loop_parts:
            following = start // size + 1
            is_closed = following % self.loop_parts == 0
            next_start = (following - self.loop_parts if is_closed else following) * size
        return Part(self.rows[start:stop], next_start, len(self.rows))

    def counted_part(self, start: int, size: int) -> Part:
        """The same for a client that counts by itself: in a loop it meets the same rows again."""
        if self.loop_parts:
            start = start // size % self.loop_parts * size
        return self.part(start, size)

    def position_after(self, row_id: int) -> int:
        """Where the rows after this one begin; rows out of order keep their place in the list."""
        ids = [row["id"] for row in self.rows]
        if row_id in ids:
            return ids.index(row_id) + 1
        return next((place for place, other in enumerate(ids) if other > row_id), len(ids))

    def between(self, since: str, until: str) -> "Listing":
        """The rows that came at `since` or later and before `until`.

        A row comes no earlier than those before it in the list: a late one is found among the rows
        it came with, whatever it says of its own time.
        """
        came = accumulate((row["updated_at"] for row in self.rows), max)
        rows = (row for row, moment in zip(self.rows, came, strict=True) if since <= moment < until)
        return replace(self, rows=tuple(rows))
