"""`make deploy` finds the server of a `make up`, and only while that runs."""

import json
import subprocess
import sys
from pathlib import Path

from deployments.local.running_server import announced, find

SETTINGS = {"PREFECT_API_URL": "http://127.0.0.1:1/api", "WAREHOUSE_URL": "postgresql://x"}


def test_the_settings_are_found_while_it_runs_by_this_user_only(tmp_path: Path) -> None:
    with announced(tmp_path, SETTINGS):
        assert find(tmp_path) == SETTINGS
        [file] = tmp_path.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
    assert find(tmp_path) == {}


def test_what_a_killed_one_left_is_not_found(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = {"process": ended.pid, "settings": SETTINGS}
    (tmp_path / "up.json").write_text(json.dumps(left))
    assert find(tmp_path) == {}
    with announced(tmp_path, SETTINGS):
        assert find(tmp_path) == SETTINGS
