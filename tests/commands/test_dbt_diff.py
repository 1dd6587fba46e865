"""`make dbt-diff` with dbt: builds only the changes, in separate schemas, and drops them."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from sqlalchemy.engine import URL

from blocks.warehouse import TRANSFORMER_URL_VARIABLE, URL_VARIABLE, Warehouse
from commands.dbt_diff import __main__ as command
from commands.dbt_diff.__main__ import main, report
from commands.dbt_diff.build import Trial, trial
from deployments.local.postgres import libpq
from flows.dbt_build import dbt_project, dbt_runner, history, scratch_schemas
from flows.dbt_build.publish import RelationName
from flows.errors import ConfigurationError
from flows.load import ledger

Query = Callable[..., list[tuple]]

DOCS = Path(__file__).parents[2] / "docs" / "transform.md"
ROLE = f"ci_{os.getpid()}"
DIM = "models/marts/sales/dim_customers.sql"
OURS = """
select nspname || '.' || relname, pg_relation_filenode(pg_class.oid)
from pg_class join pg_namespace on pg_namespace.oid = relnamespace
where nspname !~ '^(pg_|information_schema)' order by 1
"""
LOADED = """
insert into elt.loads (source, resource, partition, state)
values ('market', 'customers', '', 'succeeded')
"""
CUSTOMERS = """
create table raw_market.customers as
select
    customer_id, 'Company ' || customer_id as company_name, ''::text as contact_name,
    ''::text as contact_title, ''::text as address, ''::text as city, ''::text as region,
    ''::text as postal_code, ''::text as country, ''::text as phone, ''::text as fax,
    now() as _loaded_at
