"""Promises of one's own `records` function: what it may return, and the error of a wrong one.

In every paging style, since paging reads its result before the load does.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from flows.errors import ConfigurationError
from flows.extract.paginators import value_at
from flows.page import Page
from tests.fault_matrix.lab import Lab
from tests.fault_matrix.styles import ROWS, Style, named

pytest_plugins = ["tests.fault_matrix.fixtures"]

STYLES = named("next_url", "offset", "page_has_more", "keyset", "token_body", "none")
any_style = pytest.mark.parametrize("style", STYLES, ids=str)


def sent(page: Page) -> list[Any]:
    return list(value_at(page, "items"))


RETURNED: dict[str, Callable[[Page], Any]] = {
    "generator": lambda page: (row for row in sent(page)),
    "values of a dict": lambda page: {row["id"]: row for row in sent(page)}.values(),
    "tuple": lambda page: tuple(sent(page)),
    "map": lambda page: map(dict, sent(page)),
}


@any_style
@pytest.mark.parametrize("records", RETURNED.values(), ids=RETURNED)
def test_every_row_is_stored_however_they_are_held(
    lab: Lab, style: Style, records: Callable[[Page], Any]
) -> None:
    trial = lab.trial(style, {"records": records})
    entry = trial.load()
    assert trial.rows() == ROWS
    assert (entry.state, entry.inserted, entry.pages) == ("succeeded", len(ROWS), style.pages)


NO_RECORDS: dict[str, tuple[Any, str]] = {
    "None": (None, "None"),
    "one record": ({"id": 1}, "a value of type dict"),
    "text": ("[]", "a value of type str"),
    "bytes": (b"[]", "a value of type bytes"),
    "number": (7, "a value of type int"),
}


@any_style
@pytest.mark.parametrize(("returned", "shown"), NO_RECORDS.values(), ids=NO_RECORDS)
def test_what_is_no_list_is_refused_by_the_resource(
    lab: Lab, style: Style, returned: Any, shown: str
) -> None:
    trial = lab.trial(style, {"records": lambda page: returned})
    says = rf"{trial.name}: its `records` function returned {shown}.* Return a list of records"
    trial.load_in_vain(ConfigurationError, says)
    assert len(trial.asked()) == 1


def test_an_error_in_a_generator_names_its_line(lab: Lab) -> None:
    def records(page: Page) -> Any:
        for row in sent(page):
            yield row["no such field"]

    trial = lab.trial(STYLES[0], {"records": records})
    says = f"{trial.name}: its `records` function failed in records, line .*KeyError"
    trial.load_in_vain(ConfigurationError, says)


VALUES: dict[str, Any] = {
    "Decimal": Decimal("1.5"),
    "datetime": datetime(2024, 1, 1, tzinfo=UTC),
    "UUID": UUID(int=1),
    "bytes": b"abc",
    "tuple": (1, 2),
    "set": {1},
}


@pytest.mark.sampled(4)
@any_style
@pytest.mark.parametrize("field", ["price", "id", "more.value", "more[0]"])
@pytest.mark.parametrize("kind", VALUES)
def test_a_value_that_json_has_not_is_refused_by_its_field(
    lab: Lab, style: Style, kind: str, field: str
) -> None:
    """Even in the field that the next request needs."""
    value = VALUES[kind]
    made = {"more.value": {"more": {"value": value}}, "more[0]": {"more": [value]}}
    changed = made.get(field, {field: value})
    trial = lab.trial(style, {"records": lambda page: [{**row, **changed} for row in sent(page)]})
    says = rf"its `records` function returned a {kind} in the field .?{re.escape(field)}"
    if (style.name, field) == ("keyset", "id"):
        says = f"its `paging` function failed .*'id' of the last record is a {kind}"
    error = trial.load_in_vain(ConfigurationError, says)
    assert trial.name in str(error)
    assert "Return text" in str(error)
    assert trial.rows() == []
