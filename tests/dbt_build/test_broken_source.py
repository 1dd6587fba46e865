"""A source whose module is broken keeps its place in what dbt builds."""

from pathlib import Path

import pytest
from psycopg2.extensions import connection as Connection

from flows import sources
from flows.dbt_build import history
from flows.dbt_build.selection import declared_tables
from flows.extract.selectors import records_at
from flows.load.loader import load
from flows.page import Page
from flows.source import Partition, Resource


def test_tables_that_a_broken_source_loaded_are_still_known(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise dbt would build what depends on them as if they had gone."""
    resource = Resource("issues", "issues", records_at(), key=("id",))
    page = Page(b'[{"id": 1}]', "http://api/issues")
    load(connection, "tracker", resource, Partition(), lambda *_: iter([page]))
    (tmp_path / "tracker.py").write_text("SOURCE = Source(")
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    with connection.cursor() as cursor:
        history.prepare(cursor)
        loaded = history.raw_tables(cursor)
    tables = {str(table): table for table in declared_tables(loaded, sources.resources_by_source())}
    assert tables["tracker.issues"].is_complete
    assert not tables["market.orders"].is_complete
