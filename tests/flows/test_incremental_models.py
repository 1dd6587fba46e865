"""Incremental models and seeds, in a small dbt project, end as they do with plain dbt."""

from pathlib import Path

import pytest
from conftest import empty_database, rows
from psycopg2 import sql
from sqlalchemy.engine import URL

from flows.dbt_build import build
from flows.dbt_build.started_build import UPGRADED
from flows.transform import transform
from tests.flows.small_dbt_project import VISIT, Ask, Write, error_of, run_plain_dbt

pytest_plugins = ["tests.flows.small_dbt_fixtures"]

NEWEST = """
{{ config(materialized='incremental', schema='marts') }}
select id, loaded_at from {{ source('shop', 'visits') }}
{% if is_incremental() %}
where loaded_at >= (select max(loaded_at) from {{ source('shop', 'visits') }})
{% endif %}
"""
OWN_NEWEST = """
{{ config(materialized='incremental', schema='marts') }}
select id, loaded_at from {{ source('shop', 'visits') }}
{% if is_incremental() %} where loaded_at > (select max(loaded_at) from {{ this }}) {% endif %}
"""
KEYED = """
{{ config(
    materialized='incremental', unique_key='id', schema='marts',
    post_hook='create index if not exists keyed_by_day on {{ this }} (loaded_at)'
) }}
select id, loaded_at, {{ 'true' if is_incremental() else 'false' }} as is_added
from {{ source('shop', 'visits') }}
{% if is_incremental() %} where loaded_at >= (select max(loaded_at) from {{ this }}) {% endif %}
"""
CHECKED = """
{{ config(materialized='incremental', schema='marts') }}
select id, loaded_at
from {{ ref('keyed') }}
where to_regclass('public.broken') is null or 1 / (id - id) > 0
{% if is_incremental() %} and loaded_at > (select max(loaded_at) from {{ this }}) {% endif %}
"""
POSITIVE = """
models:
  - name: keyed
    columns:
      - name: id
        data_tests: [{accepted_values: {arguments: {values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}}}]
"""
TABLE = sql.SQL("select * from marts.{} order by id, loaded_at")


@pytest.mark.usefixtures("shop")
def test_an_incremental_model_adds_to_what_is_published(ask: Ask, write: Write) -> None:
    write("models/newest.sql", NEWEST)
    for day in range(2):
        ask(VISIT, day, day)
        transform()
    assert ask("select array_agg(id order by id) from marts.newest") == [([0, 1],)]


@pytest.mark.long
@pytest.mark.usefixtures("shop")
def test_incremental_models_equal_those_of_plain_dbt_through_failed_builds(
    ask: Ask, write: Write, warehouse_url: URL, tmp_path: Path
) -> None:
    """Ten builds; between them, some fail and are restarted or resumed."""
    for name, text in {"newest": NEWEST, "after_own_newest": OWN_NEWEST, "keyed": KEYED}.items():
        write(f"models/{name}.sql", text)
    write("models/checked.sql", CHECKED)
    write("models/models.yml", POSITIVE)
    with empty_database(warehouse_url, "plain") as plain:
        rows(plain, "create schema raw_shop")
        rows(plain, "create table raw_shop.visits (id int, loaded_at timestamptz)")
        for day in range(10):
            ask(VISIT, day, day)
            if day in (3, 7):  # a row that fails its test, and is read into every table
                ask(VISIT, -day, day)
                assert "accepted_values_keyed" in error_of(transform(return_state=True))
                ask("delete from raw_shop.visits where id < 0")
            if day in (5, 8):  # a model that fails once, and whose build is resumed
                ask("create table public.broken ()")
                assert "model checked" in error_of(transform(return_state=True))
                ask("drop table public.broken")
                transform(only_stale=True)
                [(reason,)] = ask("select reason from dbt.builds order by build_id desc limit 1")
                assert "its failed and skipped nodes again" in reason
            else:
                transform()
            rows(plain, VISIT, day, day)
            run_plain_dbt(plain, tmp_path)
            for model in ("newest", "after_own_newest", "keyed", "checked"):
                asked = TABLE.format(sql.Identifier(model))
                assert ask(asked) == rows(plain, asked), f"{model}, day {day}"
    assert ask("select count(*) from marts.keyed") == [(10,)]
    names = "select indexname from pg_indexes where tablename = 'keyed'"
    assert ask(names) == [("keyed_by_day",)]


