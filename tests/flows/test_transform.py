"""dbt builds what is stale and publishes what passed, on real Postgres and with real dbt."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pytest
import yaml
from conftest import rows
from prefect.client.schemas.objects import State
from prefect.variables import Variable
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.engine import URL

from blocks import warehouse
from flows.dbt_build import dbt_project, history
from flows.dbt_build.build import NOTHING
from flows.elt import elt
from flows.errors import BuildError
from flows.retries import Retry
from flows.transform import resolve_profiles, transform

Ask = Callable[..., list[tuple]]

SALES = "select count(*), sum(quantity), sum(revenue) from marts.fct_order_lines"
BAD_QUANTITY = "update raw_market.order_details set quantity = -1 where order_id = 10248"
BAD_DATE = "update raw_market.orders set order_date = 'soon' where order_id = 10248"
GOOD_DATE = "update raw_market.orders set order_date = '1996-07-04' where order_id = 10248"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the dbt project, for a test that changes it."""
    copy = tmp_path / "dbt_project"
    shutil.copytree(dbt_project.PROJECT, copy, ignore=shutil.ignore_patterns("target", "logs"))
    monkeypatch.setattr(dbt_project, "PROJECT", copy)
    return copy


@pytest.fixture
def sales(project: Path) -> None:
    """Without the marts of loads, whose tests take three quarters of a build."""
    shutil.rmtree(project / "models" / "staging" / "elt")
    shutil.rmtree(project / "models" / "marts" / "operations")
    for test in (project / "tests").glob("*.sql"):
        test.unlink()


def load(*resources: str) -> None:
    assert elt(
        source="market", resources=resources, transform=False, return_state=True
    ).is_completed()


def error_of(state: State[Any]) -> str:
    assert state.is_failed()
    error = state.result(raise_on_failure=False)
    assert isinstance(error, BuildError)
    return str(error)


def built_now() -> set[str]:
    """The nodes that the last dbt built or skipped."""
    results = Path(os.environ["DBT_TARGET_PATH"], "run_results.json").read_text()
    return {node["unique_id"] for node in json.loads(results)["results"]}


@contextmanager
def reader(warehouse_url: URL, statement: str) -> Iterator[list[Any]]:
    """A session that repeats a query for as long as the block lasts."""
    seen: list[Any] = []
    is_over = Event()

    def poll() -> None:
        while not is_over.is_set():
            seen.append(rows(warehouse_url, statement))

    thread = Thread(target=poll)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


@pytest.mark.usefixtures("sales")
def test_readers_see_what_passed_its_tests_and_a_failed_build_is_gone_on_with(
    ask: Ask, warehouse_url: URL
) -> None:
    load()
    assert ", 0 warned, 0 failed, 0 skipped" in transform()
    ask("grant select on marts.fct_order_lines to public")
    ask("create index by_customer on marts.fct_order_lines (customer_id)")
    ask("create view public.london as select * from marts.fct_order_lines where quantity > 5")
    before = ask(SALES)
    everything = built_now()

    ask(BAD_QUANTITY)
    with reader(warehouse_url, SALES) as seen:
        said = error_of(transform(return_state=True))
    assert "test accepted_range_fct_order_lines_quantity__1: Got" in said
    assert '{"quantity": -1}' in said
    assert "Nothing was published" in said
    assert len(seen) > 10
    assert all(answer == before for answer in seen)

    ask("update raw_market.order_details set quantity = 12 where order_id = 10248")
    ask(BAD_DATE)
    said = error_of(transform(check_freshness=True, return_state=True))
    assert 'invalid input syntax for type date: "soon"' in said
    assert ask(SALES) == before

    ask(GOOD_DATE)
    with reader(warehouse_url, SALES) as seen:
        assert ", 0 failed, 0 skipped" in transform(only_stale=True)
    again = built_now()
    assert "model.warehouse.fct_order_lines" in again
    assert "model.warehouse.stg_market__orders" not in again
    assert len(again) < len(everything) / 2
    after = ask(SALES)
    assert after != before
    assert {str(answer) for answer in seen} <= {str(before), str(after)}

    assert ask("select count(*) > 0 from public.london") == [(True,)]
    assert ask("select count(*) from pg_indexes where indexname = 'by_customer'") == [(1,)]
    assert ask("select state from dbt.builds order by build_id") == [
        ("published",),
        ("failed",),
        ("failed",),
        ("published",),
    ]
    assert transform(only_stale=True) == NOTHING


