"""Promises of the sources: how they are found, and what they request."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TREE

from flows import sources
from flows.errors import ConfigurationError


def test_an_unknown_source_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError) as failure:
        sources.find("northwnid")
    assert "'northwnid'" in str(failure.value)
    assert ", ".join(sources.names()) in str(failure.value)


def test_an_unknown_resource_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'order'\. It has: orders, order_details, "):
        sources.find("market").resource("order")


def test_the_environment_moves_a_source_to_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIMATE_BASE_URL", "http://127.0.0.1:1/v1/")
    monkeypatch.delenv("MARKET_BASE_URL", raising=False)
    assert sources.find("climate").base_url == "http://127.0.0.1:1/v1/"
    assert sources.find("market").base_url.startswith("https://market.example.com/")


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Add a module to the sources, for the test alone."""
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])

    def add(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, f"flows.sources.{name}", raising=False)

    return add


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("SOURCE = Source('a\"}')", id="no such name"),
        pytest.param("SOURCE = Source(", id="no Python"),
        pytest.param("1 / 0", id="an error of its own"),
        pytest.param("import sys; sys.exit('TOKEN is not set')", id="an exit of its own"),
        pytest.param("def sign(request): ...", id="no source"),
    ],
)
def test_a_broken_module_is_named_and_leaves_the_others_alone(
    beside: Callable[[str, str], None], caplog: pytest.LogCaptureFixture, code: str
) -> None:
    whole = sources.resource_names()
    beside("tracker", code)
    assert "tracker" in sources.names()
    assert sources.resource_names() == whole
    assert "flows/sources/tracker.py" in caplog.text
    assert {"market", "climate"} <= {source.name for source in sources.usable()}
    with pytest.raises(ConfigurationError, match=r"flows/sources/tracker\.py"):
        sources.find("tracker")


@pytest.mark.parametrize("code", ["SOURCE = Source(", "def sign(request): ..."])
def test_a_broken_module_leaves_the_other_deployments_alone(tmp_path: Path, code: str) -> None:
    """Every flow run imports flows.elt, whose form lists the sources and their resources."""
    for folder in ("flows", "blocks"):
        shutil.copytree(TREE / folder, tmp_path / folder)
    (tmp_path / "flows" / "sources" / "tracker.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-c", "from flows import elt, sources; print(*sources.names())"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"market", "tracker"} <= set(done.stdout.split())
    assert "The source tracker can't be used: flows/sources/tracker.py" in done.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *((name, "reserved") for name in ("class", "import", "lambda")),
        *((name, "reserved") for name in ("find", "names", "resource_names", "usable", "os")),
        *((name, "reserved") for name in ("elt", "dbt", "public", "staging", "transform")),
        *((name, "reserved") for name in ("pg_catalog", "pg_x", "information_schema")),
        *((name, "single underscores") for name in ("crm__audit", "shop__v2", "shop_", "_shop")),
        *((name, "lower case") for name in ("Shop", "größe", "1shop", "a-b", "", "shop\n")),
        ("a" * 60, "at most 59"),
    ],
)
def test_a_name_that_means_something_else_is_refused(name: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s){why}.*Choose another NAME"):
        sources.check_name(name)


@pytest.mark.parametrize("name", ["names", "shop__audit"])
def test_a_module_with_such_a_name_is_refused_and_replaces_nothing(
    beside: Callable[[str, str], None], name: str
) -> None:
    beside(name, f"from flows.source import Source\nSOURCE = Source({name!r}, 'http://a', ())")
    with pytest.raises(ConfigurationError, match="Choose another NAME"):
        sources.find(name)
    assert name in sources.names()
