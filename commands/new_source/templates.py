"""Renders the files of a new source: its module, dbt source, staging model and their tests.

Values come from an API, so each is written as a literal, and every file is read back as a check.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import yaml
from jinja2 import TemplateError

from commands.new_source import files, inference, nested
from commands.new_source.inference import Column, quoted
from commands.new_source.literals import (
    Call,
    OnOneLine,
    jinja,
    python,
    read_python,
    rendered,
    yaml_text,
)
from commands.new_source.nested import NestedList
from flows.deletes import DELETED_AT
from flows.errors import ConfigurationError
from flows.load.column_names import column_name

# Usual names of the field that says that a record is deleted.
DELETED = {"deleted", "deleted_at", "is_deleted"}
LAST_LOADED_AT = "{{ last_loaded_at() }}"
HOMES = {
    "flows.extract.auth": {"ApiKey", "Basic", "Bearer"},
    "flows.extract.paginators": {"next_link", "next_url"},
    "flows.extract.selectors": {"csv_rows", "ndjson", "record_at", "records_at"},
    "flows.source": {"Resource", "Source", "Tombstones"},
}

Escape = Callable[[str], str]


@dataclass(frozen=True)
class Draft:
    """Everything to write about one resource.

    Attributes:
        notes: what a person has to know about the guesses.
        lists: the lists inside of records.
    """

    source: str
    base_url: str
    resource: str
    path: str
    params: Mapping[str, Any]
    records: Call
    paging: Call | None
    key: tuple[str, ...]
    login: Call | None
    columns: list[Column]
    notes: tuple[str, ...] = ()
    lists: tuple[NestedList, ...] = ()

    @property
    def model(self) -> str:
        """The staging model's name; at most 63 bytes."""
        return column_name(f"stg_{self.source}__{self.resource}")

    @property
    def entity(self) -> str:
        """The name of one row, e.g. `order`."""
        return inference.singular(self.resource)

    @cached_property
    def staged(self) -> dict[str, str]:
        """The staging model's name of each raw column."""
        return inference.staged_names(self.columns, self.entity)

    @property
    def tombstone(self) -> Call | None:
        """How deleted records say so, if a field is named accordingly."""
        found = [each.field for each in self.columns if each.name in DELETED and self.key]
        return Call("Tombstones", (found[0],)) if found else None

    @property
    def condition(self) -> str:
        """The clause that leaves out deleted rows, where they are known."""
        return f"\n    where {DELETED_AT} is null" if self.tombstone else ""

    @property
    def parent_key(self) -> dict[str, str]:
        """The raw columns of the key by their names in staging."""
        return {self.staged[column.name]: column.name for column in self.keys}

    def list_model(self, nested: NestedList) -> str:
        """The name of the model of a list's elements, e.g. `stg_shop__order_lines`."""
        return column_name(f"stg_{self.source}__{self.entity}_{nested.column.name}")

    @property
    def keys(self) -> list[Column]:
        """The columns of the key."""
        by_field = {column.field: column for column in self.columns}
        return [by_field[field] for field in self.key]


def write(draft: Draft, root: Path) -> list[Path]:
    """Write all files, or none.

    Raises:
        ConfigurationError: when one of them exists already, or does not read back as intended.
    """
    text = module(draft)
    _check("The module", (imports(draft), declaration(draft)), lambda: read_python(text))
    models = {
        f"_{draft.source}__sources.yml": _checked_yaml(draft, sources),
        f"_{draft.source}__models.yml": _checked_yaml(draft, models_of),
        f"{draft.model}.sql": _checked_sql(draft),
    } | {f"{draft.list_model(each)}.sql": _checked_list(draft, each) for each in draft.lists}
    return files.add(root, draft.source, text, models)


def _checked_yaml(draft: Draft, content: Callable[[Draft, Escape], dict[str, Any]]) -> str:
    text = yaml_text(content(draft, jinja))
    _check("The dbt YAML", content(draft, str), lambda: _read_yaml(text))
    return text


