"""Promises of a limited load: it reads little, and the next load makes the table whole."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from flows.errors import ConfigurationError, EltError, NotFoundError
from flows.extract.selectors import records_at
from flows.load.ledger import Entry
from flows.load.options import LoadOptions
from flows.load.partition_reader import ReadPages
from flows.load.side_by_side import load_side_by_side
from flows.page import Page, Resume
from flows.source import Cursor, Partition, Resource, RowsOf, Window

Query = Callable[..., list[tuple[Any, ...]]]

MERGED = Resource(
    "items",
    "items",
    records_at(),
    key=("parent", "id"),
    cursor=Cursor("at"),
    partitions=(Partition("0", {"parent": 0}),),
    partition_columns=("parent",),
)
APPENDED = replace(
    MERGED,
    key=(),
    cursor=Cursor("at", start=datetime(2024, 1, 1, tzinfo=UTC), step=timedelta(days=36500)),
)
REPLACED = replace(MERGED, disposition="replace", cursor=None)
LIMITED = LoadOptions(limit=3)
CURSORS = "select cursor_at is not null from elt.checkpoints order by partition"
IDS = "select parent, id from raw_shop.items order by 1, 2"


@dataclass
class Api:
    """Ten rows for each parent, two on a page; `asked` has the parent and number of each page."""

    rows: list[int] = field(default_factory=lambda: list(range(10)))
    asked: list[tuple[int, int]] = field(default_factory=list)

    def read(self, partition: Partition, window: Window, resume: Resume | None) -> Iterator[Page]:
        parent = partition.values["parent"]
        for number in range(int(resume.url or 0) if resume else 0, 5):
            self.asked.append((parent, number))
            rows = self.rows[2 * number : 2 * number + 2]
            body = [{"id": each, "at": f"2024-01-{each + 1:02}"} for each in rows]
            following = Resume("0", str(number + 1), window.since) if number < 4 else None
            yield Page(json.dumps(body).encode(), f"page {number}", resume=following)

    @contextmanager
    def reader(self) -> Iterator[ReadPages]:
        yield self.read


class Gone(Api):
    def read(self, partition: Partition, *_: Any) -> Iterator[Page]:
        self.asked.append((partition.values["parent"], 0))
        raise NotFoundError("no such parent")


Load = Callable[..., tuple[list[Entry], list[EltError]]]


@pytest.fixture
def load(database: URL) -> Load:
    """Load so many parents' items."""

    def load_them(
        api: Api, resource: Resource, options: LoadOptions, parents: int = 1
    ) -> tuple[list[Entry], list[EltError]]:
        connect = partial(psycopg2.connect, libpq(database))
        version = 7 if isinstance(resource.partitions, RowsOf) else None
        given = [Partition(str(n), {"parent": n}, False, version) for n in range(parents)]
        return load_side_by_side(connect, "shop", resource, given, api.reader, options, 3)

    return load_them


def wanted(parents: int = 1) -> list[tuple[int, int]]:
    return [(parent, number) for parent in range(parents) for number in range(10)]


@pytest.mark.parametrize(
    ("resource", "again"),
    [
        pytest.param(MERGED, 0, id="a merge begins again at the cursor"),
        pytest.param(replace(MERGED, cursor=None), 0, id="a merge without a cursor"),
        pytest.param(APPENDED, 2, id="an append reads on: it would store rows twice"),
        pytest.param(replace(APPENDED, cursor=None), 2, id="an append without a cursor"),
    ],
)
def test_the_next_load_makes_the_table_whole(
    load: Load, query: Query, resource: Resource, again: int
) -> None:
    api = Api()
    [entry], errors = load(api, resource, LIMITED)
    assert (entry.state, entry.extracted, errors) == ("succeeded", 4, []), "two pages of two"
    assert query(CURSORS) == [(False,)]
    query("update elt.checkpoints set saved_at = saved_at - interval '2 days'")
    api.asked.clear()
    assert load(api, resource, LoadOptions())[1] == []
    assert api.asked[0] == (0, again)
    assert query(IDS) == wanted()
    assert query(CURSORS) == [(resource.cursor is not None,)]


