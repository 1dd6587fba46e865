"""What dbt's statuses mean."""

import pytest

from flows.dbt_build.node_results import counted, is_done, outcome_of


@pytest.mark.parametrize(
    ("status", "outcome", "needs_no_build"),
    [
        ("success", "passed", True),
        ("pass", "passed", True),
        ("warn", "warned", True),
        ("no-op", "skipped", True),
        ("skipped", "skipped", False),
        ("fail", "failed", False),
        ("error", "failed", False),
        ("runtime error", "failed", False),
        ("partial success", "failed", False),
    ],
)
def test_each_status_of_dbt_has_an_outcome(status: str, outcome: str, needs_no_build: bool) -> None:
    """The last one is a microbatch model of which some batches failed."""
    assert outcome_of(status) == outcome
    assert is_done({"status": status}) is needs_no_build


def test_nodes_are_counted_by_their_outcomes() -> None:
    results = [{"status": status} for status in ("success", "pass", "partial success")]
    assert counted(results) == "2 passed, 0 warned, 1 failed, 0 skipped"
