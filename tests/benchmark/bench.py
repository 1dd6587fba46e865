"""The measurements, each in a process and on a database of its own, and the check of each table."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg2
from psycopg2 import sql
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from deployments.local.processes import child
from tests.benchmark import flights, sums
from tests.benchmark.children import FAMILIES, LINES_A_PARENT
from tests.benchmark.shapes import SHAPES
from tests.benchmark.tools import (
    AGAIN,
    CHILD_LOADERS,
    COUNTED,
    COUNTED_LOADERS,
    COUNTED_PAGES,
    FIRST_LOAD,
    GROWTH,
    MERGE_CHANGED,
    MERGE_UNCHANGED,
    PATHS,
    READERS,
    READING,
    READING_PAGES,
    SHAPE,
    SHAPE_LOADER,
    TOOLS,
    Task,
    Tool,
)

REFERENCE = "reference"


class MeasurementError(Exception):
    """A tool did not load the pages; the message ends with what it said."""


@dataclass(frozen=True)
class Result:
    """One measurement: wall clock seconds and the peak memory of the process that loaded.

    Attributes:
        backend_rss_mib: the peak of its Postgres backend, where that was looked at.
    """

    case: str
    tool: str
    rows: int
    seconds: float
    rows_per_second: float
    peak_rss_mib: float
    backend_rss_mib: float | None = None


@dataclass(frozen=True)
class Bench:
    """Running services, the CSV file for plain COPY, and what every table has to hold in the end.

    Attributes:
        folder: for what the measurements leave behind; temporary.
        served: how many rows, pages and bytes the API has.
        expected: what the tables hold after each case.
    """

    folder: Path
    server: URL
    api: str
    served: dict[str, int]
    expected: dict[str, sums.Sums]

    def measure(self, tool: Tool) -> Iterator[Result]:
        """Its first load, then each merge on a copy of the database that the first load left."""
        loaded = f"{tool.name}_{FIRST_LOAD}"
        with self._database(loaded), self._state(loaded):
            first = self._case(tool, FIRST_LOAD, loaded)
            if tool.is_measured_first:
                yield first
            if tool.merges:
                self._execute("vacuum (analyze)", database=loaded)
            for case in tool.merge_cases:
                name = f"{tool.name}_{case}"
                with self._database(name, template=loaded), self._state(name, template=loaded):
                    yield self._case(tool, case, name)

    def measure_growth(self, rows: int) -> Result:
        """This project's first load of generated rows."""
        tool, name = TOOLS["this"], f"{GROWTH}_{rows}"
        with self._database(name), self._state(name):
            path = f"generated/{rows // flights.ROWS_A_PAGE}/1"
            result = self._run(tool, GROWTH, path, name, rows)
            sums.check_generated(self._address(name), tool.table, rows)
        return result

    def measure_reading(self) -> Iterator[Result]:
        """Pages read and thrown away, by this project and by requests alone."""
        rows = READING_PAGES * flights.ROWS_A_PAGE
        for tool in READERS.values():
            name = f"{READING}_{tool.name}"
            with self._state(name):
                yield self._run(tool, READING, f"generated/{READING_PAGES}/1", name, rows)

    def measure_shape(self, name: str) -> Result:
        """A first load of one page of an odd shape by this project; it checks the rows itself."""
        case = f"{SHAPE}_{name}"
        with self._database(case), self._state(case):
            return self._run(SHAPE_LOADER, case, f"shape/{name}", case, SHAPES[name].rows)

    def measure_children(self, case: str) -> Iterator[Result]:
        """Parents and a page of children each, by every tool; by this project twice."""
        family = FAMILIES[case]
        rows = family.parents * LINES_A_PARENT
        for tool in CHILD_LOADERS.values():
            name = f"{case}_{tool.name}"
            with self._database(name), self._state(name):
                yield self._run(tool, case, family.path, name, rows)
                self._check_count(name, tool, rows)
                if tool.name == "this":
                    yield self._run(tool, f"{case}_{AGAIN}", family.path, name, rows)

    def measure_counted(self) -> Iterator[Result]:
        """Pages that can be fetched ahead, by this project: side by side and one by one."""
        rows = COUNTED_PAGES * flights.ROWS_A_PAGE
        for tool in COUNTED_LOADERS.values():
            name = f"{COUNTED}_{tool.name}"
            with self._database(name), self._state(name):
                yield self._run(tool, COUNTED, "counted/rows", name, rows)
                self._check_count(name, tool, rows)

    def _check_count(self, name: str, tool: Tool, rows: int) -> None:
        query = sql.SQL("select count(*) from {}").format(sql.Identifier(*tool.table))
        with closing(psycopg2.connect(self._address(name))) as opened, opened.cursor() as cursor:
            cursor.execute(query)
            [(count,)] = cursor.fetchall()
        if count != rows:
            raise MeasurementError(f"{tool.title} stored {count} of {rows} rows")

    def refer(self) -> None:
        """Fill in what is expected, by plain COPY, unmeasured; a change is made by SQL."""
        tool = TOOLS["copy"]
        with self._database(REFERENCE), self._state(REFERENCE):
            self._run(tool, FIRST_LOAD, PATHS[FIRST_LOAD], REFERENCE, self.served["rows"])
            for case in (FIRST_LOAD, MERGE_UNCHANGED):
                self.expected[case] = sums.sums_of(self._address(REFERENCE), tool.table)
            lengthen = "update {}.{} set {} = {} + 1"
            names = [*tool.table, flights.CHANGED, flights.CHANGED]
            self._execute(lengthen, *names, database=REFERENCE)
            self.expected[MERGE_CHANGED] = sums.sums_of(self._address(REFERENCE), tool.table)

    def settings(self, names: list[str]) -> dict[str, str]:
        """The server's version and settings as it tells them."""
        select = "select name, current_setting(name) from unnest(%s) as name"
        with closing(psycopg2.connect(libpq(self.server))) as opened, opened.cursor() as cursor:
            cursor.execute(select, [names])
            return dict(cursor.fetchall())

    def _case(self, tool: Tool, case: str, name: str) -> Result:
        result = self._run(tool, case, PATHS[case], name, self.served["rows"])
        found = sums.sums_of(self._address(name), tool.table)
        sums.compare(found, self.expected[case], f"{case} by {tool.name}")
        return result

    def _run(self, tool: Tool, case: str, path: str, name: str, rows: int) -> Result:
        """Run the measurement's process; the server has nothing left to write when it starts."""
        self._execute("checkpoint")
        csv, state = csv_file(self.folder, path), self.folder / name
        task = Task(
            tool.name, tool.module, self.api, path, self._address(name), str(csv), str(state)
        )
        task_file, answer_file = state / "task.json", state / "answer.json"
        task_file.write_text(json.dumps(asdict(task)))
        command = [sys.executable, "-m", "tests.benchmark.measurement"]
        log = state / "measurement.log"
        with child([*command, str(task_file), str(answer_file)], log, quiet(state)) as process:
            if process.wait() != 0:
                raise MeasurementError(f"{case} by {tool.name} failed:\n{log.read_text()[-3000:]}")
        answer = json.loads(answer_file.read_text())
        seconds, peak = answer["seconds"], answer["peak_rss_mib"]
        rate = round(rows / seconds)
        backend = answer.get("backend_rss_mib")
        return Result(case, tool.name, rows, round(seconds, 3), rate, round(peak, 1), backend)

    @contextmanager
    def _database(self, name: str, template: str = "template1") -> Iterator[None]:
        self._execute("create database {} template {}", name, template)
        try:
            yield
        finally:
            self._execute("drop database {} with (force)", name)

    @contextmanager
    def _state(self, name: str, template: str | None = None) -> Iterator[None]:
        folder = self.folder / name
        if template is None:
            folder.mkdir()
        else:
            shutil.copytree(self.folder / template, folder)
        try:
            yield
        finally:
            shutil.rmtree(folder)

    def _execute(self, statement: str, *names: str, database: str = "postgres") -> None:
        with closing(psycopg2.connect(self._address(database))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _address(self, name: str) -> str:
        return libpq(self.server.set(database=name))


def csv_file(folder: Path, path: str) -> Path:
    """The CSV file with the rows that the API has at a path."""
    return folder / ("changed.csv" if path == PATHS[MERGE_CHANGED] else "flights.csv")


def quiet(state: Path) -> dict[str, str]:
    """Keep dlt's files in the measurement's folder, and nobody informed about who runs this."""
    return {
        "DLT_DATA_DIR": str(state / "dlt"),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "DO_NOT_TRACK": "1",
    }