KNOWN = "select load_id, succeeded_by, loaded_by from elt.partitions"


def test_a_part_says_nothing_of_a_table_that_was_loaded(load: Load, query: Query) -> None:
    """Neither that it is fresh nor, after a failure, that it is complete again."""
    load(Api(), MERGED, LIMITED)
    assert query(KNOWN) == [(1, 1, None)], "its models are built, and a contract has not begun"
    load(Api(), MERGED, LoadOptions())
    loaded = query("select succeeded_at, stored_by from elt.partitions")
    load(Api(rows=list(range(10, 20))), MERGED, LIMITED)
    assert query(KNOWN) == [(2, 2, 2)]
    assert query("select succeeded_at, 2 from elt.partitions where stored_by = 3") == loaded
    load(Gone(), MERGED, LoadOptions())
    load(Api(), MERGED, LIMITED)
    assert query(KNOWN) == [(4, 2, 2)]
    load(Api(), MERGED, LoadOptions(limit=11))
    assert query(KNOWN) == [(6, 6, 6)], "it has read everything"


def test_rows_that_have_shifted_since_are_not_missed(load: Load, query: Query) -> None:
    api = Api()
    load(api, MERGED, LIMITED)
    api.rows.insert(0, 30)
    api.rows.pop()
    load(api, MERGED, LoadOptions())
    assert query(IDS) == [*wanted()[:-1], (0, 30)]


def test_a_limited_range_moves_no_cursor_either(load: Load, query: Query) -> None:
    api, january = Api(), Window(datetime(2024, 1, 1, tzinfo=UTC))
    by_hand = LoadOptions(window=january, limit=3)
    [entry], errors = load(api, MERGED, by_hand)
    assert (entry.extracted, errors, query(CURSORS)) == (4, [], [(False,)])
    [error] = load(api, APPENDED, by_hand)[1]
    assert "limit=3 may end an append before all of the range is read" in str(error)
    load(api, MERGED, LoadOptions())
    assert query(IDS) == wanted()


def test_a_part_does_not_replace_a_table(load: Load, query: Query) -> None:
    """A whole list that is shorter than the limit does."""
    load(Api(), REPLACED, LoadOptions())
    [error] = load(Api(rows=list(range(20, 30))), REPLACED, LIMITED)[1]
    assert isinstance(error, ConfigurationError)
    assert "shop.items[0]: it replaces its table, and limit=3 ended the reading" in str(error)
    assert query(IDS) == wanted()
    assert load(Api(), REPLACED, LoadOptions(limit=11))[1] == []


def test_children_share_the_limit_and_the_next_run_reads_all_others(
    load: Load, query: Query
) -> None:
    children = replace(MERGED, partitions=RowsOf("parents", {"parent": "id"}))
    api = Api()
    entries, errors = load(api, children, LoadOptions(limit=12), parents=6)
    assert ([entry.extracted for entry in entries], errors) == ([10, 2], [])
    assert api.asked[-1] == (1, 0)
    api.asked.clear()
    load(api, children, LoadOptions(), parents=6)
    assert sorted({parent for parent, _ in api.asked}) == [1, 2, 3, 4, 5], "the first is complete"
    assert query(IDS) == wanted(6)


def test_parents_without_children_end_a_limited_run_too(load: Load) -> None:
    api = Api(rows=[])
    assert len(load(api, replace(MERGED, cursor=None), LIMITED, parents=6)[0]) == 3


def test_parents_that_fail_end_a_limited_run_too(load: Load) -> None:
    api = Gone()
    assert len(load(api, MERGED, LIMITED, parents=6)[1]) == 3
    assert len(api.asked) == 3


def test_records_that_a_function_omits_count_for_all_parents(load: Load) -> None:
    resource = replace(MERGED, cursor=None, map_record=lambda record: None)
    assert len(load(Api(), resource, LIMITED, parents=6)[0]) == 1


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": 1, "full_refresh": True}])
def test_a_limit_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="limit"):
        LoadOptions(**options)
