"""Makes the files of drafts: new ones, or additions to those of a source that exists.

Every text is read back and compared with what was intended, before any file is written.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from runpy import run_path
from typing import Any

import yaml
from jinja2 import TemplateError

from commands.new_source import deployment, files, nested, templates
from commands.new_source.deployment import with_deployment
from commands.new_source.draft import Draft
from commands.new_source.files import Change
from commands.new_source.literals import Call, jinja, read_python, rendered, yaml_text
from commands.new_source.module_additions import extended
from commands.new_source.nested import NestedList
from commands.new_source.source_module import declaration, evaluated, imports, module
from commands.new_source.templates import Escape
from commands.new_source.yaml_lists import appended, index_of
from flows.errors import ConfigurationError
from flows.source import Source

Rendered = Callable[[Escape], Any]


def write(drafts: Sequence[Draft], root: Path) -> list[Path]:
    """Write all files, or none.

    Raises:
        ConfigurationError: when one of them exists already, does not read back as intended, or
            declares what would lose or double rows.
    """
    name = drafts[0].source
    present = present_source(root, name)
    folder, path = files.models_path(name), files.module_path(name)
    views = {draft.model: _sql(draft) for draft in drafts}
    views |= {d.list_model(each): _list_sql(d, each) for d in drafts for each in d.lists}
    changes = [_change(root, folder / f"{model}.sql", text) for model, text in views.items()]
    if present is None:
        _check_absent(root, folder)
        texts = (_yaml(templates.sources, drafts), _yaml(templates.models, drafts))
        text = _new_module(drafts)
    else:
        texts = (_with_tables(root, drafts), _with_models(root, drafts))
        text = _extended_module(root, present, drafts)
    both = zip((f"_{name}__sources.yml", f"_{name}__models.yml"), texts, strict=True)
    changes += [_change(root, folder / file, text, is_new=not present) for file, text in both]
    changes.append(_change(root, path, text, is_new=not present))
    return files.write(root, [*changes, *([] if present else _deployment(root, name))])


def with_free_models(root: Path, drafts: Sequence[Draft]) -> list[Draft]:
    """The drafts without lists whose models have the names of others; these are to check."""
    folder = root / files.models_path(drafts[0].source)
    taken = {draft.model for draft in drafts} | {path.stem for path in folder.glob("*.sql")}
    found = []
    for draft in drafts:
        free = tuple(each for each in draft.lists if draft.list_model(each) not in taken)
        said = tuple(
            f"the list {each.column.field!r}: it got no model, as {draft.list_model(each)} is taken"
            for each in draft.lists
            if each not in free
        )
        taken |= {draft.list_model(each) for each in free}
        found.append(replace(draft, lists=free, to_check=(*draft.to_check, *said)))
    return found


def present_source(root: Path, name: str) -> Source | None:
    """The source that the repository has under that name; None if it has none.

    Raises:
        ConfigurationError: when its module can't be imported.
    """
    path = root / files.module_path(name)
    if not path.exists():
        return None
    try:
        found = run_path(str(path), run_name=f"flows.sources.{name}").get("SOURCE")
    except Exception as error:  # its code may raise anything
        said = f"{type(error).__name__}: {error}".rstrip(".")
        raise ConfigurationError(f"{path} can't be imported: {said}. Correct it first.") from error
    if not isinstance(found, Source):
        raise ConfigurationError(f"{path} has no SOURCE. Declare SOURCE = Source(...) in it.")
    return found


def _check_absent(root: Path, folder: Path) -> None:
    if (root / folder).is_dir() and any((root / folder).iterdir()):
        raise ConfigurationError(
            f"{folder} exists already, without a source. Delete it, or choose another NAME."
        )


def _change(root: Path, path: Path, text: str, *, is_new: bool = True) -> Change:
    before = None if is_new else files.content(root / path)
    return Change(path, before, text.encode())


def _deployment(root: Path, source: str) -> list[Change]:
    """The change of prefect.yaml; none if it has a deployment, or no clear place for one."""
    before = files.content(root / deployment.PATH)
    try:
        text = (before or b"").decode()
        after = text if deployment.is_deployed(text, source) else with_deployment(text, source)
    except (ConfigurationError, UnicodeDecodeError):
        return []  # a person adds it: the command prints why, and what to add
    return [] if after == text else [Change(deployment.PATH, before, after.encode())]


def _new_module(drafts: Sequence[Draft]) -> str:
    source = declaration(drafts)
    evaluated(source)
    text = module(drafts)
    _check("The module", (imports([source]), source), lambda: read_python(text))
    return text


def _extended_module(root: Path, present: Source, drafts: Sequence[Draft]) -> str:
    calls = [draft.declaration() for draft in drafts]
    replace(present, resources=(*present.resources, *map(evaluated, calls)))
    before = (root / files.module_path(present.name)).read_bytes().decode()
    return extended(before, calls)


def _with_tables(root: Path, drafts: Sequence[Draft]) -> str:
    """The dbt source's YAML with the drafts' tables."""
    name = drafts[0].source
    text = _text(root, files.models_path(name) / f"_{name}__sources.yml")
    if not text:
        return _yaml(templates.sources, drafts)
    position = index_of(_loaded(text), "sources", name)
    if position is None:
        raise ConfigurationError(
            f"_{name}__sources.yml has no source {name!r}. Name it there, or delete the file."
        )
    tables = [_checked(partial(templates.table, draft)) for draft in drafts]
    return appended(text, ("sources", position, "tables"), tables)


def _with_models(root: Path, drafts: Sequence[Draft]) -> str:
    """The staging models' YAML with those of the drafts."""
    name = drafts[0].source
    text = _text(root, files.models_path(name) / f"_{name}__models.yml")
    if not text:
        return _yaml(templates.models, drafts)
    models = [each for draft in drafts for each in _checked(partial(templates.models_of, draft))]
    return appended(text, ("models",), models)


