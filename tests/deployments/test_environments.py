"""Environments beside production: a file, a server and schedules of their own."""

import os
from pathlib import Path

import pytest

from deployments.deploy import NOTHING
from deployments.env_file import env_file, read_environment
from flows.errors import ConfigurationError
from tests.deployments.project import Project

pytest_plugins = ["tests.deployments.project_fixtures"]

LOADS = """
  - name: load
    entrypoint: jobs.py:load
    tags: [TAG]
    schedules:
      - {slug: daily, cron: "0 5 * * *", timezone: Europe/London}
      - {slug: nightly, cron: "0 1 * * *", active: true}
  - {name: load-other, entrypoint: "jobs.py:load", tags: [TAG], parameters: {days: 3}}
"""
SILENT = """
automations:
  - name: "TAG {{ scheduled.name }} is silent"
    for_each_scheduled: TAG
    trigger:
      type: event
      posture: Proactive
      expect: [prefect.flow-run.Completed]
      match: {prefect.resource.id: prefect.flow-run.*}
      match_related: {prefect.resource.role: tag, prefect.resource.id: prefect.tag.nobody}
      within: 3600
    actions: [{type: do-nothing}]
"""


def test_schedules_are_off_unless_declared_active(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "staging")
    project.write(LOADS.replace("      - {slug: nightly", "      # {slug: nightly"), SILENT)
    assert project.deploy()
    [daily] = project.deployment("load").schedules
    assert (daily.slug, daily.active) == ("daily", False)
    assert project.automations() == {}, (
        "nobody is told that a deployment without schedule is silent"
    )
    project.write(LOADS, SILENT)
    assert project.deploy()
    found = {each.slug: each.active for each in project.deployment("load").schedules}
    assert found == {"daily": False, "nightly": True}
    assert project.deployment("load-other").parameters == {"days": 3}
    assert set(project.automations()) == {f"{project.name} load is silent"}
    assert project.deploy() == [NOTHING]
    project.write("  []\n")
    project.deploy()


def test_the_server_of_another_environment_is_left_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above all its blocks, which have production's warehouse."""
    project.write(LOADS)
    project.deploy()
    before = project.deployment("load")
    monkeypatch.setenv("ENVIRONMENT", "staging")
    monkeypatch.setattr("deployments.deploy.save", lambda _: pytest.fail("saved blocks"))
    for act in (project.plan, project.deploy):
        with pytest.raises(ConfigurationError, match=r"the server of production.*\.env\.staging"):
            act()
    assert project.deployment("load") == before


def test_each_environment_has_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A_SHOP", "B_SHOP"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text("A_SHOP=production\nB_SHOP=production\n")
    (tmp_path / ".env.staging").write_text("A_SHOP=staging\n")
    monkeypatch.setenv("ENVIRONMENT", "staging")
    read_environment(env_file(tmp_path))
    assert (os.environ["A_SHOP"], "B_SHOP" in os.environ) == ("staging", False)
    monkeypatch.setenv("ENVIRONMENT", "production")
    read_environment(env_file(tmp_path))
    assert os.environ["A_SHOP"] == "production"
    for name, message in (("test", "copy deployments/example.env"), ("../x", "lower-case")):
        monkeypatch.setenv("ENVIRONMENT", name)
        with pytest.raises(SystemExit, match=message):
            env_file(tmp_path)
