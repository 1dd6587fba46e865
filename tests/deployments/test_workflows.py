"""The workflows name only things that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
ON = True  # YAML 1.1 reads the key `on` as a boolean


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param.read_text())


def test_there_are_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["deploy", "test", "weekly"]


def test_every_make_target_and_script_exists(text: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    commands = [step["run"].split() for step in steps(yaml.safe_load(text)) if "run" in step]
    assert commands
    for program, argument, *_ in commands:
        assert program in {"make", "bash"}
        assert argument in targets if program == "make" else (REPOSITORY / argument).exists()


def test_every_secret_and_variable_is_explained(text: str) -> None:
    page = (REPOSITORY / "docs" / "deploy.md").read_text()
    for name in re.findall(r"\b(?:secrets|vars)\.([A-Z_]+)", text):
        assert f"`{name}`" in page


def test_tokens_can_only_read(text: str) -> None:
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())


def test_each_job_has_a_limit_of_time(text: str) -> None:
    jobs = yaml.safe_load(text)["jobs"].values()
    assert all("timeout-minutes" in job or "uses" in job for job in jobs)


def test_each_action_says_the_version_of_its_commit(text: str) -> None:
    used = re.findall(r"uses: [\w-]+/.*", text)
    assert used
    assert all(re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line) for line in used)


def test_actions_are_pinned_by_commit_and_leave_no_token_behind(text: str) -> None:
    used = [step for step in steps(yaml.safe_load(text)) if "uses" in step]
    assert used
    for step in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_main_is_deployed_after_its_tests_and_not_by_a_pull_request() -> None:
    deploy = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "deploy.yml").read_text())
    assert deploy[ON]["push"] == {"branches": ["main"]}
    assert "pull_request" not in deploy[ON]
    assert deploy["jobs"]["deploy"]["needs"] == "test"
    assert deploy["jobs"]["test"]["uses"] == "./.github/workflows/test.yml"


def test_a_pull_request_builds_in_its_own_schemas_and_drops_them() -> None:
    """Only if there is a warehouse for it: a fork gets no secrets."""
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "test.yml").read_text())
    job = workflow["jobs"]["dbt"]
    assert job["if"] == "github.event_name == 'pull_request'"
    assert job["env"] == {
        "WAREHOUSE_URL": "${{ secrets.CI_WAREHOUSE_URL }}",
        "TRIAL": "pr_${{ github.event.number }}",
    }
    assert all("env.WAREHOUSE_URL != ''" in step["if"] for step in job["steps"])
    built, dropped = [step for step in job["steps"] if step.get("run") == "make dbt-diff"]
    assert "env" not in built
    assert dropped["if"].startswith("always()")
    assert dropped["env"] == {"DROP": "1"}


def test_a_pull_request_runs_the_slow_tests_of_programs() -> None:
    """All but those of three folders, whatever else an owner removes or adds."""
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "test.yml").read_text())
    _, given = workflow["jobs"]["programs"]["steps"][-1]["run"].split("make test-chaos TESTS=")
    left_out = re.findall(r"--ignore=(\S+?)[ \"]", given)
    assert left_out == ["tests/chaos", "tests/fault_matrix", "tests/load"]
    assert all((REPOSITORY / folder).is_dir() for folder in left_out)


def test_python_versions_are_ones_that_the_lock_serves() -> None:
    tested = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "test.yml").read_text())
    versions = tested["jobs"]["check"]["strategy"]["matrix"]["python"]
    assert versions[0] == "3.11"
    assert "--python-version 3.11" in (REPOSITORY / "requirements.txt").read_text()[:400]
