"""Promises of a load that meets a fault: every row exactly, or the named error and none lost.

A sample of the table of styles and faults is tried; with CHAOS=full (`make test-chaos`) all of it.
"""

import time
from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest

from flows.errors import BadRequestError, EltError, NotFoundError, UnavailableError
from flows.load.ledger import Entry
from tests.fault_api.catalogue.formats import FORMATS
from tests.fault_api.catalogue.logins import LOGINS
from tests.fault_api.catalogue.styles import STYLES
from tests.fault_matrix.faults import FAULTS, STATUSES, WAITS, Ends, Fault, Goes, Passes, Stops
from tests.fault_matrix.lab import FOR_GOOD, Asked, Lab, Nap, Trial
from tests.fault_matrix.styles import ALL, TABLE, Style, named

pytest_plugins = ["tests.fault_matrix.fixtures"]

# Time for a few attempts, and for two requested waits, but not for three.
MAX_WAIT_SECONDS = 6
MAX_ASKED_WAIT_SECONDS = 20
# Only these styles have lasting slowness; they differ in how they send requests.
ASKING_DIFFERENTLY = named("next_url", "graphql", "none")


def cases(
    kind: type | Any, faults: Iterable[Fault] = FAULTS, styles: Iterable[Style] = TABLE
) -> list[Any]:
    """Every fault in every style in which it has such an outcome."""
    found = [
        pytest.param(style, fault, id=f"{style}-{fault}")
        for style, fault in product(styles, faults)
        if isinstance(fault.outcome_in(style), kind)
    ]
    assert found
    return found


def lasting_cases() -> list[Any]:
    quick = [fault for fault in FAULTS if not fault.takes_time]
    slow = [fault for fault in FAULTS if fault.takes_time]
    return [*cases(Passes | Ends, quick), *cases(Passes | Ends, slow, ASKING_DIFFERENTLY)]


def test_every_style_and_format_and_login_has_a_row() -> None:
    served = {style.path for style in ALL}
    assert len(STYLES) > 10
    assert {f"styles/{name}" for name in STYLES} <= served
    assert {f"formats/{name}" for name in FORMATS} <= served
    assert {f"login/{name}" for name in LOGINS} <= served


@pytest.mark.parametrize("style", ALL, ids=str)
def test_without_a_fault_every_row_is_read_once(lab: Lab, style: Style) -> None:
    asked = lab.clean_requests(style)
    assert len({tuple(request.words) for request in asked}) == style.pages
    assert lab.naps == []


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("style", "fault"), cases(Goes))
def test_a_fault_that_does_no_harm_leaves_every_row_once(
    lab: Lab, style: Style, fault: Fault
) -> None:
    trial = lab.trial(style, **fault.settings)
    trial.plan(fault.strike(1 if fault.takes_time else max(1, style.pages - 1)))
    entry = trial.load()
    assert trial.strikes() == trial.planned_strikes()
    assert_whole(trial, entry)
    assert lab.naps == []


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("style", "fault"), cases(Passes))
def test_a_fault_that_passes_leaves_every_row_once(lab: Lab, style: Style, fault: Fault) -> None:
    """It strikes every page, the second one twice; a slow one the last page only."""
    trial = lab.trial(style, **fault.settings)
    strikes = [fault.strike(1 + page % 2, skip=page) for page in range(style.pages)]
    trial.plan(*(strikes[-1:] if fault.takes_time else strikes))
    entry = trial.load()
    assert trial.strikes() == trial.planned_strikes()
    assert_whole(trial, entry)
    assert len(lab.naps) == trial.planned_strikes() or fault.takes_time


@pytest.mark.sampled(3)
@pytest.mark.parametrize("style", TABLE, ids=str)
def test_statuses_that_pass_leave_every_row_once(lab: Lab, style: Style) -> None:
    """All of them, one after the other, before the last page."""
    trial = lab.trial(style)
    passing = [fault for fault in STATUSES if isinstance(fault.outcome, Passes)]
    trial.plan(*(fault.strike(skip=style.pages - 1) for fault in passing))
    entry = trial.load()
    assert trial.strikes() == len(lab.naps) == len(passing) == 7
    assert_whole(trial, entry)


def assert_whole(trial: Trial, entry: Entry) -> None:
    """One load brought every row, and the ledger knows of nothing else."""
    style = trial.style
    assert trial.rows() == style.rows
    assert trial.entries() == [entry]
    assert (entry.state, entry.error, entry.pages) == ("succeeded", None, style.pages)
    assert (entry.extracted, entry.inserted) == (len(style.rows), len(style.rows))
    assert not trial.has_resume_point()


@pytest.mark.sampled(16)
@pytest.mark.parametrize(("style", "fault"), lasting_cases())
def test_a_lasting_fault_ends_in_its_error_and_the_next_load_resumes(
    lab: Lab, style: Style, fault: Fault
) -> None:
    """All pages after the first are struck, and none when the next load comes."""
    clean = lab.clean_requests(style)
    trial = lab.trial(style, max_wait_seconds=MAX_WAIT_SECONDS, **fault.settings)
    before = style.pages_before
    error = assert_fails_for_good(trial, lab.naps, fault, skip=before)
    if fault.fault not in {"redirect", "next_link"}:
        assert clean[before].target in str(error)
    [failed] = trial.entries()
    assert trial.rows() == style.rows_before
    assert (failed.pages, failed.inserted) == (before, len(style.rows_before))
    assert failed.extracted == failed.inserted + failed.rejected

    trial.lift()
    assert trial.load().state == "succeeded"
    assert trial.rows() == style.rows
    assert_asked(trial, clean[before:])
    assert sum(entry.inserted for entry in trial.entries()) == len(style.rows)


