"""Promises about rows that come late, twice, or move while they are read, and about loops.

A style that finds its next page by position can't detect moved rows: the tests name the rows it
misses, and the next load reads them. One that continues from the last row, or by time, misses none.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.errors import BadPayloadError, UnavailableError
from flows.load.options import LoadOptions
from flows.source import Cursor, Params, Partition, Window
from tests.fault_api.server import FAULTS as KNOWN_FAULTS
from tests.fault_matrix.faults import FAULTS, STATUSES
from tests.fault_matrix.lab import FOR_GOOD, Lab
from tests.fault_matrix.styles import IDS, IN_STEPS, LISTS, PAGED, ROWS, Style, named

pytest_plugins = ["tests.fault_matrix.fixtures"]

UNPAGED = tuple(style for style in LISTS if style.finds_by == "nothing")
LINKED = named("next_url", "next_path", "link_header")
CIRCLING = [style for style in PAGED if style.finds_by != "time"]
# Which other module has them.
ELSEWHERE = {
    "changed_schema": "test_changed_shape.py",
    "expired_tokens": "test_logged_in.py",
    "short_token": "test_logged_in.py",
}


@dataclass(frozen=True)
class Move:
    """A lasting change of the list of rows.

    Attributes:
        plan: the fault; without a skip it happens before the first page, with one between pages.
        ids: the table's final ids: rows deleted from the API after they were read stay.
        missed: ids that the first load does not get, by the style's `finds_by`.
        extracted: the number of rows it reads, with duplicates, by the same; where useful.
    """

    name: str
    plan: Mapping[str, Any]
    ids: Collection[int]
    missed: Mapping[str, set[int]] = field(default_factory=dict)
    extracted: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Its name, for the ids of the cases."""
        return self.name

    def ids_in(self, style: Style) -> set[int]:
        """By time, rows of days before the window are not requested."""
        return {*self.ids} & {*IDS} if style.finds_by == "time" else {*self.ids}


LATE, DUPLICATE, NEW = {"fault": "late"}, {"fault": "duplicate"}, {"fault": "moving"}
GONE = {"fault": "moving", "rows": -1}
BEFORE_PAGE_2 = {"skip": 1}
BEFORE_PAGES_2_AND_3 = {"skip": 1, "times": 2}
BEFORE_ALL = (
    Move("late", LATE, IDS),
    Move("duplicate", DUPLICATE, IDS, {}, {"position": 29, "row": 29, "time": 29, "nothing": 29}),
    Move("new", NEW, [0, *IDS]),
    Move("gone", GONE, IDS[1:]),
)
BETWEEN_PAGES = (
    Move("late", LATE | BEFORE_PAGE_2, IDS, {"position": {11, 12}}),
    Move(
        "duplicate", DUPLICATE | BEFORE_PAGE_2, IDS, {}, {"position": 29, "row": 29, "time": 27}
    ),
    Move("new", NEW | BEFORE_PAGE_2, [0, *IDS], {"position": {0}, "row": {0}}),
    Move(
        "new_twice", NEW | BEFORE_PAGES_2_AND_3, [-1, 0, *IDS],
        {"position": {-1, 0}, "row": {-1, 0}},
    ),
    Move("gone", GONE | BEFORE_PAGE_2, IDS, {"position": {11}}),
    Move("gone_twice", GONE | BEFORE_PAGES_2_AND_3, IDS, {"position": {11, 22}}),
)  # fmt: skip


def test_every_fault_of_the_api_is_in_a_table() -> None:
    tabled = {fault.fault for fault in (*STATUSES, *FAULTS)}
    moves = {move.plan["fault"] for move in (*BEFORE_ALL, *BETWEEN_PAGES)}
    assert len(KNOWN_FAULTS) > 30
    assert tabled | moves | {"loop", *ELSEWHERE} == set(KNOWN_FAULTS)
    for fault, module in ELSEWHERE.items():
        assert f'"fault": "{fault}"' in (Path(__file__).parent / module).read_text()


@pytest.mark.parametrize("move", BEFORE_ALL, ids=str)
@pytest.mark.parametrize("style", UNPAGED + named("next_url", "keyset", "windows"), ids=str)
def test_rows_that_moved_before_the_first_page_are_all_read(
    lab: Lab, style: Style, move: Move
) -> None:
    assert_reads(lab, style, move)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("move", BETWEEN_PAGES, ids=str)
@pytest.mark.parametrize("style", PAGED, ids=str)
def test_rows_that_move_between_pages_are_read_by_the_next_load_at_the_latest(
    lab: Lab, style: Style, move: Move
) -> None:
    assert_reads(lab, style, move)


def assert_reads(lab: Lab, style: Style, move: Move) -> None:
    trial = lab.trial(style)
    trial.plan(move.plan)
    entry = trial.load()
    assert trial.strikes() == trial.planned_strikes()
    wanted = move.ids_in(style)
    assert set(trial.ids()) == wanted - move.missed.get(style.finds_by, set())
    assert entry.inserted == len(trial.ids())
    if style.finds_by in move.extracted:
        assert entry.extracted == move.extracted[style.finds_by]
        assert entry.unchanged == entry.extracted - entry.inserted
    assert trial.load().state == "succeeded"
    assert trial.rows() == style.rows_of(sorted(wanted))


def since(_: Partition, window: Window) -> Params:
    return {"since": f"{window.since:%Y-%m-%d}"} if window.since else {}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("fault", [LATE, GONE], ids=["late", "gone"])
