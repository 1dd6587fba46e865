"""automations.yaml: the server reports or repairs what a dead worker can't report."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect import states
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, WorkPoolStatus
from prefect.events import emit_event
from prefect.events.worker import EventsWorker

from blocks import notifications
from deployments.check import scheduled
from tests.deployments.project import Project
from tests.http_servers import Answer, Server, serving

pytest_plugins = ["tests.deployments.project_fixtures"]

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "deployments" / "automations.yaml").read_text()
DECLARED: list[dict[str, Any]] = yaml.safe_load(TEXT)["automations"]
DEPLOYMENTS = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
SECONDS = 60
RUN_EVENTS = {
    f"prefect.flow-run.{name}"
    for name in (
        "Late",
        "heartbeat",
        "Scheduled",
        "AwaitingRetry",
        "AwaitingConcurrencySlot",
        "Pending",
        "Running",
        "Cancelling",
        "Completed",
        "Failed",
        "TimedOut",
        "Crashed",
        "Cancelled",
        "Paused",
        "Suspended",
    )
}
POOL_EVENTS = {
    f"prefect.work-pool.{status.value.lower().replace('_', '-')}" for status in WorkPoolStatus
}
JOBS = """
  - {name: load, entrypoint: "jobs.py:load", tags: [TAG, watched-by-TAG]}
  - name: load-limited
    entrypoint: jobs.py:load
    tags: [TAG, watched-by-TAG]
    concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW, grace_period_seconds: 60}
  - name: seldom
    entrypoint: jobs.py:load
    tags: [TAG, watched-by-TAG]
    schedules: [{slug: once, rrule: "DTSTART:29980101T000000\\nRRULE:FREQ=DAILY;COUNT=1"}]
  - {name: notify, entrypoint: "jobs.py:tell", tags: [TAG]}
"""


def test_every_scheduled_deployment_is_reported_when_silent() -> None:
    """Also one that is added to prefect.yaml alone."""
    added = {"name": "added", "tags": ["watched"], "schedules": [{"cron": "0 6 * * 1"}]}
    found = scheduled.expanded(DECLARED, [*DEPLOYMENTS, added])
    silent = {
        spec["trigger"]["match_related"]["prefect.resource.name"]: spec["trigger"]
        for spec in found
        if spec["name"].endswith("is silent")
    }
    assert set(silent) == {
        entry["name"] for entry in [*DEPLOYMENTS, added] if entry.get("schedules")
    }
    for trigger in silent.values():
        assert trigger["posture"] == "Proactive"
        assert trigger["expect"] == ["prefect.flow-run.Completed"]
    assert silent["added"]["within"] == timedelta(days=7, hours=2).total_seconds()


def test_a_deployment_is_not_reported_as_silent_without_the_tag_or_a_schedule() -> None:
    daily = [{"cron": "0 6 * * *"}]
    quiet = [
        {"name": "untagged", "tags": ["elt"], "schedules": daily},
        {"name": "by hand", "tags": ["watched"]},
        {"name": "off", "tags": ["watched"], "schedules": [daily[0] | {"active": False}]},
    ]
    assert len(DECLARED) - len(scheduled.expanded(DECLARED, quiet)) == 1


@pytest.mark.parametrize(
    ("schedules", "pause"),
    [
        ([{"cron": "0 6 * * *", "timezone": "Europe/London"}], timedelta(days=1)),
        ([{"cron": "*/15 * * * *"}], timedelta(minutes=15)),
        ([{"cron": "0 6 * * 1-5"}], timedelta(days=3)),
        ([{"cron": "0 6 1 * *"}], timedelta(days=31)),
        ([{"cron": "0 6 * * *"}, {"cron": "0 14 * * *"}], timedelta(hours=16)),
        ([{"cron": "0 6 * * *"}, {"cron": "0 7 * * 1"}], timedelta(days=1)),
        ([{"interval": 3600}], timedelta(hours=1)),
        ([{"rrule": "FREQ=WEEKLY;BYDAY=MO,TU"}], timedelta(days=6)),
        ([{"rrule": "DTSTART:29980101T000000\nRRULE:FREQ=DAILY;COUNT=1"}], timedelta()),
    ],
)
def test_silence_is_longer_than_the_longest_pause_of_the_schedules(
    schedules: list[dict[str, Any]], pause: timedelta
) -> None:
    assert scheduled.longest_pause(schedules) == pause


def test_every_event_is_one_that_prefect_has() -> None:
    assert DECLARED
    for spec in DECLARED:
        trigger = spec["trigger"]
        assert {*trigger["expect"], *trigger.get("after", [])} <= RUN_EVENTS | POOL_EVENTS


def test_a_run_that_has_ended_in_any_way_is_not_silent() -> None:
    (trigger,) = (each["trigger"] for each in DECLARED if "heartbeat" in each["name"])
    ends = {f"prefect.flow-run.{state.value.title()}" for state in TERMINAL_STATES}
    assert {*ends, "prefect.flow-run.TimedOut"} <= {*trigger["expect"]}


def test_silence_lasts_longer_than_heartbeats_are_apart() -> None:
    (trigger,) = (each["trigger"] for each in DECLARED if "heartbeat" in each["name"])
    pools = [entry["work_pool"]["job_variables"]["env"] for entry in DEPLOYMENTS]
    assert pools
    for env in pools:
        assert trigger["within"] >= 3 * int(env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])


def test_a_run_that_stays_pending_holds_its_slot_until_it_is_crashed() -> None:
    """Otherwise the slot would be released twice, the second time while another run holds it."""
    (trigger,) = (each["trigger"] for each in DECLARED if "does not begin" in each["name"])
    ends = {f"prefect.flow-run.{state.value.title()}" for state in TERMINAL_STATES}
    assert {*ends, "prefect.flow-run.TimedOut", "prefect.flow-run.Running"} <= {*trigger["expect"]}
    limits = [entry["concurrency_limit"] for entry in DEPLOYMENTS if "concurrency_limit" in entry]
    assert limits
    for limit in limits:
        assert limit["grace_period_seconds"] >= trigger["within"] + 120


@pytest.fixture(scope="module")
def inbox(stack: object) -> Iterator[Server]:
    """Where the webhook's block sends to."""
    with serving() as serve:
        receiver = serve(lambda asked: Answer())
        notifications.save({"NOTIFY_WEBHOOK_URL": f"{receiver.url}hook"})
        yield receiver


