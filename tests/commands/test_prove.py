"""A proof sees each row that is lost or doubled, and names what would mend it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy.engine import URL

from commands.prove import __main__ as command
from commands.prove import trials
from commands.prove.certificate import certificate
from commands.prove.trials import FAULTS_OF_ANY_API, Case, Lab, under_faults, under_kills
from commands.record import recording as recordings
from commands.record.recording import Answer, Recording
from commands.record.replay import Replay
from flows.errors import ConfigurationError, UnavailableError
from flows.extract.paginators import next_url
from flows.extract.selectors import records_at
from flows.source import Partition, Resource, Rule, Source
from tests.fault_api.server import misbehaving
from tests.fault_matrix.faults import FAULTS, STATUSES, Fault

PAGES = 3
FEW = ("404", "503", "cut", "huge", "html_as_json")


def recording() -> Recording:
    """Three pages of a row each."""
    answers = [
        Answer(
            method="GET",
            target=f"/orders?page={number}" if number > 1 else "/orders",
            headers={"content-type": "application/json"},
            body=msgspec.Raw(
                b'{"rows":[{"id":%d}],"next":%b}'
                % (number, b'"/orders?page=%d"' % (number + 1) if number < PAGES else b"null")
            ),
        )
        for number in range(1, PAGES + 1)
    ]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Recording(recorded_at=now, base_path="/", partitions=[""], last={}, answers=answers)


@pytest.fixture(autouse=True)
def _few_faults(monkeypatch: pytest.MonkeyPatch, slept: list[float]) -> None:
    few = tuple(fault for fault in (*STATUSES, *FAULTS) if fault.name in FEW)
    monkeypatch.setattr(trials, "FAULTS_OF_ANY_API", few)


@contextmanager
def laboratory(database: URL, **declared: Any) -> Iterator[Lab]:
    """The recorded orders."""
    orders = Resource(
        "orders", "orders", records_at("rows"), paging=next_url("next"), key=("id",), **declared
    )
    source, recorded = Source("shop", "http://shop.invalid/", (orders,)), recording()
    with misbehaving(Replay(source, {"orders": recorded}), is_alone=True) as url:
        yield Lab(url, database, source, orders, recorded, [Partition()], Path())


def cases(database: URL, **declared: Any) -> list[Case]:
    """Loads of the recorded orders under a few faults."""
    with laboratory(database, **declared) as lab:
        lab.plan()
        lab.load(lab.partitions)
        wanted = lab.rows()
        assert wanted.total() == PAGES
        return list(under_faults(lab, wanted, lab.requests()))


def test_a_load_that_is_disturbed_has_all_rows_once(database: URL) -> None:
    found = cases(database)
    assert {(case.disturbance, bool(case.error)) for case in found} == {
        ("404", True),
        ("503", False),
        ("cut", False),
        ("huge", True),
        ("html_as_json", True),
    }
    assert len(found) == len(FEW) * PAGES
    assert [case for case in found if case.is_bad or not case.repeated] == []
    assert "No fault of this table loses or doubles a row." in certificate("shop", found, 1)


@pytest.mark.parametrize("fault", FAULTS_OF_ANY_API, ids=lambda fault: fault.name)
def test_each_disturbance_is_explained(fault: Fault) -> None:
    page = (Path(__file__).parents[2] / "docs" / "testing-your-source.md").read_text()
    kind = fault.name.partition("-")[0]
    assert f"`{fault.name}`" in page or f"`{kind}`" in page or kind.isdecimal()


def test_a_lost_row_is_seen_and_the_declaration_that_mends_it_is_named(database: URL) -> None:
    """With this rule, a busy API ends the reading."""
    found = cases(database, rules=(Rule("ignore", status=503),))
    bad = [case for case in found if case.is_bad]
    assert {case.disturbance for case in bad} == {"503"}
    assert [case.lost for case in bad] == [3, 2, 1]
    page = certificate("shop", found, 1)
    assert "**Lost: 6 rows. Doubled: 0 rows.**" in page
    assert "* orders, 503 (3 loads): declare no `Rule` that ignores this status" in page


def test_a_resource_without_requests_proves_nothing(database: URL) -> None:
    with laboratory(database) as lab:
        found = list(command._cases(replace(lab, partitions=[])))
    assert [case.rows for case in found] == [0]
    assert "**Nothing is proved of orders: the recording has no rows.**" in certificate(
        "shop", found, 1
    )


def test_a_load_that_dies_of_something_else_proves_nothing(database: URL) -> None:
    """Here, because its process does not find the source."""
    with laboratory(database) as lab:
        kills = under_kills(lab, lab.rows(), PAGES)
        with pytest.raises(UnavailableError, match=r"should be killed .* nothing is proved"):
            next(kills)


def test_a_resource_that_is_not_recorded_is_an_error(postgres_server: URL, tmp_path: Path) -> None:
    (tmp_path / "orders.json").write_bytes(recordings.to_json(recording()))
    resources = tuple(
        Resource(name, name, records_at("rows"), key=("id",)) for name in ("orders", "lines")
    )
    source = Source("shop", "http://shop.invalid/", resources)
    with pytest.raises(ConfigurationError, match=r"Nothing of shop\.lines is recorded"):
        next(command.prove(postgres_server, source, tmp_path, "lines"))
