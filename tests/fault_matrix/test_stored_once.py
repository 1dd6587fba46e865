"""Promises about rows when a load fails and is run again: no duplicates, no losses."""

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg2
import pytest

from deployments.local.postgres import libpq
from flows.errors import BadPayloadError, NotFoundError, UnavailableError
from flows.load.options import LoadOptions
from flows.load.partitions import partitions_of
from flows.source import FullList, Partition, Resource, RowsOf, Rule
from tests.fault_matrix.faults import FAULTS, STATUSES, Ends, Fault, Passes
from tests.fault_matrix.lab import FOR_GOOD, SOURCE, Lab
from tests.fault_matrix.styles import (
    CHILDREN_OF_ONE,
    GRAPHQL,
    IDS,
    IN_STEPS,
    NONE,
    PAGED,
    ROWS,
    Style,
    named,
)

pytest_plugins = ["tests.fault_matrix.fixtures"]

APPENDED: Mapping[str, Any] = {"key": (), "disposition": "append"}
# How a load writes all of a list at once; a full list has no cursor.
WHOLE = [
    pytest.param(style, declared, id=f"{style}-{name}")
    for style in named("next_url", "keyset", "windows", "graphql", "none")
    for name, declared in (
        ("replace", {"disposition": "replace"}),
        ("list", {"deletes": FullList()}),
    )
    if (str(style), name) != ("windows", "list")
]
SOME = [
    fault
    for fault in (*STATUSES, *FAULTS)
    if fault.name in {"503", "cut_chunked", "html_as_json", "huge"}
]


def appended(style: Style) -> dict[str, Any]:
    """By time, append goes without a lookback."""
    return {**APPENDED, **({"cursor": IN_STEPS} if style.finds_by == "time" else {})}


def failure_of(fault: Fault, style: Style) -> tuple[Any, str]:
    outcome = fault.outcome_in(style)
    assert isinstance(outcome, Passes | Ends)
    kind = outcome.kind if isinstance(outcome, Ends) else UnavailableError
    return kind, outcome.says


@pytest.mark.sampled(8)
@pytest.mark.parametrize("fault", SOME, ids=str)
@pytest.mark.parametrize("style", (*PAGED, NONE), ids=str)
def test_append_stores_each_row_once_over_two_failures(
    lab: Lab, style: Style, fault: Fault
) -> None:
    clean = lab.clean_requests(style)
    trial = lab.trial(style, appended(style), max_wait_seconds=1, **fault.settings)
    for _ in range(2):
        trial.plan(fault.strike(FOR_GOOD, skip=style.pages_before))
        trial.load_in_vain(*failure_of(fault, style))
        assert trial.strikes()
    trial.lift()
    trial.load()
    assert trial.rows() == ROWS
    assert trial.asked() == clean[2 * style.pages_before :]
    assert sum(entry.inserted for entry in trial.entries()) == len(ROWS)


@pytest.mark.parametrize("style", (*PAGED, NONE), ids=str)
def test_append_stores_each_row_once_when_a_fault_passes(lab: Lab, style: Style) -> None:
    trial = lab.trial(style, appended(style))
    trial.plan(*({"fault": fault} for fault in ("503", "cut", "reset_at_once", "cut_chunked")))
    trial.load()
    assert trial.strikes() == len(lab.naps) == 4
    assert trial.rows() == ROWS


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("fault", "twice", "never"),
    [
        pytest.param({"fault": "moving"}, {10}, {0}, id="new"),
        pytest.param({"fault": "moving", "rows": -1}, set(), {11}, id="gone"),
        pytest.param({"fault": "duplicate"}, {9, 10, 17, 18}, set(), id="duplicate"),
    ],
)
@pytest.mark.parametrize("style", PAGED, ids=str)
def test_append_stores_every_row_sent_where_rows_move_between_pages(
    lab: Lab, style: Style, fault: Mapping[str, Any], twice: set[int], never: set[int]
) -> None:
    """By position, and without a key, rows that moved to the next page are stored again.

    By the last row or by time, only rows that the API itself lists twice are.
    """
    trial = lab.trial(style, appended(style))
    trial.plan({**fault, "skip": 1})
    trial.load()
    assert trial.strikes() == 1
    by_place = style.finds_by == "position"
    if fault["fault"] == "moving" and not by_place:
        assert trial.ids() == IDS
    elif style.finds_by == "time":
        assert Counter(trial.ids()) == Counter([*IDS, 17, 18])
    else:
        assert Counter(trial.ids()) == Counter([*({*IDS} - never), *twice])