@pytest.fixture(scope="module")
def watched(shared_project: Project, inbox: Server) -> Project:
    """The project with the file's automations, which fire after ten seconds of silence."""
    text = TEXT.replace("name: elt ", "name: TAG ").replace("tag.elt", "tag.TAG")
    text = text.replace("tag.watched", "tag.watched-by-TAG")
    for within in ("within: 600", "within: 900"):
        assert within in text
        text = text.replace(within, "within: 10")
    for_each = f"{scheduled.KEY}: watched"
    assert for_each in text
    text = text.replace(for_each, f"{scheduled.KEY}: watched-by-TAG")
    text = text.replace("within: 7200", "within: 10")
    shared_project.write(JOBS, text.replace("within: 300", "within: 10"))
    shared_project.deploy()
    return shared_project


def until(found: Callable[[], Any]) -> Any:
    """Wait until something is found, and return it."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.1)
    raise AssertionError(f"nothing came within {SECONDS} s")


def subjects(inbox: Server) -> list[str]:
    """The messages' subjects, in order."""
    return [json.loads(asked.body)["subject"] for asked in inbox.asked]


def begun(project: Project) -> UUID:
    """A run of `load` that its worker has started."""
    run = project.client.create_flow_run_from_deployment(project.deployment("load").id)
    set_state(project, run.id, states.Running())
    return run.id


def set_state(project: Project, run: UUID, state: State[Any]) -> None:
    """Bring a run to a state as its worker would."""
    project.client.set_flow_run_state(run, state, force=True)


def read(project: Project, run: UUID) -> FlowRun:
    """The run from the server."""
    return project.client.read_flow_run(run)


@pytest.mark.long
def test_a_run_that_crashed_is_started_again_twice_and_no_more(watched: Project) -> None:
    run = begun(watched)
    for _ in range(2):
        set_state(watched, run, states.Crashed())
        until(lambda: read(watched, run).state_name == "AwaitingRetry")
        set_state(watched, run, states.Running())
    other = begun(watched)
    set_state(watched, run, states.Crashed())
    set_state(watched, other, states.Crashed())
    until(lambda: read(watched, other).state_name == "AwaitingRetry")
    assert (read(watched, run).state_name, read(watched, run).run_count) == ("Crashed", 3)


