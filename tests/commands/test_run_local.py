"""`make run-local` and `make psql` as a person runs them, on a data folder of the test's own."""

import argparse
import os
import pty
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import psutil
import pytest

from commands.run_local import parameters_of
from flows.errors import ConfigurationError

REPOSITORY = Path(__file__).resolve().parents[2]
MARK = "ELT_TEST_RUN"
NORTHWIND_ROWS = 3229


@dataclass(frozen=True)
class Laptop:
    """A data folder, and a mark that identifies the processes started on it."""

    home: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(
        self, module: str, *arguments: str, stdout: int = subprocess.PIPE
    ) -> "subprocess.Popen[str]":
        """Start the module of a Make target with a plain environment."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "DBT_"))}
        command = [sys.executable, "-m", f"commands.{module}", f"--home={self.home}"]
        return subprocess.Popen(
            [*command, *arguments],
            cwd=REPOSITORY,
            env={**plain, MARK: self.mark},
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, module: str, *arguments: str) -> tuple[int, str]:
        """Run a module to its end, and return its exit code and output."""
        with self.start(module, *arguments) as process:
            printed, _ = process.communicate(timeout=300)
        return process.returncode, printed

    def left_running(self) -> list[str]:
        """Command lines of processes started on this laptop that still run."""
        return [
            " ".join(process.cmdline()) for process in psutil.process_iter() if self._ours(process)
        ]

    def _ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """One for the whole module: each run finds what the previous one left."""
    yield Laptop(tmp_path_factory.mktemp("laptop") / "local")


def days_of_weather() -> int:
    """The number of days in the sample API's weather: one more every midnight UTC."""
    return (datetime.now(UTC).date() - date(1996, 1, 1)).days


def test_the_first_run_loads_builds_and_reports(laptop: Laptop) -> None:
    days_before = days_of_weather()
    code, printed = laptop.run("run_local")
    assert code == 0, printed
    assert "its data is GENERATED, not real" in printed
    assert any(
        f"In all: {rows:,} extracted, {rows:,} inserted, 0 updated" in printed
        for rows in (NORTHWIND_ROWS + days_before, NORTHWIND_ROWS + days_of_weather())
    )
    assert "0 warned, 0 failed, 0 skipped" in printed
    assert "1996-07" in printed
    assert all(f"{phase} " in printed for phase in ("install", "services", "load", "dbt"))
    assert printed.count("\n") <= 40, "fits a screen"
    assert laptop.left_running() == []


@pytest.mark.long
def test_the_second_run_says_that_nothing_is_new(laptop: Laptop) -> None:
    code, printed = laptop.run("run_local")
    assert code == 0, printed
    assert "Nothing new: 0 inserted, 0 updated." in printed


REPORT = """
select count(*), bool_and(report.revenue = raw.revenue) from marts.rpt_sales_vs_weather as report
full join (
    select date_trunc('month', order_date::date)::date as sales_month,
        round(sum(unit_price * quantity * (1 - discount)), 2) as revenue
    from raw_northwind.orders join raw_northwind.order_details using (order_id)
    where ship_city = 'London' group by 1
) as raw using (sales_month)
"""


def test_the_report_is_what_the_raw_rows_say(laptop: Laptop) -> None:
    code, printed = laptop.run("psql", "--sql", REPORT)
    assert code == 0, printed
    months, is_equal = printed.strip().split("|")
    assert int(months) >= 12
    assert is_equal == "t"


def test_a_reset_empties_a_table(laptop: Laptop) -> None:
    count = "select count(*) from raw_northwind.shippers"
    assert laptop.run("psql", "--sql", count)[1] != "0\n"
    chosen = ("--source=northwind", "--resource=shippers")
    code, printed = laptop.run("reset", *chosen)
    assert (code, printed) == (
        0,
        "raw_northwind.shippers is empty; its next load reads everything.\n",
    )
    assert laptop.run("psql", "--sql", count) == (0, "0\n")
    code, printed = laptop.run("reset", "--source=northwind", "--resource=no_such")
    assert code == 1
    assert "has no resource 'no_such'. It has: " in printed


