"""The Python of a source: what a declaration imports, what it makes, and a new module."""

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

from commands.new_source.draft import Draft, given
from commands.new_source.literals import LINE, Call, python

HOMES = {
    "datetime": {"datetime", "timedelta"},
    "flows.extract.auth": {"ApiKey", "Basic", "Bearer", "OAuth2"},
    "flows.extract.paginators": {
        "next_link",
        "next_token",
        "keyset",
        "next_url",
        "offset",
        "page_number",
    },
    "flows.extract.selectors": {"columns_at", "csv_rows", "ndjson", "record_at", "records_at"},
    "flows.source": {"Cursor", "Partition", "Resource", "RowsOf", "Source", "Tombstones"},
}
Names = dict[str, set[str]]


def declaration(drafts: Sequence[Draft]) -> Call:
    """The module's SOURCE declaration."""
    first = drafts[0]
    source = {
        "name": first.source,
        "base_url": first.base_url,
        "login": first.login,
        "resources": tuple(draft.declaration() for draft in drafts),
    }
    return Call("Source", (), given(source))


def imports(calls: Sequence[Call]) -> Names:
    """The names that declarations need, by their modules."""
    needed = {name.partition(".")[0] for call in calls for name in call.calls()}
    return {home: names & needed for home, names in HOMES.items() if names & needed}


def evaluated(value: Any) -> Any:
    """The object that a declaration makes.

    Raises:
        ConfigurationError: when the declaration would lose or double rows.
    """
    if isinstance(value, tuple):
        return tuple(map(evaluated, value))
    if not isinstance(value, Call):
        return value
    first, *attributes = value.name.split(".")
    [home] = [home for home, names in HOMES.items() if first in names]
    made = getattr(import_module(home), first)
    for attribute in attributes:
        made = getattr(made, attribute)
    named = {name: evaluated(item) for name, item in value.named.items()}
    return made(*map(evaluated, value.args), **named)


def module(drafts: Sequence[Draft]) -> str:
    """The module of a new source."""
    source = declaration(drafts)
    needed = imports([source])
    lines = [import_line(home, names) for home, names in needed.items()]
    others = [line for line in lines if not line.startswith("from flows.")]
    ours = [line for line in lines if line not in others]
    imported = "\n\n".join("\n".join(block) for block in (others, ours) if block)
    return f'''"""{drafts[0].source}: describe the API here, and link its documentation."""

{imported}

SOURCE = {python(source)}
'''


def import_line(home: str, names: Iterable[str]) -> str:
    """An import in ruff's format."""
    listed = sorted(names, key=_by_type)
    line = f"from {home} import {', '.join(listed)}"
    if len(line) <= LINE:
        return line
    return "\n".join([f"from {home} import (", *(f"    {name}," for name in listed), ")"])


def _by_type(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions (ruff's order-by-type)."""
    plain = name.partition(" as ")[0]
    is_constant = plain.isupper() and len(plain) > 1
    return (0 if is_constant else 1 if plain[0].isupper() else 2, name)
