"""`make docs` as a person runs it, on a data folder of the test's own."""

import re
import signal
from pathlib import Path

import requests
from test_run_local import Laptop

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/")


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
