"""Models as an owner may write them: constraints, odd names, and other materializations later."""

import logging

import pytest
from psycopg2 import sql

from flows.dbt_build import dbt_project
from flows.dbt_build.build import NOTHING
from flows.transform import transform
from tests.flows.small_dbt_project import VISIT, Ask, Write, error_of

pytest_plugins = ["tests.flows.small_dbt_fixtures"]

DIM = """
{{ config(materialized='table', schema='marts') }}
select distinct id from {{ source('shop', 'visits') }} where id < 90
"""
FACTS = """
{{ config(materialized='%s', schema='marts', indexes=[{'columns': ['loaded_at']}]) }}
select id, loaded_at from {{ source('shop', 'visits') }} where id < 95
{%% if is_incremental() %%} and loaded_at > (select max(loaded_at) from {{ this }}) {%% endif %%}
"""
CONTRACTS = """
models:
  - name: dim
    config: {contract: {enforced: true}}
    constraints: [{type: primary_key, columns: [id]}]
    columns: [{name: id, data_type: int, constraints: [{type: check, expression: id >= 0}]}]
  - name: facts
    config: {contract: {enforced: true}}
    constraints:
      - {type: foreign_key, columns: [id], to: ref('dim'), to_columns: [id]}
      - {type: unique, columns: [id, loaded_at]}
    columns: [{name: id, data_type: int}, {name: loaded_at, data_type: timestamptz}]
  - name: log
    config: {contract: {enforced: true}, on_schema_change: fail}
    constraints: [{type: foreign_key, columns: [id], to: ref('dim'), to_columns: [id]}]
    columns: [{name: id, data_type: int}, {name: loaded_at, data_type: timestamptz}]
"""
CONSTRAINTS = """
select conrelid::regclass::text, pg_get_constraintdef(oid) from pg_constraint
where connamespace in ('marts'::regnamespace, 'public'::regnamespace) and contype <> 'n'
order by 1, 2
"""


@pytest.mark.long
@pytest.mark.usefixtures("shop")
def test_constraints_of_models_and_consumers_hold_after_every_build(ask: Ask, write: Write) -> None:
    write("models/dim.sql", DIM)
    write("models/facts.sql", FACTS % "table")
    write("models/models.yml", CONTRACTS.partition("  - name: log")[0])
    ask(VISIT, 0, 0)
    transform()
    write("models/log.sql", FACTS % "incremental")
    write("models/models.yml", CONTRACTS)
    ask("create table public.notes (id int references marts.dim)")
    ask("insert into public.notes values (0)")
    for day in (1, 2):
        ask(VISIT, day, day)
        transform()
        assert ask(CONSTRAINTS) == [
            ("marts.dim", "CHECK ((id >= 0))"),
            ("marts.dim", "PRIMARY KEY (id)"),
            ("marts.facts", "FOREIGN KEY (id) REFERENCES marts.dim(id)"),
            ("marts.facts", "UNIQUE (id, loaded_at)"),
            ("marts.log", "FOREIGN KEY (id) REFERENCES marts.dim(id)"),
            ("notes", "FOREIGN KEY (id) REFERENCES marts.dim(id)"),
        ]
    assert ask("select array_agg(id order by id) from marts.log") == [([0, 1, 2],)]
    ask("delete from raw_shop.visits where id = 0")
    said = error_of(transform(return_state=True))
    assert "the foreign key notes_id_fkey of notes can't be kept" in said
    assert ask("select count(*) from marts.dim") == [(3,)]


NAMES = ["Revenue By Country", "Größe~20", "a.b", "100% of it's (net)", "x" * 63]
NAMED = """
{{{{ config(schema='Kunden 100%', alias="{name}", materialized='{kind}') }}}}
select 1 as "Umsatz %", 2 as n
"""