@pytest.mark.long
def test_changed_code_alone_is_built_and_read_beside_what_is_published(
    project: Path, ask: Ask
) -> None:
    load("shippers", "suppliers")
    transform()
    model = project / "models/staging/market/stg_market__shippers.sql"
    model.write_text(model.read_text().replace("        phone,", "        upper(phone) as phone,"))
    transform(only_stale=True)
    built = built_now()
    assert "model.warehouse.stg_market__shippers" in built
    assert "model.warehouse.stg_market__suppliers" not in built
    assert ask("select reason like 'Changed: the dbt project%' from dbt.builds") == [
        (False,),
        (True,),
    ]
    assert transform(only_stale=True) == NOTHING


@pytest.mark.long
def test_a_relation_that_left_the_project_is_reported_until_dropped(
    project: Path, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    extra = project / "models/intermediate/extra.sql"
    extra.parent.mkdir()
    extra.write_text("select 1 as one")
    load("shippers")
    transform()
    extra.unlink()
    warning = "No longer built by the dbt project, but still published: intermediate.extra."
    for resource in ("suppliers", "categories"):
        caplog.clear()
        load(resource)
        transform(only_stale=True)
        assert warning in caplog.text
    assert ask("select one from intermediate.extra") == [(1,)]
    ask("drop view if exists intermediate.extra")
    caplog.clear()
    load("customers")
    transform(only_stale=True)
    assert "No longer built by the dbt project" not in caplog.text


@pytest.mark.long
def test_an_incremental_model_stays_right_through_its_publications(ask: Ask) -> None:
    """Each build adds to a copy of what is published."""
    raw = (
        "select city, time::date, temperature_2m_max, _loaded_at"
        " from raw_climate.daily_weather order by 1, 2"
    )
    mart = (
        "select city, weather_date, temperature_max_celsius, loaded_at"
        " from marts.fct_daily_weather order by 1, 2"
    )
    days = {"since": date(1997, 1, 1), "until": date(1997, 2, 1), "transform": False}
    assert elt(source="climate", **days, return_state=True).is_completed()
    ask("delete from raw_climate.daily_weather where time > '1997-01-20'")
    changes = [
        "select 1",
        "update raw_climate.daily_weather set temperature_2m_max = 7, _loaded_at = now()"
        " where time = '1997-01-03'",
        "insert into raw_climate.daily_weather"
        ' select (jsonb_populate_record(w, \'{"time": "1997-01-25"}\')).*'
        " from raw_climate.daily_weather as w where time = '1997-01-04'",
        "update raw_climate.daily_weather set temperature_2m_max = 8, _loaded_at = now()"
        " where time = '1997-01-05'",
    ]
    for change in changes:
        ask(change)
        assert ", 0 failed, 0 skipped" in transform()
        assert ask(mart) == ask(raw)
    written = ask("select xmin::text, count(*) from marts.fct_daily_weather group by 1")
    assert len(written) > 1, "the last build has rewritten all rows"


@pytest.mark.long
def test_a_stale_source_is_reported_after_publishing(ask: Ask) -> None:
    load("shippers", "suppliers")
    ask(
        "update elt.loads set started_at = started_at - interval '60 hours',"
        " ended_at = ended_at - interval '60 hours' where resource = 'suppliers'"
    )
    said = error_of(transform(check_freshness=True, return_state=True))
    assert said.startswith("Published everything that could be built, but raw tables are stale: ")
    assert "market.suppliers, last loaded in full 60 h ago" in said
    assert "market.orders, never loaded in full" in said
    assert "market.shippers" not in said
    assert ask("select state, error from dbt.builds") == [("published", None)]
    assert ask("select count(*) > 0 from staging.stg_market__suppliers") == [(True,)]


@pytest.mark.long
def test_freshness_is_checked_even_if_there_is_nothing_to_build(ask: Ask) -> None:
    assert transform() == NOTHING
    said = error_of(transform(check_freshness=True, return_state=True))
    assert "before it checked the age of climate.daily_weather, market.orders, " in said
    assert 'relation "elt.partitions" does not exist' in said
    load("shippers")
    ask("update elt.loads set state = 'failed', error = 'by hand'")
    ask("update elt.partitions set succeeded_by = null, succeeded_at = null")
    said = error_of(transform(only_stale=True, check_freshness=True, return_state=True))
    assert "market.shippers, never loaded in full" in said
    assert ask("select count(*) from dbt.builds") == [(0,)]


@pytest.mark.long
def test_a_build_keeps_its_documentation_as_it_was_published(ask: Ask) -> None:
    load("shippers")
    transform(keep_docs=True)
    with warehouse.load(warehouse.TRANSFORMER_BLOCK).transaction() as cursor:
        page = history.docs_of(cursor, 1)
        assert page is not None
        assert b"model.warehouse.stg_market__shippers" in page
        assert b"staging__audit" not in page
        history.forget_artifacts(cursor, 1)
        assert history.docs_of(cursor, 1) == page
        cursor.execute("update dbt.builds set ended_at = ended_at - interval '25 hours'")
        history.forget_artifacts(cursor, 1)
        assert history.docs_of(cursor, 1) is None
        cursor.execute("select results, manifest, published_manifest is null from dbt.builds")
        assert cursor.fetchall() == [(None, None, False)]
        assert history.docs_of(cursor, 99) is None


@pytest.mark.long
def test_a_session_lost_while_publishing_changes_nothing_and_is_retried(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("shippers")
    real, lost = history.mark_published, []

    def ended(cursor: Cursor, *arguments: Any) -> None:
        """All has been moved by then, and nothing is committed."""
        if not lost:
            lost.append(ask("select to_regnamespace('staging') is null"))
            ask("select pg_terminate_backend(%s)", cursor.connection.info.backend_pid)
        real(cursor, *arguments)

    monkeypatch.setattr(history, "mark_published", ended)
    assert ", 0 failed, 0 skipped" in transform(retry=Retry(retries=1, delay_seconds=0))
    assert lost == [[(True,)]]
    assert ask("select state from dbt.builds order by build_id") == [("failed",), ("published",)]
    assert ask("select error like 'Postgres went away%' from dbt.builds limit 1") == [(True,)]
    assert ask("select count(*) > 0 from staging.stg_market__shippers") == [(True,)]


@pytest.mark.long
def test_a_build_that_is_killed_while_it_publishes_has_published_nothing(ask: Ask) -> None:
    """All has been moved by then, and nothing is committed."""
    load("shippers")
    transform()
    before = ask("select oid, relname from pg_class where relnamespace = 'marts'::regnamespace")
    load("suppliers")
    command = (
        "import os, signal; from flows.dbt_build import history;"
        " history.mark_published = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
        " from flows.transform import transform; transform()"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=dbt_project.PROJECT.parent, check=False
    )
    assert done.returncode == -signal.SIGKILL
    after = ask("select oid, relname from pg_class where relnamespace = 'marts'::regnamespace")
    assert sorted(after) == sorted(before)
    assert ask("select state from dbt.builds order by build_id") == [("published",), ("running",)]
    assert ", 0 failed, 0 skipped" in transform(only_stale=True)
    assert ask("select state from dbt.builds where build_id > 1 order by build_id") == [
        ("abandoned",),
        ("published",),
    ]
    assert ask("select count(*) > 0 from staging.stg_market__suppliers") == [(True,)]


@pytest.mark.long
def test_the_second_of_two_concurrent_builds_builds_what_is_still_stale(ask: Ask) -> None:
    load("shippers")
    command = "from flows.transform import transform; print(transform(only_stale=True))"
    with ExitStack() as stack:
        builders = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", command],
                    cwd=dbt_project.PROJECT.parent,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        ]
        said = [builder.communicate()[0].splitlines()[-1] for builder in builders]
    assert sorted(line == NOTHING for line in said) == [False, True]
    assert ask("select state from dbt.builds") == [("published",)]


def test_dbt_that_takes_too_long_is_ended(ask: Ask) -> None:
    load("shippers")
    said = error_of(transform(timeout_seconds=1, return_state=True))
    assert "more than 1 s (timeout_seconds)" in said
    assert ask("select to_regnamespace('marts')") == [(None,)]
    assert ask(
        "select count(*) from pg_stat_activity"
        " where application_name = 'elt dbt' and datname = current_database() and state = 'active'"
    ) == [(0,)]


@pytest.mark.long
def test_a_build_that_is_killed_leaves_no_dbt_and_nothing_half_done(ask: Ask) -> None:
    load("shippers")
    command = [sys.executable, "-c", "from flows.transform import transform; transform()"]
    with subprocess.Popen(command, cwd=dbt_project.PROJECT.parent) as builder:
        process = psutil.Process(builder.pid)
        while not (children := process.children(recursive=True)):
            assert builder.poll() is None
        builder.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    assert ask("select to_regnamespace('marts')") == [(None,)]
    assert ", 0 failed, 0 skipped" in transform(only_stale=True)
    assert ask("select state from dbt.builds order by build_id") == [("abandoned",), ("published",)]


def test_a_profile_is_rewritten_only_if_it_names_blocks_or_variables(
    warehouse_url: URL, tmp_path: Path
) -> None:
    profile = tmp_path / "profiles.yml"
    profile.write_text("warehouse: {target: prod}")
    with resolve_profiles(tmp_path) as found:
        assert found == str(tmp_path)
    Variable.set("dbt_target", "dev", overwrite=True)
    profile.write_text('warehouse: {target: "{{ prefect.variables.dbt_target }}"}')
    with resolve_profiles(tmp_path) as found:
        resolved = (Path(found) / "profiles.yml").read_text()
    assert yaml.safe_load(resolved) == {"warehouse": {"target": "dev"}}