@pytest.mark.long
def test_a_run_that_never_began_is_not_started_again(watched: Project) -> None:
    run = watched.client.create_flow_run_from_deployment(watched.deployment("load").id)
    other = begun(watched)
    set_state(watched, run.id, states.Crashed())
    set_state(watched, other, states.Crashed())
    until(lambda: read(watched, other).state_name == "AwaitingRetry")
    assert read(watched, run.id).state_name == "Crashed"


@pytest.mark.long
def test_a_run_whose_heartbeat_stops_is_crashed_and_restarted(
    watched: Project,
) -> None:
    silent, ended = begun(watched), begun(watched)
    for run in (ended, silent):
        _beat(watched, run)
    set_state(watched, ended, states.Failed(name="TimedOut"))
    until(lambda: read(watched, silent).state_name == "AwaitingRetry")
    assert read(watched, ended).state_name == "TimedOut"


@pytest.mark.long
def test_a_run_that_stays_pending_is_crashed_and_releases_its_slot(
    watched: Project,
) -> None:
    def pending() -> UUID:
        run = watched.client.create_flow_run_from_deployment(limited.id)
        watched.client.set_flow_run_state(run.id, states.Pending())
        return run.id

    limited = watched.deployment("load-limited")
    stuck = pending()
    watched.client.set_flow_run_state(stuck, states.Submitting())
    assert read(watched, pending()).state_name == "Cancelled"
    until(lambda: read(watched, stuck).state_name == "Crashed")
    begins = pending()
    assert read(watched, begins).state_name == "Pending"
    for state in (states.Running(), states.AwaitingRetry(), states.Pending(), states.Running()):
        set_state(watched, begins, state)
    later = begun(watched)
    for state in (states.AwaitingRetry(), states.Pending()):
        set_state(watched, later, state)
    until(lambda: "Crashed" in past(watched, later))
    assert read(watched, begins).state_name == "Running"


def past(project: Project, run: UUID) -> dict[str, str | None]:
    """The states that the run had, with their messages."""
    return {str(state.name): state.message for state in project.client.read_flow_run_states(run)}


def _beat(project: Project, run: UUID) -> None:
    """A heartbeat, as the run's own process sends it."""
    tag = {"prefect.resource.id": f"prefect.tag.{project.name}", "prefect.resource.role": "tag"}
    resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
    emit_event("prefect.flow-run.heartbeat", resource, related=[tag])
    EventsWorker.drain_all()


@pytest.mark.long
def test_a_run_that_nobody_begins_is_told_by_the_server_itself(
    watched: Project, inbox: Server
) -> None:
    due = datetime.now(UTC) - timedelta(minutes=5)
    watched.client.create_flow_run_from_deployment(
        watched.deployment("load").id, state=states.Scheduled(scheduled_time=due)
    )
    until(lambda: "load is late" in subjects(inbox))
    (said,) = (asked.body.decode() for asked in inbox.asked if b"is late" in asked.body)
    assert "/runs/flow-run/" in said


@pytest.mark.long
def test_a_deployment_that_never_succeeds_is_told(watched: Project, inbox: Server) -> None:
    until(lambda: any("seldom has not succeeded" in each for each in subjects(inbox)))


@pytest.mark.long
def test_a_pool_without_a_worker_is_told(watched: Project, inbox: Server) -> None:
    _pool_event(watched, "not-ready")
    until(lambda: f"work pool {watched.name} has no worker" in subjects(inbox))


def _pool_event(project: Project, name: str) -> None:
    """The event that Prefect's foreman emits 90 seconds after the last worker's heartbeat."""
    pool = project.client.read_work_pool(project.name)
    resource = {
        "prefect.resource.id": f"prefect.work-pool.{pool.id}",
        "prefect.resource.name": pool.name,
        "prefect.work-pool.type": pool.type,
    }
    emit_event(f"prefect.work-pool.{name}", resource)
    EventsWorker.drain_all()


@pytest.mark.long
def test_that_messages_fail_is_told_another_way(watched: Project, inbox: Server) -> None:
    notify = watched.client.read_deployment_by_name(f"{watched.name} tell/notify")
    run = watched.client.create_flow_run_from_deployment(notify.id, parameters={"run_id": "x"})
    set_state(watched, run.id, states.Failed(message="refused by the mail server"))
    until(lambda: "a message could not be sent" in subjects(inbox))
    assert any(b"refused by the mail server" in asked.body for asked in inbox.asked)
