"""The check reports, with its line, what Prefect would drop, store in plain text or refuse late."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent, indent

import pytest

from deployments.check import prefect_yaml
from deployments.deploy import inside
from flows.errors import ConfigurationError

REPOSITORY = Path(__file__).resolve().parents[2]
FLOWS = """
import datetime
from typing import Annotated
from uuid import UUID
from prefect import flow
from pydantic import BaseModel, Field

class Retry(BaseModel):
    retries: int = Field(0, ge=0, le=10)

Source = Annotated[str, Field(json_schema_extra={"enum": ["shop", "crm"]})]

@flow
def load(
    source: Source, since: datetime.date | None = None, days: int = 1, retry: Retry = Retry()
):
    "Load it."

@flow
def tell(run_id: UUID, blocks: tuple[str, ...] = ()):
    "Tell it."

@flow
def unsaid(): ...
"""
HEAD = """\
name: shop
deployments:
  - name: load
    entrypoint: jobs.py:load
    tags: [shop]
    parameters: {source: shop}
"""
TRIGGER = """\
name: shop
deployments:
  - name: tell
    entrypoint: jobs.py:tell
    tags: [shop]
    triggers:
      - parameters: {run_id: "{{ flow_run.id | string }}"}
"""
AUTOMATION = """\
automations:
  - name: late
    trigger:
      expect: [prefect.flow-run.Late]
      match: {prefect.resource.id: prefect.flow-run.*}
    actions:
      - type: send-notification
        block: custom-webhook/webhook
        body: late
"""

Check = Callable[..., list[str]]


@pytest.fixture
def check(tmp_path: Path) -> Iterator[Check]:
    """The problems of a prefect.yaml (and an automations.yaml) next to some flows, one per line."""
    (tmp_path / "jobs.py").write_text(FLOWS)
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    (tmp_path / "deployments").mkdir()

    def find_problems(deployments: str, automations: str | None = None) -> list[str]:
        (tmp_path / "prefect.yaml").write_text(deployments)
        if automations is not None:
            (tmp_path / "deployments" / "automations.yaml").write_text(automations)
        try:
            prefect_yaml.read(tmp_path)
        except ConfigurationError as error:
            return [line.strip() for line in str(error).splitlines()[1:]]
        return []

    with inside(tmp_path):
        yield find_problems


def below(head: str, *lines: str) -> str:
    """A file that starts with `head`, followed by further keys of its deployment."""
    return head + indent(dedent("\n".join(lines)), "    ") + "\n"


def schedule(fields: str) -> str:
    """A deployment's file with one schedule, called `a`."""
    return below(HEAD, "schedules:", f"  - {{slug: a, {fields}}}")


def limit(value: str) -> str:
    """A deployment's file with a `concurrency_limit`."""
    return below(HEAD, f"concurrency_limit: {value}")


def trigger(*lines: str) -> str:
    """A deployment's file with one trigger."""
    return TRIGGER + indent(dedent("\n".join(lines)), "        ") + "\n"


MATCHED = 'match: {prefect.resource.id: "prefect.flow-run.*"}'
EXPECTED = "expect: [prefect.flow-run.Failed]"

COMPOUND = ["type: compound", "require: all", "triggers:", f"  - {MATCHED}", f"    {EXPECTED}"]

