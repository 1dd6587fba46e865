"""Models of lists inside records: a row for each element, with its parent's key and position."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from commands.new_source import inference
from commands.new_source.inference import LOADED_AT, Column, quoted
from flows.load.column_names import column_name

Escape = Callable[[str], str]

# JSON has no integers: a number of the list may have a fraction tomorrow.
_CASTS = {"bigint": "numeric", "double precision": "numeric", "boolean": "boolean"}


@dataclass(frozen=True)
class NestedList:
    """A field that holds a list of objects.

    Attributes:
        column: the raw column of the list.
        fields: the fields of its elements.
    """

    column: Column
    fields: tuple[Column, ...]

    @property
    def entity(self) -> str:
        """The name of one element, e.g. `line`."""
        return inference.singular(self.column.name)

    @property
    def position(self) -> str:
        """The column with the element's place in the list."""
        return column_name(f"{self.entity}_position")


def lists_in(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[NestedList]:
    """The columns in which every value is a list of objects, an empty list or null."""
    found = []
    for column in columns:
        values = [row.get(column.field) for row in rows]
        elements = [each for value in values if isinstance(value, list) for each in value]
        is_list = all(value is None or isinstance(value, list) for value in values)
        if is_list and elements and all(isinstance(each, dict) and each for each in elements):
            fields = inference.columns(elements, ())
            shown = tuple(each for each in fields if each.field.isprintable())
            found.append(NestedList(column, shown))
    return found


def staged(nested: NestedList, keys: Sequence[str]) -> dict[str, str]:
    """The model's unique name for each field of an element; `keys` are those of the parent."""
    names = inference.staged_names(nested.fields, nested.entity)
    taken = {*keys, nested.position, LOADED_AT, *names.values()}
    for column, name in names.items():
        if name in {*keys, nested.position}:
            while name in taken:
                name = column_name(f"{nested.entity}_{name}")
            taken.add(name)
            names[column] = name
    return names


def model_sql(
    nested: NestedList, rows: str, elements: str, keys: Mapping[str, str], escape: Escape
) -> str:
    """The view of the elements.

    `rows` selects the parents, `elements` joins the elements; `keys` are the raw columns of the
    parent's key by their names.
    """
    names = staged(nested, list(keys))
    listed = [("id", _aliased(f"source.{quoted(raw)}", name)) for name, raw in keys.items()]
    listed.append(("id", f"element.position as {quoted(nested.position)}"))
    listed += [(each.group, _expression(each, names[each.name])) for each in nested.fields]
    listed.append(("time", "source._loaded_at as loaded_at"))
    columns = ",\n\n".join(
        ",\n".join(f"        {escape(expression)}" for _, expression in group)
        for _, group in groupby(listed, lambda each: each[0])
    )
    return f"""with source as (
{rows}
),

elements as (
    select
{columns}
    from source
    {elements}
),

final as (
    select * from elements
)

select * from final
"""  # noqa: S608 (a file for dbt, not a statement of ours)


def raw_list(column: Column) -> str:
    """The raw column; it is text as long as no record has had a value."""
    name = f"source.{quoted(column.name)}"
    return name if column.is_certain else f"to_jsonb({name})"


def _aliased(expression: str, name: str) -> str:
    """With an alias, unless the name is the same."""
    name = quoted(name)
    return expression if expression.endswith(f".{name}") else f"{expression} as {name}"


def _expression(field: Column, name: str) -> str:
    place = "'{}'".format(field.field.replace("'", "''"))
    if field.type == "jsonb":
        return f"element.value -> {place} as {quoted(name)}"
    cast = field.cast or _CASTS.get(field.type)
    text = f"element.value ->> {place}"
    return f"cast({text} as {cast}) as {quoted(name)}" if cast else f"{text} as {quoted(name)}"
