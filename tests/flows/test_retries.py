"""Promises about the parameter `retry` of the flows."""

import logging

import pytest
from pydantic import ValidationError

from flows.retries import Retry


def test_retries_are_counted_after_the_first_try_and_their_delays_double() -> None:
    options = Retry(retries=3, delay_seconds=10, jitter=0).options()
    assert options == {
        "retries": 3,
        "retry_delay_seconds": [10, 20, 40],
        "retry_jitter_factor": 0,
    }


def test_the_old_name_attempts_is_accepted_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert Retry.model_validate({"attempts": 2}) == Retry(retries=2)
    assert "`retry.attempts` is now called `retry.retries`" in caplog.text


@pytest.mark.parametrize("given", [{"retires": 2}, {"attempts": 1, "retries": 2}])
def test_an_unknown_name_is_refused_with_the_known_ones(given: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="known are retries, delay_seconds, jitter"):
        Retry.model_validate(given)
