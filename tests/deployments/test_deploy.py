"""`make deploy` on a real server: it applies the declared state, and changes nothing else."""

import os
from typing import Any

import pytest
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from prefect.settings import PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

from deployments import actual
from deployments.deploy import NOTHING, ROOT, connected
from deployments.env_file import read_environment
from deployments.local.processes import free_port
from flows.errors import ConfigurationError, UnavailableError
from tests.deployments.project import Project

pytest_plugins = ["tests.deployments.project_fixtures"]

LOAD = """
  - name: load
    entrypoint: jobs.py:load
    tags: [TAG]
    concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}
    work_pool: {job_variables: {env: {GREETING: hello}}}
    schedules:
      - {slug: daily, cron: "0 5 * * *", timezone: Europe/London, parameters: {days: 2}}
      - {slug: hourly, interval: 3600}
      - slug: anchored
        interval: 86400
        anchor_date: "2026-07-01T05:30:00+02:00"
        timezone: Europe/Berlin
"""
CHANGED = (
    LOAD.replace("limit: 1", "limit: 2")
    .replace("hello", "bye")
    .replace('"0 5 * * *"', '"0 6 * * *"')
    .replace(", parameters: {days: 2}", "")
)
OTHER = """
  - {name: load-other, entrypoint: "jobs.py:load", tags: [TAG]}
"""
TELL = """
  - name: tell
    entrypoint: jobs.py:tell
    tags: [TAG]
    triggers:
      - name: TAG told
        match: {prefect.resource.id: prefect.flow-run.*}
        match_related: {prefect.resource.role: tag, prefect.resource.id: prefect.tag.nobody}
        expect: [prefect.flow-run.Failed, prefect.flow-run.Crashed]
        for_each: [prefect.resource.id]
        parameters: {run_id: "{{ flow_run.id | string }}"}
"""
WATCH = """
automations:
  - name: TAG watches
    trigger:
      type: event
      posture: Proactive
      expect: [prefect.flow-run.Completed]
      match: {prefect.resource.id: prefect.flow-run.*}
      match_related: {prefect.resource.role: tag, prefect.resource.id: prefect.tag.nobody}
      within: 3600
    actions:
      - {type: run-deployment, deployment: TAG tell/tell, parameters: {run_id: none}}
"""
SENDING = """
automations:
  - name: TAG sends
    trigger:
      expect: [prefect.flow-run.Late]
      match: {prefect.resource.id: prefect.flow-run.nobody}
    actions: [{type: send-notification, block: custom-webhook/webhook, body: late}]
"""


def schedules(project: Project) -> dict[str, Any]:
    """The schedules of `load` on the server, by slug."""
    return {each.slug: each for each in project.deployment("load").schedules}


def test_the_first_deploy_creates_everything_and_the_second_nothing(
    shared_project: Project,
) -> None:
    """The next two tests continue with this deployment."""
    project = shared_project
    project.write(LOAD + OTHER + TELL, WATCH)
    planned = project.plan()
    assert not actual.has_pool(project.client, project.name)
    assert project.deployments() == []
    assert project.deploy() == planned
    assert planned[0] == f"create work pool {project.name}"
    assert len(planned) == 6  # the pool, three deployments, a trigger, an automation
    assert project.deployments() == ["load", "load-other", "tell"]
    assert "schedule anchored every 1 day, 0:00:00 from 2026-07-01T05:30:00+02:00" in planned[1]
    assert set(schedules(project)) == {"daily", "hourly", "anchored"}
    made = project.automations()
    assert set(made) == {f"{project.name} told", f"{project.name} watches"}
    action = made[f"{project.name} watches"].actions[0]
    assert action.deployment_id == project.deployment("tell").id
    before = [project.deployment("load"), project.deployment("tell")]
    assert project.plan() == [NOTHING]
    assert project.deploy() == [NOTHING]
    assert [project.deployment("load"), project.deployment("tell")] == before
    assert project.automations() == made