@pytest.mark.sampled(8)
@pytest.mark.parametrize("style", TABLE, ids=str)
def test_lasting_statuses_end_in_their_errors_and_a_later_load_resumes(
    lab: Lab, style: Style
) -> None:
    """Each load meets the next one of them, at the first page that is missing.

    If the request itself is refused, the load starts once more from scratch, and fails as well.
    """
    clean = lab.clean_requests(style)
    trial = lab.trial(style, max_wait_seconds=MAX_WAIT_SECONDS)
    trial.plan({"fault": "503", "times": FOR_GOOD, "skip": style.pages_before})
    trial.load_in_vain(UnavailableError, "answered 503")
    assert trial.strikes()
    for fault in STATUSES:
        lab.naps.clear()
        outcome = fault.outcome
        begins_again = isinstance(outcome, Ends) and outcome.kind in {
            BadRequestError,
            NotFoundError,
        }
        asked = [clean[style.pages_before], *(clean[:1] if begins_again else [])]
        error = assert_fails_for_good(trial, lab.naps, fault, skip=0, requests=len({*asked}))
        assert str(error).startswith(f"{trial.url}{asked[-1].target}: answered")
        assert {*trial.asked()} == {*asked}
        assert trial.rows() == style.rows_before
    trial.lift()
    assert trial.load().state == "succeeded"
    assert trial.rows() == style.rows
    assert_asked(trial, clean[style.pages_before :])
    assert len(trial.entries()) == len(STATUSES) + 2


def assert_asked(trial: Trial, wanted: list[Asked]) -> None:
    """These requests, and in this order unless some are sent ahead of their turn."""
    order = str if trial.style.concurrency > 1 else lambda _: ""
    assert sorted(trial.asked(), key=order) == sorted(wanted, key=order)


def assert_fails_for_good(
    trial: Trial, naps: list[Nap], fault: Fault, skip: int, requests: int = 1
) -> EltError:
    """It fails as the table states, with retries only where they can help.

    The fault strikes so many different requests.
    """
    outcome = fault.outcome_in(trial.style)
    trial.plan(fault.strike(FOR_GOOD, skip))
    if isinstance(outcome, Ends):
        error = trial.load_in_vain(outcome.kind, outcome.says)
        assert naps == []
        asked = [tuple(request.words) for request in trial.asked()]
        assert len(set(asked)) == len(asked)
    else:
        error = trial.load_in_vain(UnavailableError, outcome.says)
        assert "Run it again later: committed rows are kept" in str(error)
        assert f"(attempt {error.answer.attempts}, waited " in str(error)
        for thread in {nap.thread for nap in naps}:
            slept = sum(nap.seconds for nap in naps if nap.thread == thread)
            assert slept <= trial.settings["max_wait_seconds"]
    if trial.style.concurrency > 1:
        # Later pages failed as well, without effect.
        return error
    strikes = trial.strikes()
    if isinstance(outcome, Passes):
        assert error.answer.attempts == strikes or fault.takes_time
    if fault.fault not in {"redirect", "next_link"}:
        assert trial.style.target in str(error)
    if fault.fault.isdigit():
        assert (error.answer.status, error.answer.attempts) == (
            int(fault.fault),
            strikes / requests,
        )
    return error


@pytest.mark.parametrize(("style", "fault"), cases(Stops))
def test_a_response_without_rows_is_believed_and_the_next_load_reads_the_rest(
    lab: Lab, style: Style, fault: Fault
) -> None:
    """The cursor moves past it: only a lookback reads the rows it withheld."""
    clean = lab.clean_requests(style)
    trial = lab.trial(style)
    if style.concurrency > 1:
        trial.plan({"path": clean[style.pages_before].target, **fault.strike()})
    else:
        trial.plan(fault.strike(skip=style.pages_before))
    entry = trial.load()
    assert trial.strikes() == 1
    later = style.rows[20:] if style.finds_by == "time" else []
    assert trial.rows() == [*style.rows_before, *later]
    assert (entry.state, lab.naps) == ("succeeded", [])
    assert trial.load().state == "succeeded"
    assert trial.rows() == style.rows


@pytest.mark.sampled(6)
@pytest.mark.parametrize(("style", "fault"), cases(Passes, WAITS, named("next_url")))
def test_a_wait_that_is_asked_for_is_kept_in_full(lab: Lab, style: Style, fault: Fault) -> None:
    """Or our own wait, where the header does not apply to this status."""
    trial = lab.trial(style)
    trial.plan(fault.strike(2, skip=1))
    began_at = time.time()
    entry = trial.load()
    assert trial.strikes() == len(lab.naps) == 2
    asked_seconds = fault.outcome_in(style).asked_seconds
    for nap, asked_at in zip(lab.naps, [began_at, lab.naps[0].at], strict=True):
        if asked_seconds is None:
            assert 0 <= nap.seconds <= 2
        else:
            assert nap.at + nap.seconds >= asked_at + asked_seconds
            assert nap.seconds <= asked_seconds + 1
    assert_whole(trial, entry)


@pytest.mark.sampled(6)
@pytest.mark.parametrize(("style", "fault"), cases(Passes | Ends, WAITS, named("next_url")))
def test_a_wait_that_is_too_long_or_in_vain_is_not_begun(
    lab: Lab, style: Style, fault: Fault
) -> None:
    trial = lab.trial(style, max_wait_seconds=MAX_ASKED_WAIT_SECONDS)
    assert_fails_for_good(trial, lab.naps, fault, skip=1)
    outcome = fault.outcome_in(style)
    if isinstance(outcome, Passes) and outcome.asked_seconds is not None:
        assert len(lab.naps) == 2
    assert trial.rows() == style.rows_before
