"""Renders the dbt files of a source: the raw tables, staging models and their tests.

Values come from an API, so each is escaped; `commands.new_source.draft_files` reads them back.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from commands.new_source import nested
from commands.new_source.draft import Draft
from commands.new_source.inference import Column, quoted
from commands.new_source.literals import Call, OnOneLine
from commands.new_source.nested import NestedList
from flows.deletes import DELETED_AT

LAST_LOADED_AT = "{{ last_loaded_at() }}"
Escape = Callable[[str], str]


def sources(drafts: Sequence[Draft], escape: Escape) -> dict[str, Any]:
    """The dbt source with its raw tables."""
    source, base_url = drafts[0].source, drafts[0].base_url
    return {
        "sources": [
            {
                "name": source,
                "description": escape(f"Data from {base_url}."),
                "schema": f"raw_{source}",
                "config": {"loaded_at_query": LAST_LOADED_AT},
                "tables": [table(draft, escape) for draft in drafts],
            }
        ]
    }


def table(draft: Draft, escape: Escape) -> dict[str, Any]:
    """A raw table with every column."""
    key = [column.name for column in draft.keys]
    columns = [
        _column(
            column.name,
            f"{column.about}The API's field {column.field!r}, {column.type}.",
            key,
            escape,
        )
        for column in draft.columns
    ]
    if draft.tombstone:
        about = "When the record's deletion was seen; null for rows that are there, UTC."
        columns.append({"name": DELETED_AT, "description": about})
    columns += [
        {"name": "_loaded_at", "description": "When the load last wrote the row, UTC."},
        {
            "name": "_load_id",
            "description": "The load in the ledger (elt.loads) that last wrote the row.",
        },
    ]
    about = escape(f"As the API sends them, one row per {_words(draft)}.")
    found = {"name": escape(draft.resource), "description": about}
    return found | _combination_test(key, escape) | {"columns": columns}


def models(drafts: Sequence[Draft], escape: Escape) -> dict[str, Any]:
    """The staging models."""
    return {"models": [model for draft in drafts for model in models_of(draft, escape)]}


def models_of(draft: Draft, escape: Escape) -> list[dict[str, Any]]:
    """The staging model of a resource, and those of the lists in its records."""
    lists = [_list_model(draft, each, escape) for each in draft.lists]
    return [_model(draft, escape), *lists]


def _model(draft: Draft, escape: Escape) -> dict[str, Any]:
    """A staging model with the tests of its key, the casts of its columns, and what to check."""
    key = [draft.staged[column.name] for column in draft.keys]
    columns = []
    for column in draft.columns:
        cast = f", cast from {column.type} to {column.cast}" if column.cast else ""
        about = f"{column.about}The API's field {column.field!r}{cast}."
        columns.append(_column(draft.staged[column.name], about, key, escape))
    about = escape(f"{draft.about}The API's {_shown(draft.path)}, one row per {_words(draft)}.")
    found: dict[str, Any] = {"name": escape(draft.model), "description": about}
    if draft.to_check:
        found["config"] = {"meta": {"to_check": list(map(escape, draft.to_check))}}
    return found | _combination_test(key, escape) | {"columns": columns}


def _list_model(draft: Draft, each: NestedList, escape: Escape) -> dict[str, Any]:
    """A model of a list's elements."""
    keys = [*draft.parent_key, each.position]
    columns = [
        _column(name, f"The {_words(draft)} it is part of.", [], escape) for name in keys[:-1]
    ]
    columns.append(_column(each.position, "Its place in the list, from 1 on.", [], escape))
    names = nested.staged(each, keys[:-1])
    columns += [
        _column(names[field.name], f"{field.about}The element's field {field.field!r}.", [], escape)
        for field in each.fields
    ]
    about = f"The list {each.column.field!r} of {draft.resource}, one row per {each.entity}."
    found = {"name": escape(draft.list_model(each)), "description": escape(about)}
    return found | _combination_test(keys, escape) | {"columns": columns}


def _column(name: str, about: str, key: list[str], escape: Escape) -> dict[str, Any]:
    column: dict[str, Any] = {"name": escape(name), "description": escape(about)}
    if quoted(name) != name:
        column["quote"] = True
    if key == [name]:
        column["data_tests"] = OnOneLine(["not_null", "unique"])
    return column