def test_a_change_is_told_field_by_field_and_moves_nothing_else(shared_project: Project) -> None:
    project = shared_project
    automations, tell = project.automations(), project.deployment("tell")
    project.write(CHANGED + OTHER + TELL, WATCH)
    planned = project.plan()
    assert planned == [
        f"update deployment {project.name} load/load: concurrency_limit 1 -> 2; "
        "job_variables.env.GREETING 'hello' -> 'bye'",
        f"update schedule daily of {project.name} load/load: cron '0 5 * * *' -> '0 6 * * *'; "
        "parameters.days 2 -> None",
    ]
    assert project.deploy() == planned
    assert schedules(project)["daily"].schedule.cron == "0 6 * * *"
    assert schedules(project)["daily"].parameters == {}
    assert project.deployment("load").job_variables["env"] == {"GREETING": "bye"}
    assert project.automations() == automations
    assert project.deployment("tell") == tell
    assert project.plan() == [NOTHING]


def test_what_left_the_files_is_removed_and_foreign_objects_stay(
    shared_project: Project,
) -> None:
    project = shared_project
    of_others = _of_others(project)
    project.write(CHANGED.partition("      - {slug: hourly")[0])
    planned = project.plan()
    assert sorted(line.partition(":")[0] for line in planned) == [
        f"remove automation {project.name} told",
        f"remove automation {project.name} watches",
        f"remove deployment {project.name} load/load-other",
        f"remove deployment {project.name} tell/tell",
        f"remove schedule anchored of {project.name} load/load",
        f"remove schedule hourly of {project.name} load/load",
    ]
    assert project.deploy() == planned
    assert project.deployments() == ["load"]
    assert set(schedules(project)) == {"daily"}
    assert project.automations() == {}
    assert project.plan() == [NOTHING]
    for deployment, automation in [of_others]:
        assert project.client.read_deployment(deployment).name == "load-by-hand"
        assert project.client.read_automation(automation)
        project.client.delete_automation(automation)


def _of_others(project: Project) -> list[Any]:
    """A deployment of our flow, and an automation of the same name as ours, without our tag."""
    flow = project.deployment("load").flow_id
    automation = AutomationCore(
        name=f"{project.name} watches",
        trigger=EventTrigger(
            expect={"prefect.nothing"}, match={"prefect.resource.id": "prefect.nobody"}
        ),
        actions=[DoNothing()],
    )
    made = project.client.create_automation(automation)
    return [project.client.create_deployment(flow, "load-by-hand"), made]


@pytest.mark.long
def test_schedules_that_all_left_the_file_are_removed(project: Project) -> None:
    project.write(LOAD)
    project.deploy()
    assert len(schedules(project)) == 3
    project.write(LOAD.partition("    schedules")[0])
    assert len(project.plan()) == 3
    project.deploy()
    assert schedules(project) == {}
    assert project.plan() == [NOTHING]


@pytest.mark.long
def test_a_changed_trigger_keeps_its_automation(project: Project) -> None:
    project.write(TELL)
    project.deploy()
    (before,) = project.automations().values()
    project.write(TELL.replace("tag.nobody", "tag.somebody"))
    (line,) = project.deploy()
    assert "prefect.tag.nobody" in line
    assert "prefect.tag.somebody" in line
    (after,) = project.automations().values()
    assert after.id == before.id
    assert project.plan() == [NOTHING]


