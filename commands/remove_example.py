"""`make remove-example`: removes the example from a clone, so that its owner starts with nothing.

What the pipeline needs stays: the models of the ledger, the macros, and the tests of the engine.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from commands.new_source import deployment
from flows.errors import ConfigurationError, EltError

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("northwind", "open_meteo")
DBT = Path("dbt_project")
RECORDED = Path("tests", "sources")
# Files, and folders of nothing else but what the owner has added.
PARTS = (
    *(Path("flows", "sources", f"{name}.py") for name in SOURCES),
    *(DBT / "models" / "staging" / name for name in SOURCES),
    DBT / "models" / "intermediate" / "_intermediate__models.yml",
    DBT / "models" / "intermediate" / "_intermediate__unit_tests.yml",
    DBT / "models" / "intermediate" / "int_order_lines__priced.sql",
    DBT / "models" / "marts" / "sales",
    DBT / "models" / "marts" / "weather",
    DBT / "snapshots" / "_northwind__snapshots.yml",
    DBT / "tests" / "fct_daily_weather_has_every_raw_row.sql",
    DBT / "tests" / "fct_order_lines_has_the_raw_revenue.sql",
    DBT / "tests" / "revenue_is_gross_less_discount.sql",
    DBT / "tests" / "rpt_sales_vs_weather_has_every_london_order.sql",
    DBT / "tests" / "sales_marts_have_every_raw_row.sql",
    Path("deployments", "local", "sample_api"),
    Path("tests", "example"),
    *(RECORDED / name for name in SOURCES),
)
# The files in those folders. A folder of recorded answers holds nothing else.
FILES = """
    __init__.py __main__.py _northwind__models.yml _northwind__sources.yml
    _northwind__unit_tests.yml _open_meteo__models.yml _open_meteo__sources.yml
    _sales__exposures.yml _sales__models.yml _sales__unit_tests.yml _weather__models.yml
    _weather__unit_tests.yml app.py dim_customers.sql dim_products.sql fct_daily_weather.sql
    fct_order_lines.sql northwind.py odata.py open_meteo.py report.sql
    rpt_sales_vs_weather.sql stg_northwind__categories.sql stg_northwind__customers.sql
    stg_northwind__employees.sql stg_northwind__order_details.sql stg_northwind__orders.sql
    stg_northwind__products.sql stg_northwind__shippers.sql stg_northwind__suppliers.sql
    stg_open_meteo__daily_weather.sql test_example_sources.py test_first_run.py
    test_incremental.py test_recordings.py test_remove_example.py test_sample_api.py
"""
READS = re.compile(r"""\b(?:ref|source)\(\s*['"](\w+)['"]""")
NEXT = """
README.md and the examples in docs/ still speak of it: they are yours to change.
What it loaded stays in the databases; `make deploy` takes its deployments from the server.

Next:
  git add -A && git commit -m "Remove the example"
  make new-source NAME=shop URL=https://api.example.com/v2/orders"""


def main() -> int:
    """Remove all of it, or print the reason and remove nothing."""
    parser = argparse.ArgumentParser(prog="make remove-example", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository to change")
    root = parser.parse_args().root
    try:
        removed = remove(root)
    except EltError as error:
        print(f"FAILED: {error}")
        return 1
    print("Removed:\n" + "\n".join(f"  {each}" for each in removed) + f"\n{NEXT}")
    return 0


def remove(root: Path) -> list[str]:
    """Remove the example; returns what it removed.

    Raises:
        ConfigurationError: when there is none, something is not committed, the owner has added a
            file to a folder of it, or the owner's models read those of the example.
    """
    present = [part for part in PARTS if (root / part).exists()]
    if not present:
        raise ConfigurationError("There is no example here any more. Next: make new-source")
    _check_committed(root)
    _check_own(root, present)
    _check_unused(root, present)
    file = root / deployment.PATH
    before = file.read_text(encoding="utf-8")
    after = deployment.without_deployments(before, SOURCES)
    for part in present:
        if (root / part).is_dir():
            shutil.rmtree(root / part)
        else:
            (root / part).unlink()
    _remove_empty(root, present)
    file.write_text(after, encoding="utf-8")
    names = [str(part) for part in present]
    return names if after == before else [*names, f"its deployments in {deployment.PATH}"]


def _check_committed(root: Path) -> None:
    if changes := _git(root, "status", "--porcelain"):
        raise ConfigurationError(
            f"Commit these changes first, so that git can bring anything back:\n{changes}"
        )


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigurationError(f"git could not say what is committed: {done.stderr.strip()}")
    return done.stdout


def _check_own(root: Path, present: Sequence[Path]) -> None:
    """Refuse to remove what the owner has put into a folder of the example."""
    folders = [str(part) for part in present if (root / part).is_dir()]
    committed = _git(root, "ls-files", "-z", "--", *folders).split("\0") if folders else []
    own = [
        name
        for name in filter(None, committed)
        if Path(name).name not in FILES.split() and not Path(name).is_relative_to(RECORDED)
    ]
    if own:
        raise ConfigurationError(
            f"{', '.join(own)} is not of the example, but in one of its folders. Move it to "
            "another folder or delete it, commit, and run this again."
        )


def _check_unused(root: Path, present: Sequence[Path]) -> None:
    """Refuse to remove a model, or its description, that files of the owner's need."""
    gone = {file for part in present for file in _files(root / part)}
    names = {*SOURCES, *(file.stem for file in gone if file.suffix == ".sql")}
    names |= {name for file in gone for name in re.findall(r"- name: (snp_\w+)", _text(file))}
    kept = set(_files(root / DBT)) - gone
    beside = {root / part.parent for part in present if part.name.endswith("__models.yml")}
    for file in sorted(kept):
        path = file.relative_to(root)
        if used := sorted(names.intersection(READS.findall(_text(file)))):
            raise ConfigurationError(
                f"{path} reads {', '.join(used)} of the example. Change or delete it, commit, and "
                "run this again."
            )
        if file.parent in beside:
            raise ConfigurationError(
                f"{path} is in a folder whose descriptions belong to the example. Move it and its "
                "description to another folder or file, commit, and run this again."
            )


def _files(path: Path) -> Iterator[Path]:
    """The files of dbt at a path, which may be one."""
    found = path.rglob("*") if path.is_dir() else [path]
    built = ("target", "logs")
    yield from (
        file
        for file in found
        if file.suffix in (".sql", ".yml") and not set(built) & set(file.parts)
    )


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _remove_empty(root: Path, removed: Sequence[Path]) -> None:
    """Remove the folders that held nothing else; git does not keep them either."""
    for folder in {root / part.parent for part in removed}:
        if not any(folder.iterdir()):
            folder.rmdir()


if __name__ == "__main__":
    sys.exit(main())
