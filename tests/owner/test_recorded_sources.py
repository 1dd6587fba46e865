"""Each source loads its recorded answers (`make record`) into the tables that it did then."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from commands.record import recording, tables
from commands.record.__main__ import load_all, ordered
from commands.record.scratch import scratch_database
from flows import sources
from flows.errors import EltError

REPOSITORY = Path(__file__).resolve().parents[2]
RECORDED = recording.recorded_sources()


@dataclass
class Replayed:
    """A database with what was replayed, and the errors, by source."""

    database: URL
    resources: dict[str, list[str]] = field(default_factory=dict)
    errors: dict[str, EltError] = field(default_factory=dict)


@pytest.fixture(scope="module")
def _owners() -> Iterator[None]:
    """The sources and models of this repository, instead of those of the tests' project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "__path__", [str(REPOSITORY / "flows" / "sources")])
        patch.setattr(tables, "PROJECT", REPOSITORY / "dbt_project")
        for name in RECORDED:
            patch.delitem(sys.modules, f"flows.sources.{name}", raising=False)
        yield
    for name in RECORDED:
        sys.modules.pop(f"flows.sources.{name}", None)


@pytest.fixture(scope="module")
def replayed(_owners: None, postgres_server: URL) -> Iterator[Replayed]:
    """All recorded sources with their staging views: dbt takes seconds, so it runs once."""
    with scratch_database(postgres_server) as database:
        found = Replayed(database)
        for name in RECORDED:
            try:
                source = sources.find(name)
                recordings = recording.read(recording.FOLDER / name)
                load_all(database, source, recordings)
                found.resources[name] = ordered(source, recordings)
            except EltError as error:
                found.errors[name] = error
        if found.resources:
            tables.build_staging(database, found.resources)
        yield found


@pytest.mark.parametrize("source", RECORDED)
def test_a_source_loads_what_was_recorded_of_its_api(replayed: Replayed, source: str) -> None:
    """The remedy is for a change that is meant."""
    remedy = f"If this is what you changed: make record SOURCE={source}, and read its git diff."
    if error := replayed.errors.get(source):
        pytest.fail(f"{error}\n{remedy}")
    expected = (recording.FOLDER / source / recording.EXPECTED).read_text()
    found = tables.described(replayed.database, source, replayed.resources[source])
    assert found == expected, remedy