@pytest.mark.parametrize("style", LINKED + named("offset", "offset_total", "page"), ids=str)
def test_a_missed_row_arrives_by_a_long_enough_lookback_or_by_a_full_refresh(
    lab: Lab, style: Style, fault: Mapping[str, Any]
) -> None:
    """Row 11 is fourteen days older than the newest; by the cursor, it is not requested again."""
    short, long = timedelta(days=3), timedelta(days=20)
    for lookback, request, finds in (
        (long, LoadOptions(), True),
        (short, LoadOptions(), False),
        (short, LoadOptions(full_refresh=True), True),
    ):
        cursor = Cursor("updated_at", lookback)
        trial = lab.trial(style, {"cursor": cursor, "params": since})
        trial.plan({**fault, **BEFORE_PAGE_2})
        trial.load()
        assert trial.strikes() == 1
        assert 11 not in trial.ids()
        trial.load(request)
        assert (11 in trial.ids()) == finds


@pytest.mark.parametrize("style", PAGED, ids=str)
def test_rows_that_move_before_a_resume_are_read_by_the_next_load_at_the_latest(
    lab: Lab, style: Style
) -> None:
    """The load resumes where the other failed, but the rows there have changed meanwhile."""
    trial = lab.trial(style)
    trial.plan({"fault": "503", "times": FOR_GOOD, "skip": 1})
    trial.load_in_vain(UnavailableError, "answered 503")
    assert trial.strikes()
    trial.plan(GONE)
    trial.load()
    assert trial.strikes() == 1
    missed = {11} if style.finds_by == "position" else set()
    assert set(trial.ids()) == {*IDS} - missed
    trial.load()
    assert trial.ids() == IDS


def test_time_that_passes_without_its_rows_is_read_again_only_with_a_lookback(lab: Lab) -> None:
    """An API that sends 204 reports that nothing happened; append has to believe it as well."""
    [windows] = named("windows")
    for declared in ({}, {"key": (), "disposition": "append"}):
        trial = lab.trial(windows, {**declared, "cursor": IN_STEPS})
        trial.plan({"fault": "204", "skip": 1})
        trial.load()
        assert trial.strikes() == 1
        trial.load()
        assert trial.ids() == [*IDS[:10], *IDS[20:]]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("pages", [1, 2])
@pytest.mark.parametrize("style", CIRCLING, ids=str)
def test_a_loop_is_an_error_that_names_both_requests(lab: Lab, style: Style, pages: int) -> None:
    """A→A, and A→B→A; each page is stored once, and when the API is mended, the rest follows."""
    trial = lab.trial(style)
    trial.plan({"fault": "loop", "pages": pages, "times": FOR_GOOD})
    error = trial.load_in_vain(BadPayloadError, "The paging loops")
    assert trial.strikes() == len(trial.asked()) == pages + 1
    first, *_, last = trial.asked()
    assert [word for word in first.words + last.words if word not in str(error)] == []
    assert first != last
    assert trial.ids() == IDS[: 10 * pages]
    trial.lift()
    trial.load()
    assert trial.rows() == ROWS


@pytest.mark.parametrize("style", LINKED, ids=str)
def test_a_page_that_leads_to_itself_is_a_loop(lab: Lab, style: Style) -> None:
    trial = lab.trial(style)
    trial.plan({"fault": "loop", "times": FOR_GOOD, "skip": 1})
    trial.load_in_vain(BadPayloadError, r"loops: .*position=10 leads back to .*position=10\b")
    assert trial.strikes() == 1
    assert trial.ids() == IDS[:10]
    trial.lift()
    trial.load()
    assert trial.rows() == ROWS


def same_rows(count: int) -> list[dict[str, Any]]:
    """Plans of responses with the same ten rows, each with its own number beside them."""
    return [
        {"fault": "answer", "body": {"items": ROWS[:10], "total": 10_000, "answer": number}}
        for number in range(count)
    ]


@pytest.mark.parametrize("style", named("offset", "offset_total", "page", "keyset"), ids=str)
def test_repeated_rows_are_a_loop_whatever_else_the_page_contains(lab: Lab, style: Style) -> None:
    """An API that does not know the parameter sends its first page for ever, with a time in it."""
    trial = lab.trial(style)
    trial.plan(*same_rows(3))
    trial.load_in_vain(BadPayloadError, "The paging loops")


@pytest.mark.parametrize("style", LINKED, ids=str)
def test_links_without_end_to_pages_without_rows_are_followed_up_to_max_pages(
    lab: Lab, style: Style
) -> None:
    """Some APIs have empty pages in between: only the declaration can set a limit."""
    trial = lab.trial(style, {"max_pages": 8})
    trial.plan({"fault": "next_link", "to": "endless", "times": FOR_GOOD})
    entry = trial.load()
    assert trial.strikes() == entry.pages == 8
    assert trial.rows() == ROWS


@pytest.mark.sampled(8)
@pytest.mark.parametrize("status", ["400", "404", "410"])
@pytest.mark.parametrize("style", CIRCLING, ids=str)
def test_a_resume_point_that_has_expired_is_given_up_once(
    lab: Lab, style: Style, status: str
) -> None:
    """As page tokens do: the next load is complete, and requested the expired one once."""
    trial = lab.trial(style)
    trial.plan({"fault": "503", "skip": 1, "times": FOR_GOOD})
    trial.load_in_vain(UnavailableError, "answered 503")
    trial.lift()
    trial.plan({"fault": status})
    trial.load()
    assert trial.strikes() == 1
    assert trial.rows() == ROWS