def test_psql_prints_bare_rows(laptop: Laptop) -> None:
    statement = "select source, count(*) from elt.loads group by 1 order by 1"
    assert laptop.run("psql", "--sql", statement) == (0, "northwind|16\nopen_meteo|2\n")
    code, printed = laptop.run("psql", "--sql", "select nothing")
    assert code != 0
    assert 'column "nothing" does not exist' in printed
    assert laptop.left_running() == []


@pytest.mark.long
def test_a_run_that_fails_says_so_and_exits_with_an_error(laptop: Laptop) -> None:
    bad_line = "insert into raw_northwind.order_details values (1, 1, 1, -5, 0, now(), 1)"
    assert laptop.run("psql", "--sql", bad_line)[0] == 0
    code, printed = laptop.run("run_local")
    assert code == 1
    assert "FAILED: dbt: dbt nodes:" in printed
    assert "accepted_range_fct_order_lines_quantity" in printed
    assert f"tracebacks: {laptop.home / 'run.log'}" in printed
    assert "Traceback" not in printed
    assert laptop.left_running() == []


def test_a_run_that_is_stopped_leaves_no_process(laptop: Laptop) -> None:
    with laptop.start("run_local") as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("Loading"))
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 128 + 15
    assert laptop.left_running() == []


def test_psql_names_the_columns_in_a_terminal(laptop: Laptop) -> None:
    terminal, end = pty.openpty()
    with (
        os.fdopen(terminal, "rb", buffering=0) as screen,
        laptop.start("psql", "--sql", "select 7 as lucky", stdout=end) as process,
    ):
        os.close(end)
        printed = screen.read(4096).decode()
        assert process.wait(60) == 0
    assert "lucky" in printed


@pytest.mark.long
def test_one_source_is_loaded_and_its_models_are_built(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path / "local")
    code, printed = laptop.run("run_local", "--source", "open_meteo")
    assert code == 0, printed
    assert printed.startswith("Loading open_meteo.")
    assert "fct_daily_weather" in printed
    code, sources = laptop.run("psql", "--sql", "select distinct source from elt.loads")
    assert (code, sources) == (0, "open_meteo\n")


@pytest.mark.long
def test_some_records_of_some_resources_are_loaded_and_then_all(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path / "local")
    chosen = ("--source=northwind", "--resources=orders,shippers")
    code, printed = laptop.run("run_local", *chosen, "--limit=5")
    assert code == 0, printed
    count = "select (select count(*) from raw_northwind.orders)"
    assert 5 <= int(laptop.run("psql", "--sql", count)[1]) < 830
    code, printed = laptop.run("run_local", *chosen)
    assert code == 0, printed
    assert laptop.run("psql", "--sql", count) == (0, "830\n")
    code, sources = laptop.run(
        "psql", "--sql", "select distinct resource from elt.loads order by 1"
    )
    assert sources == "orders\nshippers\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "open_meteor"}, "'open_meteor'.*northwind, open_meteo"),
        (
            {"source": "northwind", "resources": "orders,line"},
            "no resource 'line'. It has: .*orders",
        ),
        ({"resources": "orders"}, "name it with SOURCE="),
        ({"limit": "ten"}, "LIMIT=ten must be a number of records"),
        ({"limit": "0"}, "LIMIT=0 must be a number of records"),
        ({"since": "2026-02-30"}, "SINCE=2026-02-30 must be a day like"),
    ],
)
def test_what_can_not_be_run_is_refused_before_anything_is_started(
    given: dict[str, str], said: str
) -> None:
    plain = {"source": "", "resources": "", "limit": "", "since": "", "replay": False}
    with pytest.raises(ConfigurationError, match=said):
        parameters_of(argparse.Namespace(**(plain | given)))


def test_the_parameters_of_the_flow_are_those_that_are_given() -> None:
    words = {"source": "northwind", "resources": "orders, shippers", "limit": "5"}
    given = argparse.Namespace(**words, since="2026-01-31", replay=False)
    assert parameters_of(given) == {
        "resources": ["orders", "shippers"],
        "limit": 5,
        "since": "2026-01-31",
    }