@pytest.mark.sampled(6)
@pytest.mark.parametrize("fault", SOME, ids=str)
@pytest.mark.parametrize(("style", "declared"), WHOLE)
def test_replace_keeps_the_old_rows_until_the_new_ones_are_all_there(
    lab: Lab, style: Style, fault: Fault, declared: Mapping[str, Any]
) -> None:
    """Nobody sees the first page, in which a row is gone."""
    clean = lab.clean_requests(style)
    trial = lab.trial(style, declared, max_wait_seconds=1, **fault.settings)
    trial.load()
    rows = trial.rows()
    assert [{name: row[name] for name in ROWS[0]} for row in rows] == ROWS
    moves = [{"fault": "moving", "rows": -1}] * style.pages_before
    trial.plan(*moves, fault.strike(FOR_GOOD))
    trial.load_in_vain(*failure_of(fault, style))
    assert trial.strikes()
    assert trial.rows() == rows
    assert trial.entries()[-1].extracted == 0

    trial.lift()
    entry = trial.load()
    assert trial.asked() == clean
    assert trial.rows() == rows
    assert (entry.unchanged, entry.deleted) == (len(ROWS), 0)


@pytest.mark.parametrize(
    "style", named("next_url", "token_body", "graphql", "offset_total"), ids=str
)
@pytest.mark.parametrize(
    "declared", [{"disposition": "replace"}, {"deletes": FullList()}, {}], ids=str
)
def test_what_replaces_rows_refuses_a_list_that_stops_though_more_was_announced(
    lab: Lab, style: Style, declared: Mapping[str, Any]
) -> None:
    """204 in place of page 3, of which 5 rows less would be no remarkable shrinkage."""
    trial = lab.trial(style, {**declared, "rules": (Rule("ignore", status=404),)})
    trial.load()
    rows = trial.rows()
    options = LoadOptions(full_refresh=not declared, accepts_shrinkage=True)
    trial.plan({"fault": "204", "skip": 2})
    with pytest.raises(
        BadPayloadError, match=r"answered without records \(status 204.*more follow"
    ):
        trial.load(options)
    trial.plan({"fault": "404", "skip": 2})
    with pytest.raises((BadPayloadError, NotFoundError)):
        trial.load(options)
    assert trial.rows() == rows
    trial.lift()
    assert trial.load(options).unchanged == len(rows)


def test_replace_believes_that_a_list_has_ended_where_nothing_else_was_announced(lab: Lab) -> None:
    """Pages are counted until one is empty; `end` says that the API ends its links so."""
    for style, declared in (
        (named("page")[0], {}),
        (named("next_url")[0], {"rules": (Rule("end", status=204),)}),
    ):
        trial = lab.trial(style, {"disposition": "replace", **declared})
        trial.load()
        trial.plan({"fault": "204", "skip": 2})
        assert trial.load().deleted == 5
        assert trial.load().inserted == 5
        assert trial.rows() == ROWS


def test_a_full_list_may_end_with_a_response_without_records_where_that_is_declared(
    lab: Lab,
) -> None:
    declared = {"deletes": FullList(), "rules": (Rule("end", status=204),)}
    trial = lab.trial(named("next_url")[0], declared)
    trial.load()
    trial.plan({"fault": "204", "skip": 2})
    assert trial.load().deleted == 5
    assert trial.load().updated == 5


def test_replace_removes_more_rows_than_usual_only_where_that_is_accepted(lab: Lab) -> None:
    """204 in place of page 2 would remove 15 of 25 rows."""
    [style] = named("page")
    trial = lab.trial(style, {"disposition": "replace"})
    trial.load()
    trial.plan({"fault": "204", "skip": 1})
    trial.load_in_vain(BadPayloadError, "holds 25 rows, and this load would leave 10")
    assert trial.rows() == ROWS
    trial.plan({"fault": "204", "skip": 1})
    assert trial.load(LoadOptions(accepts_shrinkage=True)).deleted == 15


