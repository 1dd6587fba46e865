"""`python -m tests.benchmark`: measure, print the tables, and write docs/benchmark.{md,json}."""

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from deployments.local.processes import StartError
from tests.benchmark import builds, flights, report, workers
from tests.benchmark.bench import Bench, MeasurementError, Result
from tests.benchmark.children import FAMILIES
from tests.benchmark.machine import describe
from tests.benchmark.services import running
from tests.benchmark.shapes import SHAPES
from tests.benchmark.sums import DifferentRowsError
from tests.benchmark.tools import TOOLS

ROOT = Path(__file__).resolve().parents[2]
QUICK_TOOLS = ["this", "copy"]
QUICK_PAGES = 50
GROWTH_ROWS = [1_000_000, 10_000_000]


def main() -> int:
    """Measure what was asked for; 0 when every table held in the end what was served."""
    arguments = parsed()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    limit = QUICK_PAGES * flights.ROWS_A_PAGE if arguments.quick else None
    print("Rendering the pages and starting Postgres ...", flush=True)
    try:
        with running(limit) as bench:
            machine = describe(bench)
            print(introduction(bench), flush=True)
            results = list(measured(bench, arguments))
    except (StartError, MeasurementError, DifferentRowsError) as error:
        print(f"\nFAILED: {error}")
        return 1
    built = [build for nodes in arguments.nodes for build in builds.measure(nodes, arguments.runs)]
    clusters = workers.measure(arguments.runs) if arguments.workers else []
    more = [builds.table(built)] if built else []
    more += [workers.table(clusters)] if clusters else []
    for table in (*report.tables(results), *more):
        print(f"\n{table.text()}")
    is_complete = (
        arguments.shapes == list(SHAPES)
        and arguments.families == list(FAMILIES)
        and arguments.rows
        and arguments.nodes
        and arguments.workers
    )
    is_whole = set(arguments.tools) == set(TOOLS) and is_complete
    folder = ROOT / ("docs" if is_whole else ".local")
    write(folder, machine, results, more, {"builds": built, "workers": clusters})
    return 0


def parsed() -> argparse.Namespace:
    """The command line; `--quick` overrides the other options."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tools", type=tool_names, default=list(TOOLS), help=",".join(TOOLS))
    parser.add_argument("--rows", type=row_counts, default=GROWTH_ROWS, help='growth, "" for none')
    parser.add_argument("--shapes", type=shape_names, default=list(SHAPES), help='"" for none')
    parser.add_argument("--families", type=family_names, default=list(FAMILIES), help='"" for none')
    parser.add_argument("--nodes", type=node_counts, default=builds.NODES, help='dbt, "" for none')
    parser.add_argument("--no-workers", action="store_false", dest="workers", help="without Dask")
    parser.add_argument("--quick", action="store_true", help="a few pages, this and copy, one run")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.runs, arguments.tools, arguments.rows, arguments.nodes = 1, QUICK_TOOLS, [], []
        arguments.shapes, arguments.families, arguments.workers = [], [], False
    return arguments


def tool_names(text: str) -> list[str]:
    """Tools by name, in the order of the report."""
    names = set(text.split(","))
    if unknown := names - TOOLS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {[*TOOLS]}")
    return [name for name in TOOLS if name in names]


def shape_names(text: str) -> list[str]:
    """Shapes of records by name, in the order of the report."""
    names = set(filter(None, text.split(",")))
    if unknown := names - SHAPES.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {[*SHAPES]}")
    return [name for name in SHAPES if name in names]


def family_names(text: str) -> list[str]:
    """Cases of parents with children by name."""
    names = set(filter(None, text.split(",")))
    if unknown := names - FAMILIES.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {[*FAMILIES]}")
    return [name for name in FAMILIES if name in names]


def row_counts(text: str) -> list[int]:
    """Numbers of generated rows, whole pages each."""
    counts = [int(count) for count in text.split(",") if count]
    if any(count < 1 or count % flights.ROWS_A_PAGE for count in counts):
        raise argparse.ArgumentTypeError(f"must be multiples of {flights.ROWS_A_PAGE}")
    return counts


def node_counts(text: str) -> list[int]:
    """Numbers of nodes of generated dbt projects."""
    return [int(count) for count in text.split(",") if count]


def measured(bench: Bench, arguments: argparse.Namespace) -> Iterator[Result]:
    """Every measurement, told as it comes; the tools take turns within a run."""
    for run in range(1, arguments.runs + 1):
        for result in one_run(bench, arguments):
            print(f"  run {run} of {arguments.runs}  {line(result)}", flush=True)
            yield result


def one_run(bench: Bench, arguments: argparse.Namespace) -> Iterator[Result]:
    """Every tool once, then the growth, the reading of pages, the odd shapes, and children."""
    for name in arguments.tools:
        yield from bench.measure(TOOLS[name])
    for rows in arguments.rows:
        yield bench.measure_growth(rows)
    if arguments.rows:
        yield from bench.measure_reading()
        yield from bench.measure_counted()
    for name in arguments.shapes:
        yield bench.measure_shape(name)
    for name in arguments.families:
        yield from bench.measure_children(name)


def introduction(bench: Bench) -> str:
    """What is loaded."""
    rows, pages, size_bytes = (bench.served[name] for name in ("rows", "pages", "size_bytes"))
    return f"{rows:,} flights on {pages} pages, {size_bytes / 1e6:.1f} MB of JSON."


def line(result: Result) -> str:
    """One measurement in one line."""
    return (
        f"{result.case:<27}{result.tool:<8}{result.rows:>11,} rows{result.seconds:>9.2f} s"
        f"{result.rows_per_second:>10,} rows/s   peak {result.peak_rss_mib:,.0f} MiB"
    )


def write(
    folder: Path,
    machine: dict[str, Any],
    results: list[Result],
    more: list[report.Table],
    others: Mapping[str, Sequence[Any]],
) -> None:
    """Write both files; what is not the complete benchmark stays out of docs/."""
    folder.mkdir(exist_ok=True)
    found: dict[str, Sequence[Any]] = {"results": results, **others}
    document = {"machine": machine} | {
        name: [asdict(each) for each in measured] for name, measured in found.items()
    }
    text = json.dumps(document, indent=2, ensure_ascii=False)
    (folder / "benchmark.json").write_text(f"{text}\n", encoding="utf-8")
    page = report.page(machine, results, flights.KEY, more)
    (folder / "benchmark.md").write_text(page, encoding="utf-8")
    print(f"\nWritten to {folder.name}/benchmark.md and {folder.name}/benchmark.json.")


def stop(number: int, frame: FrameType | None) -> None:
    """End as by an exception, so that everything that was started ends too."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