BROKEN = [
    # what Prefect drops silently
    ("deploymets: []\n" + HEAD, 1, "deploymets", "deployments may be meant"),
    (below(HEAD, "schedulers: []"), 7, "schedulers", "schedules may be meant"),
    (below(HEAD, "retries: 3"), 7, "retries", "parameters: {retry: {retries: 3"),
    (below(HEAD, "timeout_seconds: 3"), 7, "timeout_seconds", "Give the flow a timeout_seconds"),
    (below(HEAD, "work_pool:", "  job_variable: {}"), 8, "job_variable", "job_variables may be"),
    (below(HEAD, "concurrency_limit:", "  limit: 1", "  colision_strategy: X"), 9, "colision", ""),
    (trigger(MATCHED, EXPECTED, "withinn: 3"), 10, "withinn", "within may be meant"),
    (
        trigger("type: compound", "require: all", "triggers:", f"  - {MATCHED}", "    expectt: []"),
        12,
        "expectt",
        "expect may be meant",
    ),
    (below(HEAD, "tags: [shop]"), 7, "tags", "twice"),  # YAML keeps the last one only
    # triggers that would fire on every event
    (trigger(EXPECTED), 7, "match is empty", "Name what it is for"),
    (trigger(MATCHED, "expect: []"), 9, "expect is empty", "Name what it is for"),
    (
        trigger("type: sequence", "within: 3", "triggers:", f"  - {MATCHED}"),
        11,
        "expect is empty",
        "Name",
    ),
    (trigger("type: evnt", MATCHED, EXPECTED), 8, "'evnt'", "event, metric"),
    (trigger(MATCHED, EXPECTED, "posture: Reactiv"), 10, "posture", "Correct it"),
    (trigger(MATCHED, EXPECTED, "posture: Proactive", "within: 3"), 7, "10 seconds", "Correct it"),
    (
        trigger(MATCHED, EXPECTED).replace("{{ flow_run.id | string }}", "{{ flow_run.id }}"),
        7,
        "run_id",
        "| string",
    ),
    # schedules
    (below(HEAD, "schedules:", '  - cron: "0 5 * * *"'), 8, "slug is missing", "slug: daily"),
    (
        below(HEAD, "schedules:", "  - {slug: a, interval: 60}", "  - {slug: a, interval: 90}"),
        9,
        "'a'",
        "each its own",
    ),
    (below(HEAD, "schedules:", "  - {slug: a, cron: 61 * * * *}"), 8, "61 * * * *", "Correct it"),
    (
        below(HEAD, "schedules:", "  - {slug: a, interval: 60, timezone: Europe/Londn}"),
        8,
        "Europe/Londn",
        "Correct it",
    ),
    (below(HEAD, "schedules:", "  - slug: a", "    chron: 1"), 9, "chron", "cron may be meant"),
    (below(HEAD, "schedules:", "  - slug: a"), 8, "Exactly one of", "Correct it"),
    (below(HEAD, "schedule: {interval: 60}"), 7, "old key", "write `schedules:`"),
    # parameters that would be refused when a run starts
    (
        below(HEAD, "schedules:", "  - slug: a", "    interval: 60", "    parameters:")
        + "          days: many\n",
        11,
        "'many' is not of type 'integer'",
        "Correct it",
    ),
    (HEAD.replace("source: shop", "source: moon"), 6, "'moon' is not one of", "Correct it"),
    (HEAD.replace("source: shop", "sorce: shop"), 6, "sorce", "source may be meant"),
    (
        below(HEAD.replace("source: shop", "source: shop, since: soon"), ""),
        6,
        "since",
        "Correct it",
    ),
    (
        HEAD.replace("source: shop", "source: shop, retry: {retries: 99}"),
        6,
        "retry.retries",
        "Correct it",
    ),
    (
        below(HEAD.replace("{source: shop}", "{}"), "schedules:", "  - {slug: a, interval: 60}"),
        8,
        "source",
        "under the deployment's `parameters:`",
    ),
    (trigger(MATCHED, EXPECTED).replace("run_id", "run"), 7, "run: the flow", "run_id may be"),
    # what can't be deployed at all
    (HEAD.replace("jobs.py:load", "jobs.py:lod"), 4, "jobs.py:lod does not load", "lod"),
    (HEAD.replace("jobs.py", "broken.py"), 4, "does not load", "no_such_package"),
    (HEAD.replace("jobs.py", "gone.py"), 4, "gone.py:load does not load", ""),
    (HEAD.replace("    entrypoint: jobs.py:load\n", ""), 3, "entrypoint is missing", "write"),
    (HEAD.replace("- name: load", "- description: x"), 3, "name is missing", "skip this"),
    (HEAD.replace("jobs.py:load", "jobs.py:unsaid"), 3, "description is missing", "Write one"),
    (HEAD + HEAD.partition("deployments:\n")[2], 7, "2 deployments are called 'load'", "its own"),
    (HEAD.replace("[shop]", "[other]"), 5, "'shop'", "Write `tags: [shop]`"),
    (HEAD.replace("name: shop\n", "", 1), 1, "name is missing", "tags everything"),
    (below(HEAD, "paused: perhaps"), 7, "paused", "Correct it"),
    (below(HEAD, "concurrency_limit: {limit: 1}"), 7, "collision_strategy", "CANCEL_NEW or"),
    (below(HEAD, "concurrency_limit: many"), 7, "'many'", "a number of runs"),
    (
        below(HEAD, "concurrency_limit: {limit: 1, collision_strategy: QUEUE}"),
        7,
        "QUEUE",
        "Correct it",
    ),
    (below(HEAD, 'version: "{{ $NO_SUCH_VARIABLE }}"'), 7, "NO_SUCH_VARIABLE", "set it in .env"),
    (HEAD + "  - oops: [\n", 8, "this is not valid YAML", ""),
    (
        below(HEAD, "work_pool:", "  job_variables:", "    env:") + "          SECONDS: 60\n",
        10,
        "SECONDS: 60 is refused",
        "in quotes",
    ),
    # secrets that would be stored in plain text
    (
        below(HEAD, "work_pool:", "  job_variables:", "    env:")
        + '          PGPASSWORD: "{{ prefect.blocks.secret.pg }}"\n',
        10,
        "PGPASSWORD: a block's value",
        "reads when it runs",
    ),
    (
        below(HEAD, "work_pool:", "  job_variables:", "    env:") + "          SHOP_TOKEN: abc\n",
        10,
        "SHOP_TOKEN: a secret",
        "Keep it in a block",
    ),
    (
        below(HEAD, "work_pool:", "  job_variables:", "    env:")
        + '          PREFECT_API_KEY: "{{ $PATH }}"\n',
        10,
        "PREFECT_API_KEY: a secret",
        "Keep it in a block",
    ),
    (below(HEAD, "description: see http://me:pw@host/"), 7, "contains a password", "Keep it"),
    # limits with which no run would ever start
    (limit("0"), 7, "concurrency_limit: 0 is refused", "1 or more"),
    (limit("-1"), 7, "concurrency_limit: -1 is refused", "1 or more"),
    (limit("true"), 7, "concurrency_limit: True is refused", "1 or more"),
    (limit("[1]"), 7, "concurrency_limit: [1] is refused", "1 or more"),
    (limit("{limit: 0, collision_strategy: ENQUEUE}"), 7, "limit: 0 is refused", "1 or more"),
    (limit("{limit: true, collision_strategy: ENQUEUE}"), 7, "limit: True", "a whole number"),
    (limit("{limit: '1', collision_strategy: ENQUEUE}"), 7, "limit: '1'", "a whole number"),
    (trigger(MATCHED, EXPECTED, "threshold: 0"), 10, "threshold: 0 is refused", "1 or more"),
    (trigger(MATCHED, EXPECTED, "threshold: -1"), 10, "threshold: -1 is refused", "1 or more"),
    (trigger(MATCHED, EXPECTED, "posture: Proactive"), 7, "within is missing", "10 or more"),
    (
        trigger(MATCHED, EXPECTED, "posture: Proactive", "within: 0"),
        11,
        "within: 0 is refused",
        "10 or more",
    ),
    (
        trigger(*COMPOUND[:2], "within: -5", *COMPOUND[2:]),
        10,
        "within: -5 is refused",
        "0 or more",
    ),
    # what Prefect would convert to another type
    (schedule('cron: "0 5 * * *", active: "no"'), 8, "active: 'no'", "true or false"),
    (schedule('cron: "0 5 * * *", active: 0'), 8, "active: 0", "true or false"),
    (schedule('cron: "0 5 * * *", day_or: "off"'), 8, "day_or: 'off'", "true or false"),
    (below(HEAD, 'paused: "no"'), 7, "paused: 'no'", "true or false"),
    (below(HEAD, "enforce_parameter_schema: 'n'"), 7, "enforce_parameter", "true or false"),
    (trigger(MATCHED, EXPECTED, 'enabled: "no"'), 10, "enabled: 'no'", "true or false"),
    (trigger(MATCHED, EXPECTED, 'threshold: "1"'), 10, "threshold: '1'", "without quotes"),
    (
        limit("{limit: 1, collision_strategy: ENQUEUE, grace_period_seconds: '60'}"),
        7,
        "grace_period_seconds: '60'",
        "without quotes",
    ),
    (schedule("interval: true"), 8, "interval: True is refused", "seconds"),
    (below(HEAD, "schedules: {slug: a, interval: 60}"), 7, "schedules must be a list", "`- `"),
    (below(HEAD, "schedules: daily"), 7, "schedules must be a list", "`- `"),
    (below(HEAD, f"triggers: {{{MATCHED}, {EXPECTED}}}"), 7, "triggers must be a list", "`- `"),
    ("name: shop\ndeployments: {name: load}\n", 2, "deployments must be a list", "`- `"),
    # schedules that never come, or come at other times than written
    (schedule('cron: "0 5 30 2 *"'), 8, "0 5 30 2 * never comes", "Correct it"),
    (schedule('cron: "0 5 30 2 1", day_or: false'), 8, "0 5 30 2 1 never comes", "Correct it"),
    (schedule('cron: "0 5 30 2 1"'), 8, "0 5 30 2 1 never comes", "Correct it"),  # nor Mondays
    (schedule('cron: ""'), 8, "cron is empty", "0 5 * * *"),
    (schedule('rrule: ""'), 8, "rrule is empty", "FREQ=DAILY"),
    (
        schedule('rrule: "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"'),
        8,
        "BYMONTHDAY=30 never comes",
        "Correct it",
    ),
    (schedule('rrule: "FREQ=DAILY;COUNT=3"'), 8, "COUNT=3 never comes", "from 2020-01-01"),
    (schedule('rrule: "FREQ=HOURLY;UNTIL=20250101T000000"'), 8, "never comes", "from 2020-01-01"),
    (schedule('rrule: "RDATE:20250101T000000"'), 8, "never comes", "from 2020-01-01"),
    (schedule('rrule: "FREQ=DAILY;INTERVAL=0"'), 8, "INTERVAL", "1 or more"),
    (schedule('rrule: "FREQ=DAILY;UNTIL=29990101T000000Z"'), 8, "UNTIL", "without the Z"),
    (schedule("interval: 0"), 8, "interval", "greater than 0"),
    (schedule("interval: -5"), 8, "interval", "greater than 0"),
    (schedule("interval: 0.001"), 8, "interval: 0.001 is refused", "seconds"),
    (schedule("interval: 60, anchor_date: soon"), 8, "soon", "Correct it"),
    (
        schedule("interval: 86400, anchor_date: '2026-07-01T05:00:00', timezone: Europe/Berlin"),
        8,
        "would take it as UTC, not Europe/Berlin",
        'Write `anchor_date: "2026-07-01T05:00:00+02:00"`',
    ),
    (
        schedule("interval: 86400, anchor_date: '2026-01-01', timezone: Europe/Berlin"),
        8,
        "anchor_date: 2026-01-01 has no offset",
        'Write `anchor_date: "2026-01-01T00:00:00+01:00"`',
    ),
    (
        schedule("interval: 86400, anchor_date: 2026-07-01T05:00:00Z, timezone: Europe/Berlin"),
        8,
        "not in quotes",
        'Write `anchor_date: "2026-07-01T05:00:00+00:00"`',
    ),
    (schedule("interval: 60, anchor_date: 2026-01-01"), 8, "not in quotes", "2026-01-01T00:00"),
    (schedule("interval: 60, day_or: false"), 8, "day_or", "only with `cron:`"),
    (schedule('cron: "0 5 * * *", anchor_date: 2026-01-01'), 8, "anchor", "only with `interval:`"),
    (schedule('cron: "0 5 * * *", timezone: Europe/Londn'), 8, "Europe/Londn", "Correct it"),
    (schedule('rrule: "FREQ=DAILY", timezone: Europe/Londn'), 8, "Europe/Londn", "Correct it"),
    (schedule('cron: "0 5 * * *", timezone: ""'), 8, "timezone is empty", "UTC"),
]


