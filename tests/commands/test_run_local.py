"""`make run-local` and `make psql` as a person runs them, on a data folder of the test's own."""

import argparse
import os
import pty
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from conftest import TREE

from commands.run_local import parameters_of
from flows.errors import ConfigurationError
from tests.http_servers import serving
from tests.project.api import answer
from tests.project.tree import SOURCES

MARK = "ELT_TEST_RUN"


@dataclass(frozen=True)
class Laptop:
    """A data folder, and a mark that identifies the processes started on it.

    Attributes:
        tree: the repository that its commands are of.
    """

    home: Path
    tree: Path = TREE
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(
        self, module: str, *arguments: str, stdout: int = subprocess.PIPE
    ) -> "subprocess.Popen[str]":
        """Start the module of a Make target with a plain environment."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "DBT_"))}
        command = [sys.executable, "-m", f"commands.{module}", f"--home={self.home}"]
        return subprocess.Popen(
            [*command, *arguments],
            cwd=self.tree,
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


@pytest.fixture(scope="module", autouse=True)
def api() -> Iterator[None]:
    """The API of both sources."""
    with serving() as serve, pytest.MonkeyPatch.context() as patch:
        url = serve(answer).url
        for source in ("CLIMATE", "MARKET"):
            patch.setenv(f"{source}_BASE_URL", url)
        yield


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """One for the whole module: each run finds what the previous one left."""
    return Laptop(tmp_path_factory.mktemp("laptop") / "local")


def test_the_first_run_loads_and_builds(laptop: Laptop) -> None:
    code, printed = laptop.run("run_local")
    assert code == 0, printed
    assert "Loading climate, market from their APIs." in printed
    assert re.search(r"market\.order_details +2,182 +2,182 +0 +0 +0 ", printed)
    assert "0 warned, 0 failed, 0 skipped" in printed
    assert all(f"{phase} " in printed for phase in ("install", "services", "load", "dbt"))
    assert printed.count("\n") <= 40, "fits a screen"
    assert laptop.left_running() == []


@pytest.mark.long
def test_the_second_run_says_that_nothing_is_new(laptop: Laptop) -> None:
    code, printed = laptop.run("run_local")
    assert code == 0, printed
    assert "Nothing new: 0 inserted, 0 updated." in printed


def test_without_a_source_it_says_how_to_write_one(tmp_path: Path) -> None:
    shutil.copytree(TREE, tmp_path / "tree")
    for name in SOURCES:
        (tmp_path / "tree" / "flows" / "sources" / f"{name}.py").unlink()
    code, printed = Laptop(tmp_path / "local", tmp_path / "tree").run("run_local")
    assert code == 1
    assert "There is no source yet." in printed
    assert "make new-source NAME=shop URL=" in printed


def test_a_reset_empties_a_table(laptop: Laptop) -> None:
    count = "select count(*) from raw_market.shippers"
    assert laptop.run("psql", "--sql", count)[1] != "0\n"
    chosen = ("--source=market", "--resource=shippers")
    code, printed = laptop.run("reset", *chosen)
    assert (code, printed) == (
        0,
        "raw_market.shippers is empty; its next load reads everything.\n",
    )
    assert laptop.run("psql", "--sql", count) == (0, "0\n")
    code, printed = laptop.run("reset", "--source=market", "--resource=no_such")
    assert code == 1
    assert "has no resource 'no_such'. It has: " in printed


def test_psql_prints_bare_rows(laptop: Laptop) -> None:
    statement = "select source, 1 from elt.loads group by 1 order by 1"
    assert laptop.run("psql", "--sql", statement) == (0, "climate|1\nmarket|1\n")
    code, printed = laptop.run("psql", "--sql", "select nothing")
    assert code != 0
    assert 'column "nothing" does not exist' in printed
    assert laptop.left_running() == []


@pytest.mark.long
def test_a_run_that_fails_says_so_and_exits_with_an_error(laptop: Laptop) -> None:
    bad_line = (
        "insert into raw_market.order_details (order_id, product_id, quantity, _loaded_at,"
        " _load_id) values (1, 1, -5, now(), 1)"
    )
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
    code, printed = laptop.run("run_local", "--source", "climate")
    assert code == 0, printed
    assert printed.startswith("Loading climate.")
    assert "fct_daily_weather" in printed
    code, sources = laptop.run("psql", "--sql", "select distinct source from elt.loads")
    assert (code, sources) == (0, "climate\n")


@pytest.mark.long
def test_some_records_of_some_resources_are_loaded_and_then_all(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path / "local")
    chosen = ("--source=market", "--resources=orders,shippers")
    code, printed = laptop.run("run_local", *chosen, "--limit=5")
    assert code == 0, printed
    count = "select (select count(*) from raw_market.orders)"
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
        ({"source": "climater"}, "'climater'.*climate, market"),
        (
            {"source": "market", "resources": "orders,line"},
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
    words = {"source": "market", "resources": "orders, shippers", "limit": "5"}
    given = argparse.Namespace(**words, since="2026-01-31", replay=False)
    assert parameters_of(given) == {
        "resources": ["orders", "shippers"],
        "limit": 5,
        "since": "2026-01-31",
    }


def test_a_source_that_is_not_there_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    code, printed = Laptop(tmp_path / "local").run("run_local", "--source", "climater")
    assert code == 1
    assert "'climater'" in printed
    assert "climate, market" in printed
    assert "Starting" not in printed