def _combination_test(key: list[str], escape: Escape) -> dict[str, Any]:
    if len(key) < 2:
        return {}
    columns = OnOneLine([escape(quoted(name)) for name in key])
    return {"data_tests": [{"unique_combination": {"arguments": {"columns": columns}}}]}


def _words(draft: Draft) -> str:
    """The name of one row in a sentence, e.g. `order line`."""
    return draft.entity.replace("_", " ")


def _shown(path: str) -> str:
    return path.replace("{{", "{").replace("}}", "}")


def model_sql(draft: Draft, escape: Escape, relation: str = "") -> str:
    """The staging view: renamed, cast, grouped by ids, texts, numbers, booleans, times."""
    listed = [(column.group, escape(_expression(draft, column))) for column in draft.columns]
    listed.append(("time", "_loaded_at as loaded_at"))
    columns = ",\n\n".join(
        ",\n".join(f"        {expression}" for _, expression in group)
        for _, group in groupby(listed, itemgetter(0))
    )
    return f"""with source as (
{_raw_rows(draft, draft.columns, relation)}
),

renamed as (
    select
{columns}
    from source
),

final as (
    select * from renamed
)

select * from final
"""  # noqa: S608 (a file for dbt, not a statement of ours)


def list_model_sql(draft: Draft, each: NestedList, escape: Escape, relation: str = "") -> str:
    """The staging view of a list's elements."""
    rows = _raw_rows(draft, [each.column], relation)
    listed = nested.raw_list(each.column)
    elements = listed if relation else f"{{{{ elements_of('{listed}') }}}}"
    return nested.model_sql(each, rows, elements, draft.parent_key, escape)


def _raw_rows(draft: Draft, columns: Sequence[Column], relation: str) -> str:
    """Select the raw table; of these columns, those that no record has had yet are null."""
    table = f"source('{draft.source}', '{draft.resource}')"
    is_shown, relation = not relation, relation or f"{{{{ {table} }}}}"
    late = [column for column in columns if not column.is_certain]
    if not late:
        return f"    select * from {relation}{draft.condition}"  # noqa: S608 (a file for dbt)
    types = ",\n".join(f"        '{column.name}': '{column.type}'" for column in late)
    missing = f"{{{{ missing_columns({table}, {{\n{types}\n    }}) }}}}" if is_shown else ""
    return f"    select *{missing}\n    from {relation}{draft.condition}"  # noqa: S608 (a file for dbt)


def next_steps(drafts: Sequence[Draft], deploy: str) -> str:
    """The remaining steps for a person, as text; `deploy` is the last one."""
    first = drafts[0]
    values = ",".join(f"{name}=…" for name in first.partition_columns)
    is_of_rows = isinstance(first.partitions, Call)
    partition = f' PARTITION="{values}"' if is_of_rows else ""
    missing = "".join(f"\n  {text}" for draft in drafts for text in _unsure(draft))
    notes = "".join(f"\n  NOTE: {text}" for text in dict.fromkeys(_notes(drafts)))
    return f"""{missing}{notes}
Next:
  review the files: they are guesses from one page, or what a document says
  make preview SOURCE={first.source} RESOURCE={first.resource}{partition}
  make run-local SOURCE={first.source}
  {deploy}"""


def _unsure(draft: Draft) -> list[str]:
    of = f"{draft.resource}: "
    found = []
    if draft.paging is None and not draft.to_check:
        found.append(
            f"NOT FOUND: {of}the paging: this response names no next page. If the API has pages, "
            "declare them, or only the first ones are loaded: see docs/sources.md, Paging"
        )
    if not draft.key and not draft.disposition:
        found.append(f"NOT FOUND: {of}the key: without one, every load inserts all rows again")
    is_cursor_named = any(text.startswith(("a cursor", "the cursor")) for text in draft.to_check)
    if draft.change_time and not is_cursor_named:
        found.append(
            f"NOT FOUND: {of}a cursor, so every load reads all. If a parameter asks for what "
            f"changed since {draft.change_time!r}: see docs/sources.md, Only what is new"
        )
    return found + [f"TO CHECK: {of}{text}" for text in draft.to_check]


def _notes(drafts: Sequence[Draft]) -> list[str]:
    return [note for draft in drafts for note in draft.notes]


def _expression(draft: Draft, column: Column) -> str:
    name, alias = quoted(column.name), quoted(draft.staged[column.name])
    if column.cast:
        return f"cast({name} as {column.cast}) as {alias}"
    return name if name == alias else f"{name} as {alias}"