@pytest.mark.parametrize(
    ("text", "line", "what", "remedy"),
    [pytest.param(*row, id=f"{number}-{row[2]}") for number, row in enumerate(BROKEN)],
)
def test_a_problem_is_reported_with_its_line_and_its_remedy(
    check: Check, text: str, line: int, what: str, remedy: str
) -> None:
    said = [each for each in check(text) if each.startswith(f"prefect.yaml:{line}: ")]
    assert any(what in each and remedy in each for each in said), check(text)


BROKEN_AUTOMATIONS = [
    ("automatons: []\n", 1, "automatons", "automations may be meant"),
    (AUTOMATION.replace("trigger:", "triger:"), 3, "triger", "trigger may be meant"),
    (AUTOMATION.replace("match:", "matchh:"), 5, "matchh", "match may be meant"),
    (AUTOMATION.replace("match:", "matchh:"), 4, "match is empty", "Name what it is for"),
    (AUTOMATION.replace("[prefect.flow-run.Late]", "[]"), 4, "expect is empty", "Name"),
    (AUTOMATION.replace("block:", "blok:"), 8, "blok", "block may be meant"),
    (AUTOMATION.replace("custom-webhook/", ""), 8, "'webhook'", "write type/name"),
    (AUTOMATION.replace("send-notification", "send-message"), 7, "'send-message'", "Known"),
    (AUTOMATION.replace("        body: late\n", ""), 7, "body", "Correct it"),
    (AUTOMATION.partition("    actions")[0], 2, "actions is empty", "name at least"),
    (AUTOMATION + AUTOMATION.partition("\n")[2], 10, "'late'", "Give it its own"),
    (AUTOMATION + "    owner_resource: x\n", 10, "owner_resource", "there is no such key"),
    (AUTOMATION + '    enabled: "no"\n', 10, "enabled: 'no'", "true or false"),
    (AUTOMATION.replace("match:", "threshold: 0\n      match:"), 5, "threshold: 0", "1 or more"),
    ("automations: {name: late}\n", 1, "automations must be a list", "`- `"),
    (AUTOMATION + "    for_each_scheduled: watched\n", 2, "would share it", "{{ scheduled.name }}"),
    (AUTOMATION + "    for_each_scheduled: watched\n", 4, "within is missing", "the seconds"),
    (AUTOMATION + "    for_each_scheduled: []\n", 10, "for_each_scheduled: []", "`watched`"),
]