@pytest.mark.long
@pytest.mark.usefixtures("shop")
def test_a_resumed_build_from_all_rows_still_reads_all_rows(ask: Ask, write: Write) -> None:
    write("models/keyed.sql", KEYED)
    write("models/checked.sql", CHECKED)
    for day in range(3):
        ask(VISIT, day, day)
    transform()
    ask("delete from raw_shop.visits where id = 1")
    write("models/checked.sql", CHECKED + "-- a change, which is built from all rows")
    ask("create table public.broken ()")
    assert "model checked" in error_of(transform(full_refresh=True, return_state=True))
    ask("drop table public.broken")
    transform(only_stale=True)
    assert ask("select reason like '%and skipped nodes again%' from dbt.builds") == [
        (False,),
        (False,),
        (True,),
    ]
    assert ask("select array_agg(id order by id) from marts.checked") == [([0, 2],)]


@pytest.mark.long
@pytest.mark.usefixtures("shop")
def test_a_relation_that_no_build_made_is_replaced_only_on_request(ask: Ask, write: Write) -> None:
    """Not where it was published, and not where it is built."""
    write("models/newest.sql", NEWEST.replace("')", "', alias='the.newest')", 1))
    ask("create schema marts; create table marts.\"the.newest\" as select 'mine' as value")
    said = error_of(transform(return_state=True))
    assert "no build made marts.the.newest, so no build replaces it" in said
    assert ask('select value from marts."the.newest"') == [("mine",)]
    assert ask("select state, error from dbt.builds") == [("failed", said)]

    transform(replace=["marts.the.newest"])
    ask("create table marts__audit.\"the.newest\" as select 'mine' as value")
    assert "no build of this role made: marts__audit.the.newest" in error_of(
        transform(return_state=True)
    )
    assert ask('select value from marts__audit."the.newest"') == [("mine",)]


@pytest.mark.usefixtures("shop")
def test_an_error_that_nobody_expected_ends_the_build_as_failed_and_is_named(
    ask: Ask, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("models/newest.sql", NEWEST)

    def broken(*_: object) -> None:
        raise KeyError("nodes")

    monkeypatch.setattr(build, "judge", broken)
    state = transform(return_state=True)
    assert isinstance(state.result(raise_on_failure=False), KeyError)
    assert ask("select state, error from dbt.builds") == [("failed", "KeyError: 'nodes'")]


@pytest.mark.long
@pytest.mark.usefixtures("shop")
def test_rows_that_an_earlier_version_lost_come_back_with_the_first_build(
    ask: Ask, write: Write
) -> None:
    """And what that version left in an audit schema is dropped, as its manifest names it."""
    write("models/newest.sql", NEWEST)
    for day in range(2):
        ask(VISIT, day, day)
    transform()
    ask("update dbt.builds set is_recorded = null")
    ask("drop table marts__audit._built_relations")
    ask("create table marts__audit.newest as select * from marts.newest where id = 1")
    ask("delete from marts.newest where id = 0")
    transform(only_stale=True)
    assert ask("select array_agg(id order by id) from marts.newest") == [([0, 1],)]
    assert ask("select reason from dbt.builds where is_recorded") == [(UPGRADED,)]
    assert transform(only_stale=True) == build.NOTHING


@pytest.mark.usefixtures("shop")
def test_a_seed_is_built_tested_and_published_beside_schemas_of_others(
    ask: Ask, write: Write
) -> None:
    """Those stay, whatever their names end with."""
    for schema in ("crm__audit", "raw_bank__audit"):
        ask(f"create schema {schema}")
        ask(f"create table {schema}.kept (id int)")
    write("seeds/countries.csv", "code,name\nde,Germany\nfr,France\n")
    write(
        "seeds/countries.yml",
        "seeds: [{name: countries, config: {schema: marts}, columns: [{name: code, data_tests: "
        "[unique]}]}]",
    )
    transform()
    assert ask("select code, name from marts.countries order by 1") == [
        ("de", "Germany"),
        ("fr", "France"),
    ]
    assert ask("select state, error from dbt.builds") == [("published", None)]
    assert ask("select to_regclass('crm__audit.kept') is null") == [(False,)]
    assert ask("select to_regclass('raw_bank__audit.kept') is null") == [(False,)]
