"""Every test file in the tree is one that `make test` runs."""

import json
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
COLLECT = """
import json, pytest

class Recorder:
    def __init__(self):
        self.paths = []

    def pytest_pycollect_makemodule(self, module_path, parent):
        self.paths.append(str(module_path))
        return pytest.Module.from_parent(parent, path=module_path)

    def pytest_make_collect_report(self, collector):
        # The names of the files are enough: importing all of them takes half a minute.
        if isinstance(collector, pytest.Module):
            return pytest.CollectReport(collector.nodeid, "passed", None, [])

recorder = Recorder()
pytest.main(["--collect-only", "-q", "--noconftest", "-p", "no:cacheprovider"], [recorder])
print(json.dumps(recorder.paths))
"""


def test_every_test_file_is_collected() -> None:
    """By default pytest skips folders named `build`, `dist` and the like, and says nothing."""
    there = {str(path) for path in TESTS.rglob("test_*.py")}
    command = [sys.executable, "-c", COLLECT]
    run = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=True)
    collected = set(json.loads(run.stdout.splitlines()[-1]))
    assert there
    assert there - collected == set()
