"""`make deploy` finds the server of a `make up`, and only while that runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.deploy import use_local_server
from deployments.local.running_server import announce, find, is_same, withdraw

SETTINGS = {"PREFECT_API_URL": "http://127.0.0.1:1/api", "WAREHOUSE_URL": "postgresql://x"}


def test_the_settings_are_found_while_it_runs_by_this_user_only(tmp_path: Path) -> None:
    announce(tmp_path, {})
    announce(tmp_path, SETTINGS)
    assert find(tmp_path) == SETTINGS
    [file] = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    withdraw(tmp_path)
    withdraw(tmp_path)
    assert find(tmp_path) == {}


def test_what_a_killed_one_left_is_not_found(tmp_path: Path) -> None:
    """Even if its process id is that of another program by now."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for process in (ended.pid, os.getpid()):
        left = {"process": process, "command": ["make-up"], "settings": SETTINGS}
        (tmp_path / "up.json").write_text(json.dumps(left))
        assert find(tmp_path) == {}
    announce(tmp_path, SETTINGS)
    assert find(tmp_path) == SETTINGS


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:1/api/", True),
        ("http://[::1]:1/api", True),
        ("http://127.0.0.1:2/api", False),
        ("https://api.prefect.cloud:1/api", False),
    ],
)
def test_one_server_is_known_by_all_its_addresses(url: str, expected: bool) -> None:
    """Else a deploy would save the logins of .env on it, which may be those of production."""
    assert is_same(url, SETTINGS["PREFECT_API_URL"]) == expected


def test_a_deploy_to_the_address_of_a_local_server_takes_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(tmp_path, SETTINGS)
    begun: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *given: begun.append(given[2]))
    for url in ("https://api.prefect.cloud/api", "http://localhost:1/api/"):
        with temporary_settings({PREFECT_API_URL: url}):
            use_local_server(tmp_path)
    assert [each["WAREHOUSE_URL"] for each in begun] == ["postgresql://x"]
