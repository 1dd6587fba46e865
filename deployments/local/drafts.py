"""The files that make a new source: its module, dbt source, staging model and their tests."""

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from deployments.local import suggest
from deployments.local.suggest import Column, quoted
from flows.errors import ConfigurationError
from flows.load.names import column_name


@dataclass(frozen=True)
class Draft:
    """All that is written about one resource.

    Attributes:
        records: the call that finds the records, as source text.
        login: the same of the login; empty for none.
    """

    source: str
    base_url: str
    resource: str
    path: str
    params: dict[str, str]
    records: str
    paging: str | None
    key: tuple[str, ...]
    login: str
    columns: list[Column]

    @property
    def model(self) -> str:
        """The staging model's name."""
        return f"stg_{self.source}__{self.resource}"

    @property
    def entity(self) -> str:
        """What one row is."""
        return suggest.singular(self.resource)


def write(draft: Draft, root: Path) -> list[Path]:
    """Write all files.

    Raises:
        ConfigurationError: when one of them is there already; nothing is written then.
    """
    staging = root / "dbt_project" / "models" / "staging" / draft.source
    files = {
        root / "flows" / "sources" / f"{draft.source}.py": module(draft),
        staging / f"_{draft.source}__sources.yml": sources_yaml(draft),
        staging / f"_{draft.source}__models.yml": models_yaml(draft),
        staging / f"{draft.model}.sql": model_sql(draft),
    }
    present = [path for path in files if path.exists()]
    if present:
        raise ConfigurationError(
            f"{present[0].relative_to(root)} is there already. Add the resource to it by hand, or "
            "choose another NAME."
        )
    staging.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    return list(files)


def module(draft: Draft) -> str:
    """The source module."""
    imports = ["from flows.declaration import Resource, Source"]
    if draft.login:
        imports.append(f"from flows.extract.auth import {draft.login.partition('(')[0]}")
    if draft.paging:
        imports.append(f"from flows.extract.pagination import {draft.paging.partition('(')[0]}")
    imports.append(f"from flows.extract.records import {draft.records.partition('(')[0]}")
    params = ", ".join(f'"{name}": "{value}"' for name, value in draft.params.items())
    keys = "".join(f'"{field}", ' for field in draft.key).strip()
    fields = [
        f'name="{draft.resource}"',
        f'path="{draft.path}"',
        *([f"params={{{params}}}"] if params else []),
        f"records={draft.records}",
        *([f"paging={draft.paging}"] if draft.paging else []),
        *([f"key=({keys})"] if keys else []),
    ]
    resource = "".join(f"            {field},\n" for field in fields)
    login = f"    login={draft.login},\n" if draft.login else ""
    newline = "\n"
    return f'''"""{draft.source}: say here what the API is, and where it is documented."""

{newline.join(imports)}

SOURCE = Source(
    name="{draft.source}",
    base_url="{draft.base_url}",
{login}    resources=(
        Resource(
{resource}        ),
    ),
)
'''


def sources_yaml(draft: Draft) -> str:
    """The dbt source with every column of the raw table."""
    lines = [
        "sources:",
        f"  - name: {draft.source}",
        f"    description: What {draft.base_url} sends.",
        f"    schema: raw_{draft.source}",
        "    config:",
        '      loaded_at_query: "{{ last_loaded_at() }}"',
        "    tables:",
        f"      - name: {draft.resource}",
        f"        description: As the API sends them, one row per {draft.entity}.",
        *_combination_test(_raw_key(draft), "        "),
        "        columns:",
    ]
    for column in draft.columns:
        lines.append(f"          - name: {_yaml_name(column.name)}")
        about = _yaml_text(f"The API's field {column.field!r}, {column.type}.")
        lines.append(f"            description: {about}")
        if _raw_key(draft) == [column.name]:
            lines.append("            data_tests: [not_null, unique]")
    lines += [
        "          - name: _loaded_at",
        "            description: When the load last wrote the row, UTC.",
        "          - name: _load_id",
        "            description: The load in the ledger (elt.loads) that last wrote the row.",
    ]
    return "\n".join(lines) + "\n"


