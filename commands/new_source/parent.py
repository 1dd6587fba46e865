"""The parent of an address below one of the source's lists: `/orders/17/lines` is of an order."""

from dataclasses import replace

from commands.new_source import inference
from commands.new_source.draft import Draft
from commands.new_source.literals import Call
from flows.load.column_names import column_name
from flows.source import Partition, Resource, Source


def with_parent(draft: Draft, present: Source | None) -> Draft:
    """The draft, for the children of every row if the address is that of one row's children.

    The parent is a resource of the source with a key of one field and without partitions.
    """
    for parent in present.resources if present else ():
        start = f"{parent.path.partition('?')[0].rstrip('/')}/"
        segment, _, rest = draft.path.removeprefix(start).partition("/")
        is_single = len(parent.key) == 1 and parent.partitions == (Partition(),)
        if is_single and draft.path.startswith(start) and segment and rest:
            return _of_each(draft, parent, start, segment, rest)
    return draft


def _of_each(draft: Draft, parent: Resource, start: str, segment: str, rest: str) -> Draft:
    [field] = parent.key
    column = parent.names.get(field, column_name(field))
    name = _free_name(draft, parent, column)
    key = (name, *draft.key) if draft.key else ()
    kind = "bigint" if segment.isdecimal() else "text"
    own = inference.column(name, name, kind, "", (name,))
    said = (
        f"{start}{segment}/ is read as that of one row: {rest} are requested for all {parent.name}"
    )
    return replace(
        draft,
        path=f"{start}{{{name}}}/{rest}",
        key=key,
        columns=[own, *draft.columns],
        partitions=Call("RowsOf", (parent.name, {name: column})),
        partition_columns=(name,),
        notes=(*draft.notes, said),
    )


def _free_name(draft: Draft, parent: Resource, column: str) -> str:
    """The column for the parent's key, e.g. `order_id`; another one if the records have that."""
    entity = inference.singular(parent.name)
    name = column if column.startswith(entity) else column_name(f"{entity}_{column}")
    taken = {each.name for each in draft.columns}
    while name in taken:
        name = column_name(f"parent_{name}")
    return name
