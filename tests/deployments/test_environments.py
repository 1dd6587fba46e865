"""Environments beside production: names, blocks, a work pool and schedules of their own."""

import os
import re
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from conftest import empty_database
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME, temporary_settings
from sqlalchemy.engine import URL

from blocks import warehouse
from deployments import actual
from deployments.check import prefect_yaml
from deployments.deploy import NOTHING, inside
from deployments.env_file import POOL, env_file, read_environment
from deployments.local.postgres import libpq
from deployments.local.processes import child
from deployments.local.stack import Stack
from deployments.undeploy import undeploy
from flows.errors import ConfigurationError
from flows.notify import send
from tests.deployments.command_line import prefect, run_module
from tests.deployments.project import Project
from tests.owner.checkout import run

pytest_plugins = ["tests.deployments.project_fixtures"]

REPOSITORY = Path(__file__).resolve().parents[2]
LOADS = """
  - name: load
    entrypoint: jobs.py:load
    tags: [TAG, seen, other]
    schedules:
      - {slug: daily, cron: "0 5 * * *", timezone: Europe/London}
      - {slug: nightly, cron: "0 1 * * *", active: true}
  - name: tell
    entrypoint: jobs.py:tell
    tags: [TAG]
    parameters: {blocks: [custom-webhook/webhook]}
    triggers:
      - name: TAG failed
        expect: [prefect.flow-run.Failed]
        match: {prefect.resource.id: prefect.flow-run.*}
        match_related: {prefect.resource.role: tag, prefect.resource.id: prefect.tag.seen}
        parameters: {run_id: "{{ flow_run.id | string }}"}
"""
SILENT = """
automations:
  - name: "TAG {{ scheduled.name }} is silent"
    for_each_scheduled: seen
    trigger:
      type: event
      posture: Proactive
      expect: [prefect.flow-run.Completed]
      match: {prefect.resource.id: prefect.flow-run.*}
      match_related:
        prefect.resource.role: deployment
        prefect.resource.name: "{{ scheduled.name }}"
      within: 3600
    actions: [{type: send-notification, block: custom-webhook/webhook, subject: silent, body: "!"}]
  - name: TAG teller fails
    trigger:
      type: event
      posture: Reactive
      expect: [prefect.flow-run.Failed]
      match: {prefect.resource.id: prefect.flow-run.*}
      match_related: {prefect.resource.role: deployment, prefect.resource.name: tell}
    actions: [{type: run-deployment, source: selected, deployment: TAG tell/tell}]
"""
Enter = Callable[[str], None]