def models_yaml(draft: Draft) -> str:
    """The staging model with the tests of its key and what its casts are."""
    key = [_staged_name(draft, column) for column in _key_columns(draft)]
    lines = [
        "models:",
        f"  - name: {draft.model}",
        f"    description: What the API calls {draft.path}, one row per {draft.entity}.",
        *_combination_test(key, "    "),
        "    columns:",
    ]
    for column in draft.columns:
        name = _staged_name(draft, column)
        cast = f", cast from {column.type} to {column.cast}" if column.cast else ""
        lines.append(f"      - name: {_yaml_name(name)}")
        about = _yaml_text(f"The API's field {column.field!r}{cast}.")
        lines.append(f"        description: {about}")
        if key == [name]:
            lines.append("        data_tests: [not_null, unique]")
    return "\n".join(lines) + "\n"


def model_sql(draft: Draft) -> str:
    """The staging view: renamed, cast, and grouped as ids, texts, numbers, booleans, times."""
    groups = [
        ",\n".join(f"        {_expression(draft, column)}" for column in group)
        for _, group in groupby(draft.columns, key=lambda column: column.group)
    ]
    times = [group for group in (draft.columns[-1].group,) if group == "time"]
    columns = (
        ",\n\n".join(groups) + (",\n" if times else ",\n\n") + "        _loaded_at as loaded_at"
    )
    return f"""with source as (
    select * from {{{{ source('{draft.source}', '{draft.resource}') }}}}
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


def next_steps(draft: Draft) -> str:
    """What is left to a person."""
    unsure = [
        "the paging: see flows/extract/pagination.py" if draft.paging is None else "",
        "the key: without one, every load adds all rows again" if not draft.key else "",
    ]
    missing = "".join(f"\n  NOT FOUND: {text}" for text in unsure if text)
    return f"""{missing}
Next:
  look at the files: they are guesses from one page
  make preview SOURCE={draft.source}
  add to prefect.yaml, under deployments:

  - name: {draft.source}
    description: Say what it loads, and what is built from that.
    entrypoint: flows/elt.py:elt
    tags: [elt]
    parameters:
      source: {draft.source}
    concurrency_limit: *one_at_a_time
    work_pool: *work_pool
    schedules:
      - slug: daily
        cron: "0 6 * * *"
        timezone: Etc/UTC"""


def _raw_key(draft: Draft) -> list[str]:
    return [column_name(field) for field in draft.key]


def _key_columns(draft: Draft) -> list[Column]:
    by_field = {column.field: column for column in draft.columns}
    return [by_field[field] for field in draft.key]


def _staged_name(draft: Draft, column: Column) -> str:
    """`id` becomes `order_id`; what SQL reserves gets the entity's name before it."""
    is_taken = column.name == "id" or quoted(column.name) != column.name
    return f"{draft.entity}_{column.name}" if is_taken else column.name


def _expression(draft: Draft, column: Column) -> str:
    name, alias = quoted(column.name), _staged_name(draft, column)
    if column.cast:
        return f"cast({name} as {column.cast}) as {alias}"
    return name if name == alias else f"{name} as {alias}"


def _combination_test(key: list[str], indent: str) -> list[str]:
    if len(key) < 2:
        return []
    return [
        f"{indent}data_tests:",
        f"{indent}  - unique_combination:",
        f"{indent}      arguments:",
        f"{indent}        columns: [{', '.join(key)}]",
    ]


def _yaml_text(text: str) -> str:
    """A field's name may hold what ends a plain scalar."""
    return json.dumps(text) if ": " in text or " #" in text else text


def _yaml_name(name: str) -> str:
    """YAML 1.1 reads `no`, `y` or `on` as booleans."""
    return f'"{name}"' if name in {"y", "n", "yes", "no", "on", "off", "true", "false"} else name
