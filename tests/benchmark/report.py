"""The results as tables: medians by case and tool, and how the load grows with its rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from textwrap import fill
from typing import Any

from tests.benchmark.bench import Result
from tests.benchmark.children import FAMILIES, LINES_A_PARENT
from tests.benchmark.counted import least_seconds
from tests.benchmark.shapes import SHAPES
from tests.benchmark.tools import (
    AGAIN,
    CHILD_LOADERS,
    CONCURRENCY,
    COUNTED,
    COUNTED_LOADERS,
    COUNTED_MS,
    COUNTED_PAGES,
    FIRST_LOAD,
    GROWTH,
    READERS,
    READING,
    READING_PAGES,
    SHAPE,
    TOOLS,
)

HEAD = ("case", "tool", "seconds", "rows/s", "× plain COPY", "× dlt", "peak RSS MiB")
GROWTH_HEAD = ("rows", "seconds", "seconds per million rows", "peak RSS MiB")
COUNTED_HEAD = (
    f"loading {COUNTED_PAGES} pages, answers take {COUNTED_MS} ms",
    "seconds",
    "× the API's own time",
    "peak RSS MiB",
)
READING_HEAD = (f"reading {READING_PAGES:,} pages", "seconds", "× requests alone", "peak RSS MiB")
CHILDREN_HEAD = (
    "parents, one page of children each",
    "tool",
    "seconds",
    "× the API's own time",
    "× dlt",
    "peak RSS MiB",
)
SHAPES_HEAD = ("60 MB on one page", "records", "seconds", "peak RSS MiB", "of its backend")
NOTHING = "–"
LEFT_COLUMNS = 2
SHAPE_TITLES = {f"{SHAPE}_{name}": shape.title for name, shape in SHAPES.items()}
PAGE_WIDTH = 100
CHILD_TITLES = {
    title: text
    for case, family in FAMILIES.items()
    for title, text in (
        (case, f"{family.parents:,}, answers take {family.latency_ms} ms"),
        (f"{case}_{AGAIN}", f"{family.parents:,} again, none changed, {family.latency_ms} ms"),
    )
}

PAGE = """# How fast is it?

From HTTP to Postgres, beside what else one would use. Every single run is in
[benchmark.json](benchmark.json).

{medians}

Medians of {runs}; the fastest and the slowest in brackets, where there is more than one. × plain
COPY: rows per second, as a share of plain COPY's first load, which asks no API, reads no JSON and
merges nothing. × dlt: rows per second, as a multiple of dlt's in the same case.

{others}{machine}

## How it is measured

* {rows:,} real flights, 20 columns, {size:.0f} MB of JSON on {pages} pages, rendered once and
  served from memory by a process on the same machine. Their key: {key}.
* `first_load`: into an empty database. `merge_changed`: every row again, one number in each of them
  changed. `merge_unchanged`: every row again as it is. Growth: generated rows, by this project.
* Reading: pages fetched and thrown away. requests alone knows all addresses beforehand; this
  project finds the next page in each, and looks for circles.
* Parents with children: a list of parents, then a page of {lines} children of each, {at_once}
  requests at once. The API's own time is that of all its answers, {at_once} at once. dlt: its
  rest_api source, the children `parallelized`. Again: this project with `changed_only`.
* Pages that state their number are fetched {at_once} at once, or one after the other. The API's
  own time is that of all its answers, as many at once.
* 60 MB on one page: a first load of records of odd shapes. The peak is that of the loading process;
  that of its backend in Postgres includes the shared buffers that it touched.
* Every measurement has a process and a database of its own: merges get a copy of what the tool's
  own first load left, vacuumed and analysed. A checkpoint comes first. Tools take turns.
* Seconds are wall clock, from before the first request to after the last commit, without imports.
  Peak RSS is the loading process alone, without Postgres and the API.
* Default settings for all. dlt pages with its REST client and merges by primary key; pandas appends
  page by page, without a key; plain COPY finds its CSV file ready, and fills the table that this
  project makes, key and own columns too.
