"""What each source here must have, whoever wrote it: see the remedy in each message."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands.new_source.deployment import FLOW
from flows import sources
from flows.errors import ConfigurationError
from tests.owner.checkout import run

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "flows" / "sources"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())[
    "deployments"
]

every_source = pytest.mark.parametrize("name", NAMES)


@every_source
def test_it_can_be_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module has a SOURCE of that name, whose declaration is accepted."""
    monkeypatch.setattr(sources, "__path__", [str(FOLDER)])
    monkeypatch.delitem(sys.modules, f"flows.sources.{name}", raising=False)
    try:
        sources.find(name)
    except ConfigurationError as error:
        pytest.fail(str(error))
    finally:
        sys.modules.pop(f"flows.sources.{name}", None)


@every_source
def test_it_has_a_deployment_that_retries(name: str) -> None:
    """One without is never loaded on the server; one without retries fails at each outage."""
    own = [
        entry
        for entry in DEPLOYMENTS
        if entry["entrypoint"] == FLOW and entry["parameters"]["source"] == name
    ]
    assert own, (
        f"No deployment loads {name}: add one to prefect.yaml, as `make new-source` prints it, "
        f"or delete flows/sources/{name}.py."
    )
    for entry in own:
        assert entry["parameters"].get("retry"), f"{entry['name']}: add `retry: *retry`."


def test_every_deployment_loads_a_source_that_is_there() -> None:
    for entry in DEPLOYMENTS:
        if entry["entrypoint"] == FLOW:
            source = entry["parameters"]["source"]
            assert source in NAMES, (
                f"prefect.yaml deploys {entry['name']}, but there is no flows/sources/{source}.py: "
                "delete the deployment, or write the source."
            )


def test_every_scheduled_deployment_is_watched() -> None:
    for entry in DEPLOYMENTS:
        if entry.get("schedules"):
            assert "watched" in entry["tags"], (
                f"{entry['name']}: nobody would hear of its failures. Write tags: [elt, watched]."
            )
    [notify] = [entry for entry in DEPLOYMENTS if entry["name"] == "notify"]
    assert "watched" not in notify["tags"], "or it would tell of itself, without end"


READ_FILES = """
from pathlib import Path
from deployments.check import prefect_yaml
found = prefect_yaml.read(Path.cwd())
print(bool(found.deployments), bool(found.automations))
"""


def test_prefect_yaml_and_the_automations_can_be_deployed() -> None:
    """In a process of its own, which knows the sources that are here."""
    assert run(REPOSITORY, "python", "-c", READ_FILES) == "True True\n"
