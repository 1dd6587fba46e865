"""Commands and benchmarks start without pytest, which puts more on the path than they have."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
IMPORT_ALL = """
import sys
from importlib import import_module
from pathlib import Path
benchmarks = [Path("tests/benchmark", f"{name}.py") for name in sys.argv[1:]]
for file in [*sorted(Path("commands").rglob("*.py")), *benchmarks]:
    import_module(".".join(file.with_suffix("").parts))
loaded = {"pytest", "conftest"} & set(sys.modules)
assert not loaded, f"{loaded} would be missing where only requirements.txt is installed"
"""
BENCHMARKS = ("__main__", "ledger", "scale", "worker_run")


def test_all_modules_of_the_commands_can_be_imported_by_themselves() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *BENCHMARKS],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