def _text(root: Path, path: Path) -> str:
    return (files.content(root / path) or b"").decode()


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"The YAML can't be read: {error}. Correct it first.") from error


def _yaml(
    render: Callable[[Sequence[Draft], Escape], dict[str, Any]], drafts: Sequence[Draft]
) -> str:
    return yaml_text(_checked(partial(render, drafts)))


def _checked(render: Rendered) -> Any:
    """What is rendered with Jinja's characters escaped, after reading it back."""
    found = render(jinja)
    _check("The dbt YAML", render(str), lambda: _read_yaml(yaml_text(found)))
    return found


def _sql(draft: Draft) -> str:
    text = templates.model_sql(draft, jinja)
    names = [*draft.staged.values(), "loaded_at"]
    _check("The staging model", templates.model_sql(draft, str, "raw"), lambda: _read_sql(text))
    _check("The staging model", names, lambda: _selected(_read_sql(text)))
    return text


def _list_sql(draft: Draft, each: NestedList) -> str:
    text = templates.list_model_sql(draft, each, jinja)
    intended = templates.list_model_sql(draft, each, str, "raw")
    names = [*draft.parent_key, each.position, *nested.staged(each, [*draft.parent_key]).values()]
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
    return rendered(yaml.safe_load(text), last_loaded_at=lambda: templates.LAST_LOADED_AT)


def _read_sql(text: str) -> Any:
    return rendered(text, source=lambda *_: "raw", missing_columns=lambda *_: "", elements_of=str)


def _selected(sql: str) -> list[str]:
    """The names in the model's column list."""
    listed = sql.partition(" as (\n    select\n")[2].partition("    from source\n")[0]
    names = re.findall(r'("(?:[^"]|"")*"|[^\s"]+?),?$', listed, re.MULTILINE)
    return [name[1:-1].replace('""', '"') if name.startswith('"') else name for name in names]