def _checked_sql(draft: Draft) -> str:
    text = model_sql(draft, jinja)
    names = [*draft.staged.values(), "loaded_at"]
    _check("The staging model", model_sql(draft, str, "raw"), lambda: _read_sql(text))
    _check("The staging model", names, lambda: _selected(_read_sql(text)))
    return text


def _checked_list(draft: Draft, each: NestedList) -> str:
    def written(escape: Escape, relation: str) -> str:
        return nested.model_sql(each, relation, draft.condition, draft.parent_key, escape)

    text = written(jinja, _relation(draft))
    names = [*draft.parent_key, each.position, *nested.staged(each, [*draft.parent_key]).values()]
    intended = _read_sql(written(jinja, "raw"))
    _check("The model of a list", intended, lambda: _read_sql(text))
    _check("The model of a list", [*names, "loaded_at"], lambda: _without_table(text))
    return text


def _without_table(text: str) -> list[str]:
    return [name.removeprefix("source.") for name in _selected(_read_sql(text))]


def _check(what: str, intended: Any, read: Callable[[], Any]) -> None:
    """Compare the values read back with the intended ones.

    Raises:
        ConfigurationError: when they differ; the message names the first value that does.
    """
    try:
        found = read()
    except (ValueError, SyntaxError, RecursionError, yaml.YAMLError, TemplateError) as error:
        raise ConfigurationError(
            f"{what} could not be written: it can't be read back ({error}). Write it by hand."
        ) from error
    if found != intended:
        raise ConfigurationError(
            f"{what} could not be written: {_first_difference(intended, found)!r:.200} reads back "
            "differently. Write it by hand."
        )


def _first_difference(intended: Any, found: Any) -> Any:
    """The innermost part of `intended` that `found` lacks."""
    if isinstance(intended, Call) and isinstance(found, Call) and intended.name == found.name:
        return _first_difference(
            {**dict(enumerate(intended.args)), **intended.named},
            {**dict(enumerate(found.args)), **found.named},
        )
    if isinstance(intended, list | tuple) and isinstance(found, list | tuple):
        return _first_difference(dict(enumerate(intended)), dict(enumerate(found)))
    if isinstance(intended, dict) and isinstance(found, dict):
        for name, value in intended.items():
            if name not in found or found[name] != value:
                return _first_difference(value, found.get(name))
    return intended


def _read_yaml(text: str) -> Any:
    return rendered(yaml.safe_load(text), last_loaded_at=lambda: LAST_LOADED_AT)


def _read_sql(text: str) -> Any:
    return rendered(text, source=lambda *_: "raw", elements_of=lambda column: column)


def _selected(sql: str) -> list[str]:
    """The names in the model's column list."""
    listed = sql.partition("    select\n")[2].partition("    from source\n")[0]
    names = re.findall(r'("(?:[^"]|"")*"|[^\s"]+?),?$', listed, re.MULTILINE)
    return [name[1:-1].replace('""', '"') if name.startswith('"') else name for name in names]


def declaration(draft: Draft) -> Call:
    """The module's SOURCE declaration."""
    resource = {
        "name": draft.resource,
        "path": draft.path,
        "params": dict(draft.params),
        "records": draft.records,
        "paging": draft.paging,
        "key": draft.key,
        "deletes": draft.tombstone,
    }
    source = {
        "name": draft.source,
        "base_url": draft.base_url,
        "login": draft.login,
        "resources": (Call("Resource", (), _given(resource)),),
    }
    return Call("Source", (), _given(source))


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value not in (None, {}, ())}


def imports(draft: Draft) -> dict[str, set[str]]:
    """The names that the declaration needs, by their modules."""
    needed = set(declaration(draft).calls())
    return {home: names & needed for home, names in HOMES.items() if names & needed}


