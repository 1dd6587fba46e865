"""Checks that a source's own `records` function returns as many records as the API sent.

Paging by offset, page number or last record counts them. Too few records would end the reading too
early; too many would skip records.
"""

from collections.abc import Callable, Iterator
from inspect import unwrap
from typing import Any

from flows.errors import BadPayloadError, ConfigurationError
from flows.extract.paginators import BY_COUNT
from flows.extract.selectors import RECORDS
from flows.guards import unguarded
from flows.page import Page
from flows.source import Resource

# How deep APIs put their records, e.g. `data.orders.page.edges`.
MAX_DEPTH = 5


def count_check(resource: Resource) -> Callable[[Page, int], None] | None:
    """A check that refuses a page from which `records` returned too many or too few records.

    None for the project's own functions. A body that is not JSON can't be compared. The check
    raises ConfigurationError if no list in the page has that length; filter or change records in
    `map_record` instead. Also if paging moves on by that number, and a list of fewer records could
    be the one that the API counts.
    """
    if isinstance(unwrap(resource.records), RECORDS):
        return None

    moves_by_count = isinstance(unguarded(resource.paging), BY_COUNT)

    def check(page: Page, count: int) -> None:
        sent = _candidate_lists(page)
        if not _is_all(count, sent):
            raise ConfigurationError(
                f"{resource.name}: its `records` function returned {count} records of {page.url}, "
                f"which sent {_describe(page, sent)}. Paging counts the records, so return all of "
                "a list that the API sent, and change or omit records in `map_record`; or declare "
                "with `counts` which list paging counts."
            )
        if moves_by_count and _has_shorter_list(count, sent):
            raise ConfigurationError(
                f"{resource.name}: its `records` function returned {count} records of {page.url}, "
                f"which sent {_describe(page, sent)}. Paging moves on by what the API counts: name "
                'that list, e.g. offset(counts="data.orders").'
            )

    return check


def _candidate_lists(page: Page) -> dict[str, Any]:
    """Candidates for the page's records, by path: lists, and objects of objects; only in JSON."""
    try:
        return dict(_containers(page.document, "", MAX_DEPTH))
    except BadPayloadError:
        return {}


def _containers(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list) or _holds_objects(value):
        yield path, value
    if isinstance(value, dict) and depth:
        for name, inner in value.items():
            yield from _containers(inner, f"{path}.{name}" if path else name, depth - 1)


def _holds_objects(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and bool(value) and all(isinstance(e, dict) for e in value)


def _is_all(count: int, sent: dict[str, Any]) -> bool:
    """Whether `count` can be complete: 0 if no list holds records, 1 for the whole document."""
    if count:
        return count == 1 or not sent or count in map(len, sent.values())
    return not any(isinstance(e, list) and _may_be_records(e) for e in sent.values())


def _has_shorter_list(count: int, sent: dict[str, Any]) -> bool:
    """Whether the API may count the records of another list, of which these are several each."""
    lists = [e for e in sent.values() if isinstance(e, list) and _may_be_records(e)]
    return any(len(records) < count for records in lists)


def _may_be_records(values: list[Any]) -> bool:
    """Whether they are objects, other than links (as in HAL and other hypermedia)."""
    return _holds_objects(values) and not all("href" in value for value in values)


def _describe(page: Page, sent: dict[str, Any]) -> str:
    """How many records each list has; a path may contain personal data."""
    if page.hides_content:
        return f"{len(sent)} lists"
    return ", ".join(f"{len(values)} under {path!r}" for path, values in sent.items()) or "no list"