* Plain SQL finds its CSV file ready, and the table that plain COPY filled. Update: COPY into
  a temporary table, one `update … from` it for every row of it, one `insert` of what is missing.
  New table: COPY into it, its key, what only the old table has, and it takes the old one's place.
  Readers wait for that, and views on the old table would be lost; so no load does it.
* A build by this project is a run of `transform`: dbt in a process of its own, a task run for each
  node, the tables published in one transaction. dbt alone is the command `dbt build` of the same
  tables and tests; both start dbt anew, and go on with what they parsed before. Prefect's heartbeat
  is off: at the end of a run it sleeps to the end of a second.
* Dask workers: a resource of many partitions, a request each, at an API that takes 50 ms; two
  requests at once per worker. Workers, scheduler, API, Postgres and Prefect share the machine's
  cores. Seconds: while the resource's group is open, without starting workers.
* After every load the row count, and of each column the number of values and their sum (of text:
  of hashes), must be those that were served, or the benchmark fails.

`make bench` measures it all again and writes this page. Parts of it, into `.local/`:
`.venv/bin/python -m tests.benchmark --runs 1 --tools this,copy --rows ""`; `--quick` takes seconds.
"""
MACHINE = """Measured {measured_at} on {cpu_count} cores ({cpu_model}, {system}) with {memory_gib}
GiB of memory, Python {python} and PostgreSQL {postgres} from the wheel with its own settings
({settings}); {versions}."""


@dataclass(frozen=True)
class Table:
    """Cells as text; the first `left` columns are aligned left, the others right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int

    def text(self) -> str:
        """For a terminal."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        return "\n".join(self._line(cells, widths) for cells in (self.head, *self.rows))

    def markdown(self) -> str:
        """For docs/benchmark.md."""
        rule = ["---" if n < self.left else "--:" for n in range(len(self.head))]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.head, rule, *self.rows))

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        aligned = (
            cell.ljust(width) if number < self.left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(aligned).rstrip()


def tables(results: Sequence[Result]) -> list[Table]:
    """The medians, and the growth where it was measured."""
    shapes = [result for result in results if result.case in SHAPE_TITLES]
    children = [result for result in results if result.case in CHILD_TITLES]
    counted = [result for result in results if result.case == COUNTED]
    others = {GROWTH, READING, COUNTED, *SHAPE_TITLES, *CHILD_TITLES}
    cases = [result for result in results if result.case not in others]
    growth = [result for result in results if result.case == GROWTH]
    reading = [result for result in results if result.case == READING]
    found = (
        _medians(cases),
        _growth(growth),
        _children(children),
        _reading(reading),
        _counted(counted),
        _shapes(shapes),
    )
    return [table for table in found if table.rows]


def page(
    machine: dict[str, Any],
    results: Sequence[Result],
    key: Sequence[str],
    more: Sequence[Table] = (),
) -> str:
    """docs/benchmark.md, with `more` tables than that of the results."""
    medians, *others = [table.markdown() for table in (*tables(results), *more)]
    served = machine["served"]
    return PAGE.format(
        medians=medians,
        others="".join(f"{table}\n\n" for table in others),
        machine=_about(machine),
        runs=_number_of_runs(results),
        key=", ".join(key),
        rows=served["rows"],
        pages=served["pages"],
        size=served["size_bytes"] / 1e6,
        lines=LINES_A_PARENT,
        at_once=CONCURRENCY,
    )


def _about(machine: dict[str, Any]) -> str:
    text = MACHINE.format(
        settings=_named(machine["postgres_settings"]),
        versions=_named(machine["packages"]),
        **machine,
    )
    return fill(text, PAGE_WIDTH, break_on_hyphens=False)


def _number_of_runs(results: Sequence[Result]) -> str:
    _, runs = _grouped(results, _case_and_tool)[0]
    return "one run" if len(runs) == 1 else f"{len(runs)} runs"


def _medians(results: Sequence[Result]) -> Table:
    rates = {
        group: median(result.rows_per_second for result in runs)
        for group, runs in _grouped(results, _case_and_tool)
    }
    rows = [
        (
            case,
            TOOLS[tool].title,
            spread([run.seconds for run in runs]),
            f"{rates[case, tool]:,.0f}",
            ratio(rates[case, tool], rates.get((FIRST_LOAD, "copy"))),
            ratio(rates[case, tool], rates.get((case, "dlt"))),
            f"{median(run.peak_rss_mib for run in runs):,.0f}",
        )
        for (case, tool), runs in _grouped(results, _case_and_tool)
    ]
    return Table(HEAD, rows, LEFT_COLUMNS)


def _growth(results: Sequence[Result]) -> Table:
    rows = [
        (
            f"{count:,}",
            spread([run.seconds for run in runs]),
            f"{median(run.seconds for run in runs) / count * 1e6:.2f}",
            f"{median(run.peak_rss_mib for run in runs):,.0f}",
        )
        for count, runs in _grouped(results, lambda result: result.rows)
    ]
    return Table(GROWTH_HEAD, rows, 0)


def _reading(results: Sequence[Result]) -> Table:
    seconds = {
        tool: median(run.seconds for run in runs)
        for tool, runs in _grouped(results, lambda result: result.tool)
    }
    rows = [
        (
            READERS[tool].title,
            spread([run.seconds for run in runs]),
            ratio(seconds[tool], seconds.get("requests")),
            f"{median(run.peak_rss_mib for run in runs):,.0f}",
        )
        for tool, runs in _grouped(results, lambda result: result.tool)
    ]
    return Table(READING_HEAD, rows, 1)


def _counted(results: Sequence[Result]) -> Table:
    rows = [
        (
            COUNTED_LOADERS[tool].title,
            spread([run.seconds for run in runs]),
            ratio(median(run.seconds for run in runs), least_seconds(tool)),
            f"{median(run.peak_rss_mib for run in runs):,.0f}",
        )
        for tool, runs in _grouped(results, lambda result: result.tool)
    ]
    return Table(COUNTED_HEAD, rows, 1)


def _children(results: Sequence[Result]) -> Table:
    seconds = {
        group: median(run.seconds for run in runs)
        for group, runs in _grouped(results, _case_and_tool)
    }
    rows = [
        (
            CHILD_TITLES[case],
            CHILD_LOADERS[tool].title,
            spread([run.seconds for run in runs]),
            ratio(seconds[case, tool], FAMILIES[case].least_seconds if case in FAMILIES else None),
            _speed(seconds.get((case, "dlt")), seconds[case, tool]),
            f"{median(run.peak_rss_mib for run in runs):,.0f}",
        )
        for (case, tool), runs in _grouped(results, _case_and_tool)
    ]
    return Table(CHILDREN_HEAD, rows, LEFT_COLUMNS)


def _speed(other: float | None, own: float) -> str:
    """How many times as fast it is."""
    return NOTHING if other is None else ratio(other, own)


def _shapes(results: Sequence[Result]) -> Table:
    rows = [
        (
            SHAPE_TITLES[case],
            f"{runs[0].rows:,}",
            spread([run.seconds for run in runs]),
            f"{median(run.peak_rss_mib for run in runs):,.0f}",
            _median_or_nothing([run.backend_rss_mib for run in runs]),
        )
        for case, runs in _grouped(results, lambda result: result.case)
    ]
    return Table(SHAPES_HEAD, rows, 1)


def _median_or_nothing(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):,.0f}" if known else NOTHING


def _case_and_tool(result: Result) -> tuple[str, str]:
    return result.case, result.tool


def _grouped(
    results: Sequence[Result], by: Callable[[Result], Any]
) -> list[tuple[Any, list[Result]]]:
    """The results by what they have in common, in the order of the tools' table."""
    order = [*TOOLS, *READERS, *COUNTED_LOADERS]
    cases = list(dict.fromkeys(result.case for result in results))
    ordered = sorted(results, key=lambda r: (cases.index(r.case), order.index(r.tool), r.rows))
    return [(key, list(group)) for key, group in groupby(ordered, by)]


def spread(seconds: Sequence[float]) -> str:
    """The median, with the fastest and the slowest where there are more."""
    if len(seconds) == 1:
        return f"{seconds[0]:.2f}"
    return f"{median(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"


def ratio(rate: float, other: float | None) -> str:
    """How many times the other it is."""
    return f"{rate / other:.2f}" if other else NOTHING


def _named(values: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