@pytest.fixture
def enter(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Work for an environment from now on, with a database of its own."""

    def enter(name: str) -> None:
        monkeypatch.setenv("ENVIRONMENT", name)
        monkeypatch.setenv("WAREHOUSE_URL", f"postgresql://elt@127.0.0.1:1/{name}")
        monkeypatch.setenv("NOTIFY_WEBHOOK_URL", f"http://127.0.0.1:1/{name}")

    return enter


def removed(project: Project, client: SyncPrefectClient) -> list[str]:
    said: list[str] = []
    with inside(project.root):
        undeploy(client, prefect_yaml.read(project.root), said.append)
    return said


@pytest.mark.long
def test_an_environment_lives_beside_production_and_goes(
    project: Project, enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(LOADS, SILENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTIFY_WEBHOOK_URL", "http://127.0.0.1:1/production")
        project.deploy()
    before = (project.deployment("load"), project.automations())
    enter("staging")
    monkeypatch.setenv(POOL, f"{project.name}-staging")
    pool = {PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME: f"{project.name}-staging"}
    with temporary_settings(pool):
        assert project.deploy()
        assert project.deploy() == [NOTHING]
        its = Project(project.root, project.name, project.client)
        load = its.deployment("load-staging")
        assert load.tags == [f"{project.name}-staging", "seen-staging", "other-staging"]
        assert load.work_pool_name == f"{project.name}-staging"
        assert load.job_variables["env"]["ENVIRONMENT"] == "staging"
        assert {each.slug: each.active for each in load.schedules} == {
            "daily": False,
            "nightly": True,
        }
        silent = f"{project.name} load-staging is silent-staging"
        automations = {
            each.name: each.model_dump_json()
            for each in actual.automations(project.client)
            if f"{project.name}-staging" in each.tags
        }
        assert set(automations) == {
            silent,
            f"{project.name} teller fails-staging",
            f"{project.name} failed-staging",
        }
        assert '"prefect.tag.seen-staging"' in automations[f"{project.name} failed-staging"]
        assert '"load-staging"' in automations[silent]
        block = actual.block(project.client, "custom-webhook/webhook-staging")
        assert str(block) in automations[silent]
        fails = automations[f"{project.name} teller fails-staging"]
        assert '"tell-staging"' in fails
        assert str(its.deployment("tell-staging").id) in fails
        assert (project.deployment("load"), project.automations()) == before

        said = removed(project, project.client)
        for slug in ("sqlalchemy-connector/warehouse-staging", "custom-webhook/webhook-staging"):
            assert f"remove block {slug}" in said
            assert actual.block(project.client, slug) is None
        assert f"remove work pool {project.name}-staging" in said
        assert removed(project, project.client) == [NOTHING]
    enter("production")
    monkeypatch.setenv(POOL, project.name)
    assert (project.deployment("load"), project.automations()) == before


def test_production_is_not_removed(project: Project) -> None:
    project.write(LOADS, SILENT)
    with pytest.raises(ConfigurationError, match="name another environment"):
        removed(project, project.client)


def test_each_environment_has_its_own_warehouse(enter: Enter) -> None:
    enter("production")
    warehouse.save()
    enter("staging")
    warehouse.save()
    assert warehouse.load().url.database == "staging"
    with pytest.raises(ConfigurationError, match="WAREHOUSE_URL is production's database"):
        warehouse.save({"WAREHOUSE_URL": "postgresql://elt_staging@127.0.0.1:1/production"})
    enter("production")
    assert warehouse.load().url.database == "production"


@pytest.mark.long
def test_a_run_of_staging_loads_into_its_own_database(
    stack: Stack, warehouse_url: URL, tmp_path: Path
) -> None:
    """On production's server, by a worker that says nothing of an environment."""
    with empty_database(stack.warehouse, "staging_of_tests") as url:
        its = {
            "ENVIRONMENT": "staging",
            POOL: "elt-staging",
            "WAREHOUSE_URL": libpq(url),
            "NOTIFY_EMAIL_URL": "json://127.0.0.1:1/",
            "NOTIFY_WEBHOOK_URL": "http://127.0.0.1:1/",
        }
        run_module(stack, "deployments.deploy", environment=its)
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "elt-staging"]
        soon = {**stack.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        try:
            with child(worker, tmp_path / "worker.log", soon):
                prefect(stack, "deployment", "run", "elt/market-staging", "--watch")
        finally:
            said = run_module(stack, "deployments.undeploy", environment=its)
        assert "remove deployment elt/market-staging" in said
        with closing(psycopg2.connect(libpq(url))) as opened, opened.cursor() as cursor:
            cursor.execute("select count(*) from raw_market.shippers")
            assert cursor.fetchone() != (0,)
    with closing(psycopg2.connect(libpq(warehouse_url))) as opened, opened.cursor() as cursor:
        cursor.execute("select to_regclass('raw_market.shippers')")
        assert cursor.fetchone() == (None,)


def test_messages_go_through_the_environments_channels(enter: Enter) -> None:
    enter("staging")
    with pytest.raises(ConfigurationError, match="'custom-webhook/nobody-staging' is missing"):
        send.fn("custom-webhook/nobody", "subject", "body")


READ_FILES = """
import json
from pathlib import Path
from deployments.check import prefect_yaml
found = prefect_yaml.read(Path.cwd())
assert found.project == "elt-staging"
for each in (*found.deployments, *found.automations):
    assert each["name"].endswith("-staging") or "-staging is silent" in each["name"], each["name"]
print(json.dumps([found.deployments, found.automations, found.pull]))
"""


def test_nothing_of_this_repository_keeps_productions_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Names in the files that a deploy of staging would share with production."""
    monkeypatch.setenv("ENVIRONMENT", "staging")
    text = run(REPOSITORY, "python", "-c", READ_FILES)
    references = re.findall(r'prefect\.(?:tag|blocks\.\w+)\.[\w-]+|"block": "[\w/-]+"', text)
    assert references
    assert [each for each in references if not each.rstrip('"').endswith("-staging")] == []


def test_each_environment_has_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A_SHOP", "B_SHOP", POOL):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text("A_SHOP=production\nB_SHOP=production\n")
    (tmp_path / ".env.staging").write_text("A_SHOP=staging\n")
    monkeypatch.setenv("ENVIRONMENT", "staging")
    read_environment(env_file(tmp_path))
    assert (os.environ["A_SHOP"], "B_SHOP" in os.environ) == ("staging", False)
    assert os.environ[POOL] == "elt-staging"
    monkeypatch.setenv("ENVIRONMENT", "production")
    read_environment(env_file(tmp_path))
    assert (os.environ["A_SHOP"], POOL in os.environ) == ("production", False)
    (tmp_path / ".env").write_text("ENVIRONMENT=staging\n")
    with pytest.raises(SystemExit, match=r"\.env sets ENVIRONMENT"):
        read_environment(env_file(tmp_path))
    (tmp_path / ".env").write_bytes("A_SHOP=ü".encode("latin-1"))
    with pytest.raises(SystemExit, match=r"\.env is not UTF-8"):
        read_environment(env_file(tmp_path))


@pytest.mark.parametrize("name", ["../x", "Staging", "a_b", "-a", "a" * 31])
def test_a_name_that_blocks_refuse_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", name)
    with pytest.raises(SystemExit, match="lower-case letters"):
        env_file()