def module(draft: Draft) -> str:
    """The source module."""
    lines = "\n".join(
        f"from {home} import {', '.join(sorted(names))}" for home, names in imports(draft).items()
    )
    return f'''"""{draft.source}: describe the API here, and link its documentation."""

{lines}

SOURCE = {python(declaration(draft))}
'''


def sources(draft: Draft, escape: Escape) -> dict[str, Any]:
    """The dbt source with every column of the raw table."""
    key = [column.name for column in draft.keys]
    columns = [
        _column(column.name, f"The API's field {column.field!r}, {column.type}.", key, escape)
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
    about = escape(f"As the API sends them, one row per {draft.entity}.")
    table = {"name": escape(draft.resource), "description": about}
    return {
        "sources": [
            {
                "name": draft.source,
                "description": escape(f"Data from {draft.base_url}."),
                "schema": f"raw_{draft.source}",
                "config": {"loaded_at_query": LAST_LOADED_AT},
                "tables": [table | _combination_test(key, escape) | {"columns": columns}],
            }
        ]
    }


def models_of(draft: Draft, escape: Escape) -> dict[str, Any]:
    """The staging model's YAML, with the tests of its key and the casts of its columns."""
    key = [draft.staged[column.name] for column in draft.keys]
    columns = []
    for column in draft.columns:
        cast = f", cast from {column.type} to {column.cast}" if column.cast else ""
        about = f"The API's field {column.field!r}{cast}."
        columns.append(_column(draft.staged[column.name], about, key, escape))
    about = escape(f"The API's {_shown(draft.path)}, one row per {draft.entity}.")
    model = {"name": escape(draft.model), "description": about}
    models = [model | _combination_test(key, escape) | {"columns": columns}]
    return {"models": models + [_list_properties(draft, each, escape) for each in draft.lists]}


def _list_properties(draft: Draft, each: NestedList, escape: Escape) -> dict[str, Any]:
    """The YAML of a model of a list's elements."""
    keys = [*draft.parent_key, each.position]
    columns = [
        _column(name, f"The {draft.entity} it is part of.", [], escape) for name in keys[:-1]
    ]
    columns.append(_column(each.position, "Its place in the list, from 1 on.", [], escape))
    names = nested.staged(each, keys[:-1])
    columns += [
        _column(names[field.name], f"The element's field {field.field!r}.", [], escape)
        for field in each.fields
    ]
    about = f"The list {each.column.field!r} of {draft.resource}, one row per {each.entity}."
    model = {"name": escape(draft.list_model(each)), "description": escape(about)}
    return model | _combination_test(keys, escape) | {"columns": columns}


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
    select * from {relation or _relation(draft)}{draft.condition}
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


def _relation(draft: Draft) -> str:
    return f"{{{{ source('{draft.source}', '{draft.resource}') }}}}"


def next_steps(draft: Draft) -> str:
    """The remaining steps for a person, as text."""
    unsure = [
        "the paging: see flows/extract/paginators.py" if draft.paging is None else "",
        "the key: without one, every load inserts all rows again" if not draft.key else "",
    ]
    missing = "".join(f"\n  NOT FOUND: {text}" for text in unsure if text)
    notes = "".join(f"\n  NOTE: {text}" for text in draft.notes)
    name = yaml_text([draft.source])[2:].strip()
    return f"""{missing}{notes}
Next:
  review the files: they are guesses from one page
  make preview SOURCE={draft.source}
  add to prefect.yaml, under deployments:

  - name: {name}
    description: Describe what it loads and builds.
    entrypoint: flows/elt.py:elt
    tags: [elt, watched]
    parameters:
      source: {name}
      retry: *retry
    concurrency_limit: *one_at_a_time
    work_pool: *work_pool
    schedules:
      - slug: daily
        cron: "0 6 * * *"
        timezone: Etc/UTC"""


def _expression(draft: Draft, column: Column) -> str:
    name, alias = quoted(column.name), quoted(draft.staged[column.name])
    if column.cast:
        return f"cast({name} as {column.cast}) as {alias}"
    return name if name == alias else f"{name} as {alias}"
