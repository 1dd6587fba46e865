"""Promises of requested waits: any header of a server can be read safely."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.extract.retry_after import LIMIT_HEADER, RESET_HEADERS, requested_wait

# Parts of valid forms, to generate texts that are nearly right.
PIECES = st.sampled_from(
    [
        *"0123456789.,;:=-+ \"'",
        "ms",
        "h",
        "GMT",
        "Z",
        "Mon, ",
        "Jan",
        "2026-01-01T",
        "t=",
        "r=",
        "²",
    ]
)
TEXTS = st.text(st.characters(max_codepoint=255)) | st.lists(PIECES).map("".join)


@settings(max_examples=500)
@given(st.sampled_from(["Retry-After", *RESET_HEADERS]), TEXTS)
@example("Retry-After", "9" * 20)
@example("Retry-After", "9" * 5000)
@example("Retry-After", "0001-01-01T00:00:00+23:59")
@example("Retry-After", "9999-12-31T23:59:59-23:59")
@example("Retry-After", "Mon, 01 Jan 9999999 00:00:00 GMT")
@example("Retry-After", "Mon, 01 Jan 2026 00:00:00 +9999")
@example(LIMIT_HEADER, "t=" + "9" * 5000)
def test_any_text_is_a_wait_of_a_finite_time_or_none(name: str, text: str) -> None:
    wait = requested_wait({name: text}, is_limited=True)
    if not text.strip():
        assert wait is None
    elif wait is not None:
        assert 0 <= wait.seconds < math.inf
        assert name in wait.said


@pytest.mark.parametrize("text", ["1" * 50, "5 5", "5 apples", "--5", "5..0", "Monday", "t=5"])
def test_a_text_that_is_no_form_at_all_is_quoted(text: str) -> None:
    wait = requested_wait({"Retry-After": text}, is_limited=True)
    assert wait is not None
    assert (wait.seconds, wait.said) == (
        0,
        f"The wait it asks for can't be read (Retry-After: {text!r}).",
    )