def test_a_list_of_which_a_page_is_missing_marks_nothing_unless_that_is_accepted(lab: Lab) -> None:
    """204 in place of page 2: no page 3 either."""
    [style] = named("page")
    trial = lab.trial(style, {"deletes": FullList()})
    trial.load()
    trial.plan({"fault": "204", "skip": 1})
    trial.load_in_vain(BadPayloadError, "holds 25 rows, and this load would leave 10")
    assert not any(row["_deleted_at"] for row in trial.rows())
    trial.plan({"fault": "204", "skip": 1})
    assert trial.load(LoadOptions(accepts_shrinkage=True)).deleted == 15
    assert [row["_deleted_at"] for row in trial.rows()] == [False] * 10 + [True] * 15
    assert trial.load().updated == 15
    assert [{name: row[name] for name in ROWS[0]} for row in trial.rows()] == ROWS
    assert not any(row["_deleted_at"] for row in trial.rows())


NOT_SENT_AGAIN = [
    fault
    for fault in (*STATUSES, *FAULTS)
    if isinstance(fault.outcome, Passes) and not fault.takes_time
]


@pytest.mark.parametrize("fault", NOT_SENT_AGAIN, ids=str)
def test_a_post_that_may_have_had_an_effect_is_not_retried(lab: Lab, fault: Fault) -> None:
    """The next load sends it, when a person or a schedule starts it."""
    [style] = named("graphql")
    trial = lab.trial(style, {**GRAPHQL, "is_repeatable": False}, **fault.settings)
    trial.plan(fault.strike(FOR_GOOD, skip=1))
    trial.load_in_vain(UnavailableError, "A POST is not retried unless .*is_repeatable=True")
    assert trial.strikes() == 1
    assert len(trial.asked()) == 2
    assert (trial.rows(), lab.naps) == (ROWS[:10], [])
    trial.lift()
    trial.load()
    assert trial.asked() == lab.clean_requests(style)[1:]
    assert trial.rows() == ROWS


def children_of(parents: str) -> Resource:
    return CHILDREN_OF_ONE.resource(
        "children",
        key=("parent", "id"),
        partitions=RowsOf(parents, {"parent": "id"}),
        partition_columns=("parent",),
    )


def test_children_that_fail_do_not_stop_the_children_of_other_parents(lab: Lab) -> None:
    """Each has its own entry in the ledger, and its own resume point."""
    parents = lab.trial(replace(CHILDREN_OF_ONE, path="parents", partition=Partition()))
    parents.name, parents.declared = "parents", {"partitions": (Partition(),)}
    parents.load()
    children = lab.trial(CHILDREN_OF_ONE, max_wait_seconds=1)
    with closing(psycopg2.connect(libpq(lab.database))) as opened:
        partitions = partitions_of(opened, SOURCE, children_of("parents"))
    assert [partition.name for partition in partitions] == ["1", "2", "3", "4", "5"]
    children.plan({"fault": "503", "times": FOR_GOOD, "skip": 1})
    for partition in partitions:
        children.style = replace(CHILDREN_OF_ONE, partition=partition)
        if partition.name == "3":
            children.load_in_vain(UnavailableError, "/parents/3/children.*answered 503")
        else:
            children.load()
    assert children.strikes()
    counts = [(entry.partition, entry.state, entry.inserted) for entry in children.entries()]
    assert counts == [
        ("1", "succeeded", 3), ("2", "succeeded", 0), ("3", "failed", 10), ("4", "succeeded", 9),
        ("5", "succeeded", 1),
    ]  # fmt: skip
    children.style = CHILDREN_OF_ONE
    children.lift()
    assert children.load().inserted == 2
    assert children.ids() == IDS
    assert len(children.asked()) == 1


def test_parents_that_fail_leave_no_children_to_ask_for(lab: Lab) -> None:
    """An API that is away must not look like one without parents once they are known."""
    parents = lab.trial(replace(CHILDREN_OF_ONE, path="parents", partition=Partition()))
    parents.name, parents.declared = "absent_parents", {"partitions": (Partition(),)}
    parents.plan({"fault": "404"})
    parents.load_in_vain(NotFoundError, "answered 404")
    assert parents.strikes() == 1
    assert parents.rows() == []
    children = children_of(parents.name)
    with closing(psycopg2.connect(libpq(lab.database))) as opened:
        assert partitions_of(opened, SOURCE, children) == ()
    parents.lift()
    parents.load()
    parents.plan({"fault": "404"})
    parents.load_in_vain(NotFoundError, "answered 404")
    with closing(psycopg2.connect(libpq(lab.database))) as opened:
        assert len(partitions_of(opened, SOURCE, children)) == 5
