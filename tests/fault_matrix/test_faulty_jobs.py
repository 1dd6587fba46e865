"""Promises of a job that meets a fault when it is submitted, at work, done, or downloaded."""

from collections.abc import Iterable
from typing import Any

import pytest

from flows.errors import UnavailableError
from tests.fault_matrix.faults import FAULTS, STATUSES, Ends, Fault, Passes
from tests.fault_matrix.lab import FOR_GOOD, Lab, Trial
from tests.fault_matrix.styles import CSV, JOB, TEXTS

pytest_plugins = ["tests.fault_matrix.fixtures"]

STEPS = {"submission": 0, "first status": 1, "second status": 2, "download": 3}
WHOLE = ["POST", "GET", "GET", "GET"]
FORGOTTEN = ("404", "410")
every_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)


def ending(faults: Iterable[Fault]) -> list[Fault]:
    """Those that no retry mends, except for what a job expires with, which is sent a POST again."""
    found = [
        fault
        for fault in faults
        if isinstance(fault.outcome_in(CSV), Ends)
        and fault.name not in FORGOTTEN
        and fault.fault not in {"redirect", "next_link"}
    ]
    assert len(found) > 3
    return found


def methods(trial: Trial) -> list[str]:
    return [asked.method for asked in trial.asked()]


def assert_goes_on(trial: Trial, wanted: list[str]) -> None:
    trial.lift()
    assert trial.load().state == "succeeded"
    assert trial.rows() == TEXTS
    assert methods(trial) == wanted
    assert sum(entry.inserted for entry in trial.entries()) == len(TEXTS)


def test_without_a_fault_a_job_is_submitted_asked_for_and_downloaded(lab: Lab) -> None:
    trial = lab.trial(JOB)
    entry = trial.load()
    assert (entry.pages, entry.extracted, entry.inserted) == (1, len(TEXTS), len(TEXTS))
    assert trial.rows() == TEXTS
    assert methods(trial) == WHOLE


@every_step
def test_faults_that_pass_leave_one_job_and_every_row_once(lab: Lab, step: int) -> None:
    quick = [fault for fault in (*STATUSES, *FAULTS) if not fault.takes_time]
    passing = [fault for fault in quick if isinstance(fault.outcome_in(CSV), Passes)]
    trial = lab.trial(JOB, max_wait_seconds=3000)
    trial.plan(*(fault.strike(skip=step) for fault in passing))
    entry = trial.load()
    assert trial.strikes() == len(passing) > 10
    assert trial.rows() == TEXTS
    assert (entry.pages, entry.inserted) == (1, len(TEXTS))
    assert methods(trial).count("POST") == (1 if step else 1 + len(passing))


@every_step
def test_an_api_that_stays_away_fails_the_load_and_the_next_goes_on(lab: Lab, step: int) -> None:
    trial = lab.trial(JOB, max_wait_seconds=6)
    trial.plan({"fault": "503", "times": FOR_GOOD, "skip": step})
    trial.load_in_vain(UnavailableError, "answered 503")
    assert trial.rows() == []
    assert_goes_on(trial, goes_on_after(step))


@pytest.mark.parametrize("fault", ending(STATUSES), ids=str)
@every_step
def test_a_status_that_no_retry_mends_fails_the_load_and_the_next_goes_on(
    lab: Lab, step: int, fault: Fault
) -> None:
    trial = lab.trial(JOB)
    trial.plan(fault.strike(FOR_GOOD, skip=step))
    outcome: Any = fault.outcome
    trial.load_in_vain(outcome.kind, outcome.says)
    assert methods(trial) == WHOLE[: step + 1]
    assert_goes_on(trial, goes_on_after(step))


@pytest.mark.parametrize("fault", ending(FAULTS), ids=str)
def test_a_result_that_is_none_fails_the_load_and_the_next_goes_on(lab: Lab, fault: Fault) -> None:
    trial = lab.trial(JOB, **fault.settings)
    trial.plan(fault.strike(FOR_GOOD, skip=3))
    outcome: Any = fault.outcome_in(CSV)
    trial.load_in_vain(outcome.kind, outcome.says)
    assert trial.rows() == []
    assert_goes_on(trial, ["GET", "GET"])


@pytest.mark.parametrize("code", FORGOTTEN)
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_job_that_the_api_forgets_is_submitted_again(lab: Lab, step: int, code: str) -> None:
    trial = lab.trial(JOB)
    trial.plan({"fault": code, "times": 1, "skip": step})
    assert trial.load().inserted == len(TEXTS)
    assert trial.rows() == TEXTS
    assert methods(trial) == [*WHOLE[: step + 1], *WHOLE]


def goes_on_after(step: int) -> list[str]:
    """The requests of a load after one whose request of that step has failed."""
    return WHOLE if step == 0 else ["GET"] * (4 - step if step < 3 else 2)