@pytest.mark.parametrize(
    ("text", "line", "what", "remedy"),
    [pytest.param(*row, id=f"{number}-{row[2]}") for number, row in enumerate(BROKEN_AUTOMATIONS)],
)
def test_automations_are_checked_as_strictly(
    check: Check, text: str, line: int, what: str, remedy: str
) -> None:
    where = f"deployments/automations.yaml:{line}: "
    said = [each for each in check(HEAD, text) if each.startswith(where)]
    assert any(what in each and remedy in each for each in said), check(HEAD, text)


def test_right_files_have_no_problem(check: Check) -> None:
    schedule = [
        '  - {slug: a, cron: "0 5 * * 1-5", timezone: Europe/London, parameters: {days: 2}}'
    ]
    pool = ["work_pool:", "  job_variables: {image: shop, env: {SECONDS: '3', TOKEN: ''}}"]
    assert check(below(HEAD, "schedules:", *schedule, *pool), AUTOMATION) == []
    assert check(trigger(MATCHED, EXPECTED, "parameters: {}").replace("parameters: {}", "")) == []


@pytest.mark.parametrize(
    "fields",
    [
        'cron: "0 5 29 2 *"',  # every fourth year
        'cron: "0 5 1 2 1"',  # the first and Mondays in February
        'cron: "@daily"',
        'cron: "0 5 * * 5#2", day_or: false, active: false',
        'cron: "0 5 * * *", active: "{{ prefect.variables.active }}"',
        "interval: 1, active: true",
        'interval: "PT1H", anchor_date: "2026-01-01"',
        'interval: 86400, anchor_date: "2026-07-01T05:00:00Z", timezone: Europe/Berlin',
        'interval: 86400, anchor_date: "2026-07-01T05:00:00+00:00", timezone: Europe/Berlin',
        'interval: 86400, anchor_date: "2026-07-01T05:00:00-04:00", timezone: Europe/Berlin',
        'interval: 86400, anchor_date: "2026-01-01T05:00:00", timezone: Europe/London',  # is UTC
        'interval: "01:30:00"',
        'rrule: "FREQ=WEEKLY;BYDAY=MO;BYHOUR=6;BYMINUTE=0"',
        'rrule: "FREQ=MINUTELY;INTERVAL=7;BYDAY=TU"',
        'rrule: "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;UNTIL=29990101T000000"',
        'rrule: "DTSTART:29980101T000000\\nRRULE:FREQ=DAILY;COUNT=3"',
        'rrule: "RDATE:29990101T000000Z"',
        """rrule: '{"rrule": "FREQ=DAILY"}'""",
    ],
)
def test_a_schedule_that_comes_is_accepted(check: Check, fields: str) -> None:
    assert check(schedule(fields)) == []


