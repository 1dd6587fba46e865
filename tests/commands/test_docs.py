"""`make docs` as a person runs it, on a data folder of the test's own."""

import gzip
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from psycopg2.extensions import connection as Connection
from sqlalchemy.engine import URL
from test_run_local import Laptop

from blocks.warehouse import TRANSFORMER_URL_VARIABLE
from deployments.local.postgres import libpq
from flows.dbt_build import history

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/")


@pytest.mark.long
def test_it_serves_the_models_on_loopback_until_ctrl_c(tmp_path: Path) -> None:
    laptop = Laptop(tmp_path / "local")
    with laptop.start("docs") as process:
        assert process.stdout is not None
        url = next(found for line in process.stdout if (found := ADDRESS.search(line))).group()
        page = requests.get(url, timeout=10)
        manifest = requests.get(f"{url}manifest.json", timeout=10).json()
        assert "<title>dbt Docs</title>" in page.text
        assert "model.warehouse.rpt_sales_vs_weather" in manifest["nodes"]
        assert requests.get(f"{url}catalog.json", timeout=10).ok
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    assert "Traceback" not in printed
    assert laptop.left_running() == []


@pytest.mark.long
def test_it_serves_a_build_s_docs_and_names_a_build_without_any(
    tmp_path: Path, database: URL, connection: Connection
) -> None:
    with connection, connection.cursor() as cursor:
        history.prepare(cursor)
        build_id = history.begin(cursor, None, "A test.", "code", {})
        history.keep_docs(cursor, build_id, gzip.compress(b"as it was then"))
    environment = {**os.environ, TRANSFORMER_URL_VARIABLE: libpq(database)}
    command = [sys.executable, "-m", "commands.docs", "--home", str(tmp_path), "--build"]
    none = subprocess.run([*command, "99"], env=environment, capture_output=True, text=True)
    assert none.returncode == 1
    assert "Build 99 has no documentation" in none.stdout
    kept = [*command, str(build_id)]
    with subprocess.Popen(kept, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = next(found for line in process.stdout if (found := ADDRESS.search(line))).group()
            assert requests.get(url, timeout=10).text == "as it was then"
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0