@pytest.mark.long
def test_what_a_person_paused_stays_paused(project: Project) -> None:
    project.write(LOAD + TELL)
    project.deploy()
    for name in ("load", "tell"):
        project.client.pause_deployment(project.deployment(name).id)
    daily = schedules(project)["daily"]
    project.client.update_deployment_schedule(project.deployment("load").id, daily.id, active=False)
    (told,) = project.automations().values()
    project.client.pause_automation(told.id)
    kept = [
        f"{project.name} load/load was paused by hand, and stays so.",
        f"{project.name} tell/tell was paused by hand, and stays so.",
        f"automation {project.name} told was disabled by hand, and stays so.",
    ]
    # Pausing a schedule makes Prefect 3.8.8 forget its parameters.
    forgotten = f"update schedule daily of {project.name} load/load: parameters.days None -> 2"
    assert project.deploy() == [forgotten, *kept]
    assert schedules(project)["daily"].parameters == {"days": 2}
    assert project.plan() == [NOTHING, *kept]
    project.write((LOAD + TELL).replace("tags: [TAG]", "tags: [TAG, more]"))
    assert project.deploy()[2:] == kept
    assert project.deployment("load").paused
    assert project.deployment("tell").paused
    assert not schedules(project)["daily"].active
    assert schedules(project)["hourly"].active
    (told,) = project.automations().values()
    assert not told.enabled
    project.write(f"{LOAD}    paused: false\n")
    project.deploy()
    assert not project.deployment("load").paused


def test_a_missing_block_is_refused_before_anything_is_deployed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(LOAD, SENDING.replace("webhook/webhook", "webhook/nowhere"))
    for act in (project.plan, project.deploy):
        with pytest.raises(ConfigurationError, match="custom-webhook/nowhere: set NOTIFY_NOWHERE"):
            act()
    assert project.deployments() == []
    assert not actual.has_pool(project.client, project.name)
    project.write("  []\n", SENDING)
    monkeypatch.setenv("NOTIFY_WEBHOOK_URL", "http://127.0.0.1:9/")
    assert f"create automation {project.name} sends" in project.plan()
    project.deploy()
    (sends,) = project.automations().values()
    assert sends.actions[0].block_document_id == actual.block(
        project.client, "custom-webhook/webhook"
    )


def test_files_with_a_problem_are_not_deployed(project: Project) -> None:
    project.write(f"{LOAD}    retries: 3\n")
    for act in (project.plan, project.deploy):
        with pytest.raises(ConfigurationError, match="retries"):
            act()
    assert project.deployments() == []


def test_without_a_server_the_remedy_is_told() -> None:
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL, PREFECT_API_KEY}),
        pytest.raises(ConfigurationError, match="PREFECT_API_URL is not set"),
        connected(),
    ):
        pass
    nobody = f"http://127.0.0.1:{free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: nobody}),
        pytest.raises(UnavailableError, match=nobody),
        connected() as client,
    ):
        client.read_work_pool("elt")


def test_the_environment_counts_more_than_the_file(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SHOP", "shell")
    for name in ("B_SHOP", "C_SHOP"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    file = tmp_path / ".env"
    file.write_text("A_SHOP=file\nB_SHOP=p$1{x}\nC_SHOP=\n")
    read_environment(file)
    assert os.environ["A_SHOP"] == "shell"
    assert os.environ["B_SHOP"] == "p$1{x}"
    assert "C_SHOP" not in os.environ
    # `make up` reads it again when it changes.
    file.write_text("A_SHOP=file\nC_SHOP=new\n")
    read_environment(file)
    assert [os.environ.get(f"{each}_SHOP") for each in "ABC"] == ["shell", None, "new"]


def test_the_template_of_the_environment_names_what_deploys_read() -> None:
    text = (ROOT / "deployments" / "example.env").read_text()
    for name in (
        "PREFECT_API_URL",
        "PREFECT_API_KEY",
        "WAREHOUSE_URL",
        "WAREHOUSE_TRANSFORMER_URL",
        "NOTIFY_EMAIL_URL",
        "NOTIFY_WEBHOOK_URL",
        "ELT_CODE",
        "ELT_REF",
        "GIT_TOKEN",
        "PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME",
        "ELT_WORK_POOL_TYPE",
    ):
        assert f"\n{name}=" in text or f"\n#{name}=" in text
    assert all(line.partition("=")[2] for line in text.splitlines() if line[:1].isupper())