def test_what_is_written_as_it_should_be_is_accepted(check: Check) -> None:
    counted = limit("{limit: 2, collision_strategy: ENQUEUE, grace_period_seconds: 60}")
    assert check(counted + "    paused: true\n    enforce_parameter_schema: false\n") == []
    assert check(trigger(*COMPOUND, "within: 0", "enabled: false")) == []
    silence = ["posture: Proactive", "within: 10", "threshold: 2", "schedule_after: 5"]
    assert check(trigger(MATCHED, EXPECTED, *silence)) == []


def test_all_problems_of_both_files_are_reported_at_once_in_order(check: Check) -> None:
    said = check(
        below(HEAD, "retries: 3", "paused: perhaps", "work_pool: {nam: x}"),
        AUTOMATION.replace("match:", "matchh:"),
    )
    places = [each.partition(" ")[0] for each in said]
    own, automations = "prefect.yaml", "deployments/automations.yaml"
    assert places == [f"{own}:{n}:" for n in (7, 8, 9)] + [f"{automations}:{n}:" for n in (4, 5)]


def test_a_problem_in_an_anchor_is_reported_once_at_its_own_line(check: Check) -> None:
    head = "definitions:\n  shared: &shared\n    retrys: 3\n    tags: [shop]\n"
    entry = "  - <<: *shared\n    name: {}\n    entrypoint: jobs.py:tell\n"
    said = check(f"name: shop\n{head}deployments:\n{entry.format('a')}{entry.format('b')}")
    assert [each.split()[0:2] for each in said] == [["prefect.yaml:4:", "retrys:"]]


