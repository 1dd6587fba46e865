"""Promises about rows whose shape changes: a new field, another type, a field that is gone."""

from collections.abc import Mapping
from typing import Any

import pytest

from flows.errors import BadPayloadError
from tests.fault_matrix.lab import Lab, Trial
from tests.fault_matrix.styles import LISTS, PAGED, Row, Style

pytest_plugins = ["tests.fault_matrix.fixtures"]

FIRST_CHANGED = 11
CHANGED = 15
CHANGES = (
    "select column_name, old_type, new_type from elt.schema_changes"
    " where table_name = %s order by column_name"
)
REASONS = (
    "select reason from elt.rejects join elt.loads using (load_id)"
    " where format('%%s.%%s', source, resource) = %s"
)
NEW_TYPES = [("currency", None, "text"), ("price", "double precision", "text")]
ONE_BY_ONE: Mapping[str, Mapping[str, bool]] = {
    "new_field": {"other_type": False, "field_gone": False},
    "other_type": {"new_field": False, "field_gone": False},
    "field_gone": {"new_field": False, "other_type": False},
}


def change(style: Style, **options: bool) -> dict[str, Any]:
    """From row 11 on, which is the first one of page 2."""
    skip = style.pages_before
    return {"fault": "changed_schema", "from_id": FIRST_CHANGED, "skip": skip, **options}


def changed(style: Style) -> list[Row]:
    """The rows as they have to be in a table that takes them all."""
    return [_changed(row, style) for row in style.rows]


def _changed(row: Row, style: Style) -> Row:
    if int(row["id"]) >= FIRST_CHANGED:
        return {**row, "name": None, "price": str(row["price"]), "currency": "EUR"}
    # Postgres made a text of a number that was there before, JSON of one that came as a text.
    price = f"{row['price']:g}" if style.pages > 1 else str(row["price"])
    return {**row, "price": price, "currency": None}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("style", LISTS, ids=str)
def test_the_first_load_takes_every_shape_whatever_its_contract(lab: Lab, style: Style) -> None:
    """And so does every load under `evolve`; the changes are on record."""
    for contract in ("evolve", "freeze"):
        trial = lab.trial(style, {"contract": contract})
        trial.plan(change(style))
        entry = trial.load()
        assert trial.strikes() == 1
        assert trial.rows() == changed(style)
        assert (entry.state, entry.inserted) == ("succeeded", len(style.rows))
        assert trial.query(CHANGES) == (NEW_TYPES if style.pages > 1 else [])


@pytest.mark.parametrize("style", PAGED, ids=str)
def test_a_later_load_widens_the_table_under_evolve(lab: Lab, style: Style) -> None:
    trial = changing_after_a_load(lab, style, "evolve")
    entry = trial.load()
    assert trial.strikes() == 1
    assert trial.rows() == changed(style)
    assert (entry.updated, entry.unchanged) == (CHANGED, len(style.rows) - CHANGED)
    assert trial.query(CHANGES) == NEW_TYPES


@pytest.mark.sampled(6)
@pytest.mark.parametrize("style", LISTS, ids=str)
def test_a_frozen_table_stays_and_the_next_load_resumes_when_the_shape_is_back(
    lab: Lab, style: Style
) -> None:
    trial = changing_after_a_load(lab, style, "freeze")
    error = trial.load_in_vain(BadPayloadError, 'is frozen.*the new column "currency"')
    assert trial.strikes() == 1
    assert ('"price" from double precision to text' in str(error)) == (style.name != "csv")
    assert trial.rows() == style.rows
    assert trial.query(CHANGES) == []
    failed = trial.entries()[-1]
    assert failed.extracted == failed.unchanged == len(style.rows_before)

    trial.lift()
    entry = trial.load()
    assert trial.asked() == lab.clean_requests(style)[style.pages_before :]
    assert (entry.state, entry.unchanged) == ("succeeded", len(style.rows) - failed.unchanged)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("style", LISTS, ids=str)
def test_rows_of_another_shape_are_set_aside_in_quarantine(lab: Lab, style: Style) -> None:
    """The others are loaded; all of a CSV's rows have the shape of its first line."""
    trial = changing_after_a_load(lab, style, "quarantine")
    misfits = len(style.rows) if style.name == "csv" else CHANGED
    trial.load_in_vain(BadPayloadError, f"{misfits} records could not be stored")
    assert trial.strikes() == 1
    assert trial.rows() == style.rows
    assert trial.query(CHANGES) == []
    reasons = trial.query(REASONS)
    assert len(reasons) == misfits
    assert [reason for (reason,) in reasons if 'the new column "currency"' not in reason] == []
    failed = trial.entries()[-1]
    assert (failed.extracted, failed.rejected) == (len(style.rows), misfits)
    assert failed.unchanged == len(style.rows) - misfits

    trial.lift()
    entry = trial.load()
    assert (entry.state, entry.unchanged) == ("succeeded", len(style.rows))


@pytest.mark.parametrize("contract", ["evolve", "freeze", "quarantine"])
@pytest.mark.parametrize("only", ONE_BY_ONE)
def test_each_change_alone_is_told_from_the_others(lab: Lab, only: str, contract: str) -> None:
    """A field that is gone changes no table: its values become null."""
    style = PAGED[0]
    trial = changing_after_a_load(lab, style, contract, **ONE_BY_ONE[only])
    if contract == "evolve" or only == "field_gone":
        trial.load()
        assert trial.query(CHANGES) == [
            found for found in NEW_TYPES if (only == "new_field") == (found[1] is None)
        ] * (only != "field_gone")
        nulls = sum(row["name"] is None for row in trial.rows())
        assert nulls == (CHANGED if only == "field_gone" else 0)
    else:
        trial.load_in_vain(BadPayloadError, "is frozen|15 records could not be stored")
        assert trial.rows() == style.rows
    assert trial.strikes() == 1


def changing_after_a_load(lab: Lab, style: Style, contract: str, **options: bool) -> Trial:
    """A trial of which every row is loaded; the next load finds another shape."""
    trial = lab.trial(style, {"contract": contract})
    trial.load()
    trial.plan(change(style, **options))
    return trial
