"""Parents and their children: a list that can only be read one parent at a time."""

from collections.abc import Sequence

from tests.fault_api.catalogue.items import Row, item
from tests.fault_api.catalogue.listing import Listing
from tests.fault_api.catalogue.styles import next_url
from tests.fault_api.exchange import Answer, Ask, AskError

# One parent has no children, one more than a page of them; 25 in all.
CHILD_COUNTS = {1: 3, 2: 0, 3: 12, 4: 9, 5: 1}


def answer(ask: Ask, path: Sequence[str]) -> Answer:
    """All parents, or the children of the one that the path names.

    Raises:
        AskError: when there is no such path or parent.
    """
    match path:
        case []:
            return parents(ask)
        case [parent, "children"]:
            return children(ask, parent)
    raise AskError(f"There is nothing at {ask.path}.", 404)


def parents(ask: Ask) -> Answer:
    """All parents, in pages with a next URL."""
    return next_url(ask, Listing(tuple(item(parent_id) for parent_id in CHILD_COUNTS)))


def children(ask: Ask, parent: str) -> Answer:
    """One parent's children, in pages with a next URL; their ids are unique among all.

    Raises:
        AskError: when there is no such parent.
    """
    found = [parent_id for parent_id in CHILD_COUNTS if str(parent_id) == parent]
    if not found:
        raise AskError(f"There is no parent {parent!r}.", 404)
    return next_url(ask, Listing(tuple(_children(found[0]))))


def _children(parent_id: int) -> list[Row]:
    first = 1 + sum(count for other, count in CHILD_COUNTS.items() if other < parent_id)
    numbers = range(first, first + CHILD_COUNTS[parent_id])
    return [{**item(number), "parent_id": parent_id} for number in numbers]
