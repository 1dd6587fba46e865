"""What is measured, and with what. Imports none of the tools: each runs in a process of its own."""

from dataclasses import dataclass

FIRST_LOAD = "first_load"
MERGE_CHANGED = "merge_changed"
MERGE_UNCHANGED = "merge_unchanged"
GROWTH = "growth"
READING = "read_pages"
READING_PAGES = 1000
COUNTED = "counted_pages"
COUNTED_PAGES = 100
COUNTED_MS = 20
SHAPE = "shape"
AGAIN = "again"
# Requests at once in loads of children, for every tool.
CONCURRENCY = 5

PATHS = {FIRST_LOAD: "first/1", MERGE_CHANGED: "changed/1", MERGE_UNCHANGED: "first/1"}


@dataclass(frozen=True)
class Tool:
    """One way to load the pages.

    Attributes:
        module: the module of this package whose `load` takes a Task.
        table: schema and name of the table it fills.
        merges: whether it can load over existing rows; without, there is only a first load.
        is_measured_first: whether its first load is; not if it is another tool's.
        title: how the report calls it.
    """

    name: str
    module: str
    table: tuple[str, str]
    merges: bool
    title: str
    is_measured_first: bool = True

    @property
    def merge_cases(self) -> list[str]:
        """The merges it takes part in, in order."""
        return [MERGE_CHANGED, MERGE_UNCHANGED] if self.merges else []


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("this", "project", ("raw_nycflights", "flights"), True, "this project"),
        Tool("copy", "plain_copy", ("public", "flights"), False, "plain COPY of a ready CSV file"),
        Tool("update", "plain_merge", ("public", "flights"), True, "plain SQL, update", False),
        Tool("rebuild", "plain_merge", ("public", "flights"), True, "plain SQL, new table", False),
        Tool("dlt", "dlt_merge", ("flights", "flights"), True, "dlt"),
        Tool("dlt_csv", "dlt_merge", ("flights", "flights"), True, "dlt, csv loader files"),
        Tool("to_sql", "dataframes", ("public", "flights"), False, "pandas to_sql, append"),
    )
}


SHAPE_LOADER = Tool("this", "shapes", ("raw_benchmark", "shapes"), False, "this project")

CHILD_LOADERS = {
    tool.name: tool
    for tool in (
        Tool("this", "children", ("raw_family", "lines"), False, "this project"),
        Tool("dlt", "dlt_children", ("family", "lines"), False, "dlt"),
    )
}

COUNTED_LOADERS = {
    tool.name: tool
    for tool in (
        Tool("this", "counted", ("raw_counted", "flights"), False, "this project"),
        Tool(
            "one_by_one", "counted", ("raw_counted", "flights"), False,
            "this project, concurrency=1",
        ),
    )
}  # fmt: skip

READERS = {
    tool.name: tool
    for tool in (
        Tool("this", "reading", ("", ""), False, "this project"),
        Tool("requests", "reading", ("", ""), False, "requests alone"),
    )
}


@dataclass(frozen=True)
class Task:
    """One measurement, as its process gets it.

    Attributes:
        module: the module of this package whose `load` takes this task.
        base_url: where the API is; the first page is `path` below it.
        database: the address of the database to fill; libpq and SQLAlchemy both take it.
        csv: the rows as a file, for plain COPY.
        state: a folder that goes on from the first load to the merge, e.g. for a pipeline's state.
    """

    tool: str
    module: str
    base_url: str
    path: str
    database: str
    csv: str
    state: str

    @property
    def url(self) -> str:
        """The address of the first page."""
        return f"{self.base_url}{self.path}"