@pytest.mark.long
@pytest.mark.usefixtures("shop")
def test_a_model_may_have_any_name(ask: Ask, write: Write) -> None:
    """And a failing test, too."""
    for number, name in enumerate(NAMES):
        kind = ("table", "incremental", "view")[number % 3]
        write(f"models/named_{number}.sql", NAMED.format(name=name, kind=kind))
    write("models/models.yml", """
models:
  - name: named_0
    description: What it is.
    config: {persist_docs: {relation: true, columns: true}}
    columns: [{name: "Umsatz %", quote: true, description: In percent.}]
""")  # fmt: skip
    write("tests/100%_odd.sql", "select n from {{ ref('named_2') }} where n > 2")
    for _ in range(2):
        transform()
        found = ask(
            "select relname from pg_class where relnamespace = '\"Kunden 100%\"'::regnamespace"
        )
        assert {name for (name,) in found} == set(NAMES)
    write("tests/100%_odd.sql", "select n from {{ ref('named_2') }} where n > 1")
    assert '100%_odd: Got 1 result, configured to fail if != 0, {"n": 2}' in error_of(
        transform(only_stale=True, return_state=True)
    )


KINDS = """
{{{{ config(materialized='{kind}', schema='{schema}', enabled={enabled}{more}) }}}}
select id from {{{{ source('shop', 'visits') }}}}
"""
READER = "{{ config(schema='marts', materialized='table') }} select * from {{ ref('model') }}"
COUNT = sql.SQL("select count(*) from {}")
HISTORY = [  # what the model is, and what is left over
    ("table", "marts", ", indexes=[{'columns': ['id'], 'unique': true}]", ""),
    ("incremental", "marts", "", ""),
    ("view", "marts", "", ""),
    ("incremental", "marts", "", ""),
    ("ephemeral", "marts", "", "marts.model"),
    ("materialized_view", "other", ", indexes=[{'columns': ['id']}]", "marts.model"),
    ("materialized_view", "other", "", "marts.model"),
    ("table", "marts", "", "other.model"),
]


@pytest.mark.long
@pytest.mark.usefixtures("shop")
def test_a_model_may_become_something_else(
    ask: Ask, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("models/reader.sql", READER)
    for day, (kind, schema, more, left_over) in enumerate(HISTORY):
        text = KINDS.format(kind=kind, schema=schema, enabled="true", more=more)
        write("models/model.sql", text)
        ask(VISIT, day, day)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            transform(only_stale=bool(day % 2))
        assert ask("select count(*) from marts.reader") == [(day + 1,)], kind
        if kind != "ephemeral":
            assert ask(COUNT.format(sql.Identifier(schema, "model"))) == [(day + 1,)], kind
        said = "".join(line for line in caplog.messages if "still published" in line)
        assert f": {left_over}. " in said if left_over else not said, (kind, said)


READ = "{{ config(schema='marts', materialized='table') }} select * from "
BESIDE = """
select
    small.word,
    reads_ephemeral.word,
    (select count(*) from marts.reads_large),
    reads_variable.word
from marts.small, marts.reads_variable, marts.reads_ephemeral
"""
BETWEEN = "{{{{ config(materialized='ephemeral') }}}} select '{}' as word"


@pytest.mark.long
@pytest.mark.usefixtures("shop")
def test_a_change_beside_the_models_is_built(ask: Ask, write: Write) -> None:
    """That of a variable, and that of a seed of more than 1 MiB, dbt by itself overlooks."""
    large = "id,name\n" + "".join(f"{number},{'x' * 9000}\n" for number in range(120))
    seed = "{name: %s, config: {schema: marts}}"
    write("seeds/seeds.yml", f"seeds: [{seed % 'small'}, {seed % 'large'}]")
    write("models/reads_variable.sql", READ + "(values ('{{ var(\"word\") }}')) as v (word)")
    write("models/reads_ephemeral.sql", READ + "{{ ref('between') }}")
    write("models/reads_large.sql", READ + "{{ ref('large') }}")
    settings = (dbt_project.PROJECT / "dbt_project.yml").read_text()
    found = []
    for word, more, variable in (("a", "", "x"), ("b", "9999,y\n", "x"), ("b", "9999,y\n", "y")):
        write("seeds/small.csv", f"word\n{word}\n")
        write("seeds/large.csv", large + more)
        write("models/between.sql", BETWEEN.format(word))
        write("dbt_project.yml", f"{settings}\nvars: {{word: '{variable}'}}\n")
        transform(only_stale=True)
        found += ask(BESIDE)
    assert found == [("a", "a", 120, "x"), ("b", "b", 121, "x"), ("b", "b", 121, "y")]
    assert transform(only_stale=True) == NOTHING