def test_a_key_beside_a_merge_counts_more_than_the_merged_one(check: Check) -> None:
    head = "definitions:\n  shared: &shared {tags: [other], paused: perhaps}\n"
    entry = "  - {<<: *shared, name: a, entrypoint: 'jobs.py:tell', tags: [shop], paused: true}\n"
    assert check(f"name: shop\n{head}deployments:\n{entry}") == []


def test_values_are_read_as_prefect_reads_them(check: Check) -> None:
    """By YAML 1.1, where `yes` is true, and where a key may be a day or a truth value."""
    assert check(below(HEAD, "paused: yes")) == []
    said = check(below(HEAD, "2026-01-31: x", "on: {token: a}"))
    assert [each.split()[:2] for each in said] == [
        ["prefect.yaml:3:", "True:"],
        ["prefect.yaml:7:", "2026-01-31:"],
    ]


def test_a_day_may_be_written_without_quotes(check: Check) -> None:
    assert check(HEAD.replace("source: shop", "source: shop, since: 2026-01-31")) == []


def test_the_environment_is_filled_in_before_values_are_judged(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = below(HEAD, "schedules:", '  - {slug: a, cron: "{{ $SHOP_CRON }}"}')
    monkeypatch.setenv("SHOP_CRON", "0 5 * * *")
    assert check(text) == []
    monkeypatch.setenv("SHOP_CRON", "at noon")
    assert "at noon" in check(text)[0]


def test_pull_steps_may_name_what_only_the_worker_knows(check: Check) -> None:
    step = "pull:\n  - prefect.deployments.steps.set_working_directory:\n      directory: "
    assert "NO_SUCH_VARIABLE" not in os.environ
    assert check(f'{HEAD}{step}"{{{{ $NO_SUCH_VARIABLE }}}}"\n') == []
    address = "https://me:{{ prefect.blocks.secret.git-token }}@host/"
    assert check(f'{HEAD}{step}"{address}"\n') == []


def test_a_secret_s_value_is_not_repeated_in_the_message(check: Check) -> None:
    said = check(below(HEAD, "description: http://me:canary-1@host/", "parameters: {}"))
    said += check(HEAD.replace("{source: shop}", "{source: shop, retry: {api_key: canary-2}}"))
    assert len(said) >= 2
    assert "canary" not in " ".join(said)