from unnest(array['ALFKI', 'BERGS']) as customer_id
"""


@pytest.fixture(autouse=True)
def no_other_warehouse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset dbt's login, which the local stack of other tests sets and which has precedence."""
    monkeypatch.delenv(TRANSFORMER_URL_VARIABLE, raising=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the dbt project, for a test that changes it."""
    copy = tmp_path / "dbt_project"
    shutil.copytree(dbt_project.PROJECT, copy, ignore=shutil.ignore_patterns("target", "logs"))
    monkeypatch.setattr(dbt_project, "PROJECT", copy)
    return copy


@pytest.fixture
def login(database: URL, query: Query) -> Iterator[URL]:
    """The role that docs/transform.md gives to pull requests."""
    (grants,) = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    query(re.sub(r"\bci\b", ROLE, grants).replace("warehouse", f'"{database.database}"'))
    yield database.set(username=ROLE, password="of its own")
    query(f"drop owned by {ROLE} cascade")
    query(f"drop role {ROLE}")


@pytest.fixture
def published(
    database: URL, project: Path, tmp_path: Path, connection: Connection, query: Query
) -> None:
    """Customers, loaded, built and published."""
    with connection, connection.cursor() as cursor:
        ledger.prepare(cursor, "raw_market")
        cursor.execute(CUSTOMERS)
        cursor.execute(LOADED)
        history.prepare(cursor)
        build_id = history.begin(cursor, None, "A test.", "code", {})
    target = tmp_path / "target"
    folders = ["--project-dir", str(project), "--profiles-dir", str(project)]
    arguments = ["run", "--select", "+dim_customers", *folders, "--target-path", str(target)]
    environment = {**Warehouse(database).dbt_environment(), "DBT_LOG_PATH": str(target)}
    said = [each["info"]["msg"] for each in dbt_runner.run(environment, 300, arguments)]
    assert "Completed successfully" in said, said
    with connection, connection.cursor() as cursor:
        manifest = json.loads((target / "manifest.json").read_text())
        history.mark_published(cursor, build_id, manifest, [], [])


@pytest.mark.long
@pytest.mark.usefixtures("published")
def test_a_changed_mart_is_built_separately_compared_and_dropped(
    project: Path,
    login: URL,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(URL_VARIABLE, libpq(login))
    before = query(OURS)
    model = project / DIM
    mart = model.read_text()
    upper = "case when customer_id = 'BERGS' then upper(company_name) else company_name end"

    model.write_text(mart.replace("        company_name,", f"        {upper} as company_name,"))
    assert main(["--name", "pr_7"]) == 0
    printed = capsys.readouterr().out
    assert "marts.dim_customers: 2 → 2 rows" in printed
    assert "key customer_id: 0 new, 0 gone, 1 changed" in printed
    assert "~ customer_id BERGS: company_name Company BERGS → COMPANY BERGS" in printed
    assert "staging." not in printed, "it is read where it is published"
    assert "Excluded: dependants of" in printed
    assert "market.orders" in printed
    assert "nodes succeeded in *__pr_7." in printed
    assert query(OURS) == before
    assert query("select to_regnamespace('marts__pr_7')") == [(None,)]

    with closing(psycopg2.connect(libpq(login))) as killed, killed, killed.cursor() as cursor:
        scratch_schemas.prepare(cursor, [RelationName("marts__pr_7", "left_over")])
        cursor.execute("create table marts__pr_7.left_over ()")
    left_over: list[tuple] = []

    def look_and_tell(cursor: Cursor, built: Trial) -> list[str]:
        cursor.execute("select to_regclass('marts__pr_7.left_over')")
        left_over.extend(cursor.fetchall())
        return report(cursor, built)

    monkeypatch.setattr(command, "report", look_and_tell)
    model.write_text(mart.replace("        customer_id,", "        'one' as customer_id,"))
    assert main(["--name", "pr_7"]) == 1
    printed = capsys.readouterr().out
    assert left_over == [(None,)]
    assert "FAIL test.warehouse.unique_dim_customers_customer_id" in printed
    assert query(OURS) == before
    assert query("select to_regnamespace('marts__pr_7')") == [(None,)]


@pytest.mark.parametrize(
    "name", ["audit", "x__audit", "_7", "a-b", "", "x" * 31, 'a"; drop schema marts; --']
)
def test_a_name_that_would_write_elsewhere_is_refused(name: str, database: URL) -> None:
    with (
        pytest.raises(ConfigurationError, match="can't be a trial's name"),
        trial(Warehouse(database), name),
    ):
        pass


def test_two_trials_of_one_name_are_kept_apart(database: URL, connection: Connection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(hashtextextended('elt:trial:mine', 0))")
    with (
        pytest.raises(ConfigurationError, match="A trial named 'mine' is running"),
        trial(Warehouse(database), "mine"),
    ):
        pass


def test_what_a_killed_trial_left_can_be_dropped_and_nothing_else(
    database: URL,
    connection: Connection,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(URL_VARIABLE, libpq(database))
    for suffix in ("pr_7", "pr_77"):
        with connection, connection.cursor() as cursor:
            scratch_schemas.prepare(cursor, [RelationName(f"marts__{suffix}", "facts")])
            cursor.execute(f"create table marts__{suffix}.facts (id int)")
    query("create schema raw_shop__pr_7; create table raw_shop__pr_7.orders (id int)")
    query("create table marts__pr_7.mine (id int)")
    query("create view public.reader as select id from marts__pr_7.facts")
    for hindrance in ("view public.reader", "table marts__pr_7.mine"):
        assert main(["--name", "pr_7", "--drop"]) == 1
        assert hindrance.split(" ")[1].removeprefix("public.") in capsys.readouterr().out
        query(f"drop {hindrance}")
    assert main(["--name", "pr_7", "--drop"]) == 0
    assert "so not dropped: raw_shop__pr_7." in capsys.readouterr().out
    assert query("select nspname from pg_namespace where nspname ~ '__pr' order by 1") == [
        ("marts__pr_77",),
        ("raw_shop__pr_7",),
    ]
    assert query("select to_regclass('marts__pr_77.facts') is null") == [(False,)]


@pytest.mark.long
@pytest.mark.usefixtures("published")
def test_a_schema_that_no_trial_made_is_not_built_in(
    database: URL,
    project: Path,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(URL_VARIABLE, libpq(database))
    query("create schema marts__pr_7; create table marts__pr_7.dim_customers as select 1 as mine")
    model = project / DIM
    model.write_text(f"{model.read_text()}\n-- changed\n")
    assert main(["--name", "pr_7"]) == 1
    assert "FAILED: Schema marts__pr_7 already exists" in capsys.readouterr().out
    assert query("select mine from marts__pr_7.dim_customers") == [(1,)]


def test_where_nothing_is_published_there_is_nothing_to_compare_with(
    database: URL,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In an empty warehouse, and in a loaded one that was never built."""
    monkeypatch.setenv(URL_VARIABLE, libpq(database))
    for _ in "ab":
        assert main(["--name", "pr_7"]) == 1
        assert "FAILED: Nothing is published here yet" in capsys.readouterr().out
        with connection, connection.cursor() as cursor:
            ledger.prepare(cursor, "raw_market")
    assert main(["--audit"]) == 1
    assert "FAILED: The audit schemas are empty" in capsys.readouterr().out


def test_what_a_failed_build_left_is_compared_where_it_is(
    database: URL,
    connection: Connection,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(URL_VARIABLE, libpq(database))
    query("create schema marts; create table marts.facts as select 1 as id, 'good' as value")
    query("create schema marts__audit")
    query("create table marts__audit.facts as select 1 as id, 'bad' as value")
    model = {
        "resource_type": "model",
        "schema": "marts__audit",
        "alias": "facts",
        "relation_name": '"warehouse"."marts__audit"."facts"',
    }
    unique = {"name": "unique", "kwargs": {"column_name": "id"}}
    nodes = {
        "model.facts": model,
        "test.key": {"attached_node": "model.facts", "test_metadata": unique},
    }
    results = [
        {"unique_id": "model.facts", "status": "success", "message": "SELECT 1"},
        {"unique_id": "test.values", "status": "fail", "message": "Got 1 result"},
    ]
    with connection, connection.cursor() as cursor:
        history.prepare(cursor)
        build_id = history.begin(cursor, None, "A test.", "code", {})
        manifest = json.dumps({"nodes": nodes}).encode()
        history.keep_artifacts(cursor, build_id, {"results": results}, manifest)
        history.end(cursor, build_id, "failed")
        cursor.execute("alter table dbt.builds drop column full_refresh")  # an earlier version's
    assert main(["--audit"]) == 1
    printed = capsys.readouterr().out
    assert "marts.facts: 1 → 1 rows" in printed
    assert "~ id 1: value good → bad" in printed
    assert "FAIL test.values: Got 1 result" in printed
    assert query("select value from marts__audit.facts") == [("bad",)]

    query("update dbt.builds set state = 'published'")
    assert main(["--audit"]) == 1
    assert "FAILED: The audit schemas are empty" in capsys.readouterr().out
