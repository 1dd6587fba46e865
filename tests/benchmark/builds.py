"""What a build by `transform` takes beside a bare `dbt build` of the same nodes.

`python -m tests.benchmark.builds <nodes> <runs> <answer>` measures, in the environment of a stack.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from tests.benchmark.report import Table, ratio, spread
from tests.benchmark.services import in_stack
from tests.http_servers import serving
from tests.project.api import answer
from tests.project.tree import PROJECT, SOURCES

ROOT = Path(__file__).resolve().parents[2]
NODES = [5, 200]
HEAD = ("nodes of a dbt project", "built by", "seconds", "× dbt alone")
TITLES = {"this": "this project", "dbt": "dbt build alone"}
PARTS = ("profiles.yml", "macros/generate_schema_name.sql")
SETTINGS = "{name: generated, profile: warehouse, models: {+materialized: table}}\n"
FIRST, MADE_FROM = "select 1 as id\n", "select id from {{ ref('%s') }}\n"
TESTED = "models: [{name: %s, columns: [{name: id, data_tests: [not_null]}]}]\n"


@dataclass(frozen=True)
class Build:
    """One build: wall clock seconds."""

    nodes: int
    tool: str
    seconds: float


def measure(nodes: int, runs: int) -> list[Build]:
    """Start a stack and build in a process with its environment, each tool in turn."""
    return [Build(**build) for build in in_stack(__name__, nodes, runs)]


def table(builds: list[Build]) -> Table:
    """Medians, and as multiples of dbt's."""
    rows = []
    for nodes in dict.fromkeys(build.nodes for build in builds):
        seconds = {
            tool: [b.seconds for b in builds if (b.nodes, b.tool) == (nodes, tool)]
            for tool in TITLES
        }
        alone = median(seconds["dbt"])
        rows += [
            (f"{nodes}", title, spread(seconds[tool]), ratio(median(seconds[tool]), alone))
            for tool, title in TITLES.items()
        ]
    return Table(HEAD, rows, 2)


def generate(project: Path, nodes: int) -> None:
    """A project with as many tables as tests; each table but the first is made from another."""
    for part in PARTS:
        (project / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "dbt_project" / part, project / part)
    (project / "dbt_project.yml").write_text(SETTINGS)
    (project / "models").mkdir()
    tests = nodes // 2
    for number in range(nodes - tests):
        name = f"model_{number:03}"
        parent = f"model_{(number - 1) // 2:03}"
        rows = MADE_FROM % parent if number else FIRST
        (project / "models" / f"{name}.sql").write_text(rows)
        if number < tests:
            (project / "models" / f"{name}.yml").write_text(TESTED % name)


def measured(project: Path, nodes: int, runs: int) -> Iterator[Build]:
    """Each tool in turn, after a first build of each that is not counted.

    Runs send no heartbeats: at its end, each would wait up to a second for their thread.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from blocks import warehouse
    from flows.dbt_build import dbt_project
    from flows.transform import transform

    warehouse.save()
    _load_tables()
    environment = {
        **os.environ,
        **warehouse.load(warehouse.TRANSFORMER_BLOCK).dbt_environment(),
        "WAREHOUSE_SCHEMA_SUFFIX": "__bare",
        "DBT_TARGET_PATH": str(project / "bare"),  # each goes on with what it parsed itself
    }
    where = ["--project-dir", str(project), "--profiles-dir", str(project)]
    bare = [sys.executable, "-c", "from dbt.cli.main import cli; cli()", "build", *where]
    dbt_project.PROJECT = project
    alone = partial(subprocess.run, bare, env=environment, stdout=subprocess.DEVNULL, check=True)
    tools: dict[str, Callable[[], object]] = {"dbt": alone, "this": transform}
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        for run in range(runs + 1):
            for tool, build in tools.items():
                begun = time.perf_counter()
                build()
                if run:
                    yield Build(nodes, tool, round(time.perf_counter() - begun, 3))


def _load_tables() -> None:
    """Load the sources of the tests' project: a build looks at how each resource was loaded."""
    from flows import sources
    from flows.elt import elt

    sources.__path__ = [str(PROJECT / "sources")]
    with serving() as serve:
        url = serve(answer).url
        for name in SOURCES:
            os.environ[f"{name.upper()}_BASE_URL"] = url
            elt(source=name, transform=False)


def main() -> None:
    """Measure, and write down each build."""
    nodes, runs, answer = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        generate(project, nodes)
        builds = [asdict(build) for build in measured(project, nodes, runs)]
    answer.write_text(json.dumps(builds))


if __name__ == "__main__":
    main()
