"""A load that is killed, at whatever step, and run again ends with the same table.

The load runs in its own process against a server of this one and ends by SIGKILL. By default a few
kills of every kind are tested; with CHAOS=full every occurrence of each step of each load, before
and after.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from itertools import count, product
from pathlib import Path
from typing import Any, get_args

import psycopg2
import pytest
from conftest import IS_FULL, rows
from sqlalchemy.engine import URL

from deployments.local.postgres import ensure_database, libpq
from flows.load.ledger import Entry
from tests.chaos.outcomes import Outcome, assert_adds_up, entries, outcome
from tests.chaos.processes import was_killed
from tests.chaos.scenarios import Scenario
from tests.chaos.victim import STEPS, Death, Moment, order
from tests.http_servers import Answer, Server

pytestmark = pytest.mark.no_ledger
ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 30
LONGER_SECONDS = 0.05

WAYS = {
    "merge_new": ("merge", False),
    "merge_changed": ("merge", True),
    "append": ("append", False),
    "replace": ("replace", True),
}
REFUSED = {("append", "numbers"), ("append", "tokens"), ("replace", "tokens")}
SCENARIOS = {
    f"{way}-{paging.replace(' ', '_')}": Scenario(writes, paging, pages, loaded_before)
    for (way, (writes, loaded_before)), (paging, pages) in product(
        WAYS.items(),
        [
            ("next url", 7),
            ("steps", 7),
            ("stamps", 7),
            ("numbers", 7),
            ("tokens", 7),
            ("one page", 1),
            ("ahead", 7),
        ],
    )
    if (writes, paging) not in REFUSED
}
EVEN = {
    f"{way}-even": Scenario(writes, pages=8, loaded_before=loaded_before)
    for way, (writes, loaded_before) in WAYS.items()
}
DELETIONS = {
    "list": Scenario("replace", loaded_before=True, deletes="list"),
    "tombstones": Scenario("merge", loaded_before=True, deletes="tombstones"),
}
LONG = {
    f"{way}-long": Scenario(writes, pages=60, loaded_before=loaded_before)
    for way, (writes, loaded_before) in WAYS.items()
}
BY_NAME = SCENARIOS | EVEN | DELETIONS | LONG

FEW = [
    ("merge_new-next_url", Death("before", "commit", 5)),
    ("merge_new-next_url", Death("after", "commit", 5)),
    ("merge_new-even", Death("after", "commit", 7)),
    ("merge_new-even", Death("before", "key", 1)),
    ("merge_new-steps", Death("after", "key", 1)),
    ("merge_changed-next_url", Death("after", "flush", 3)),
    ("merge_changed-steps", Death("before", "remember", 2)),
    ("merge_new-ahead", Death("before", "commit", 5)),
    ("merge_changed-ahead", Death("before", "page", 6)),
    ("merge_new-numbers", Death("after", "commit", 5)),
    ("merge_changed-numbers", Death("before", "remember", 2)),
    ("merge_new-tokens", Death("after", "page", 7)),
    ("merge_changed-tokens", Death("before", "remember", 2)),
    ("merge_changed-tokens", Death("before", "commit", 6)),
    ("merge_changed-stamps", Death("before", "commit", 5)),
    ("append-stamps", Death("after", "commit", 5)),
    ("append-ahead", Death("after", "commit", 5)),
    ("append-ahead", Death("after", "page", 4)),
    ("append-next_url", Death("after", "copy", 3)),
    ("append-steps", Death("before", "page", 6, in_lockstep=True)),
    ("append-steps", Death("after", "end", 1)),
    ("append-even", Death("after", "commit", 7)),
    ("append-one_page", Death("after", "remember", 1)),
    ("replace-next_url", Death("after", "flush", 1)),
    ("replace-steps", Death("after", "commit", 6)),
    ("replace-one_page", Death("after", "begin", 1)),
    ("list", Death("after", "flush", 1)),
    ("tombstones", Death("after", "flush", 3)),
]


def takes(scenario: Scenario, step: str) -> bool:
    """Whether such a load has the step: into a new table rows go straight."""
    if step == "direct":
        return not scenario.loaded_before
    if step == "flush":
        return scenario.loaded_before
    return True


ALL = [
    (name, moment, step)
    for name, moment, step in product(SCENARIOS | EVEN | DELETIONS, get_args(Moment), STEPS)
    if takes(BY_NAME[name], step)
]


@dataclass(frozen=True)
class Shop:
    """Where a test's loads read and write, and what an undisturbed one came to."""

    scenario: Scenario
    server: Server
    database: URL
    whole: Entry
    wanted: Outcome

    def prepare(self) -> int:
        """Bring the database to where the killed load begins; the number of its newest load."""
        return prepare(self.scenario, self.server.url, self.database)

    def start(self, death: Death | None = None) -> subprocess.Popen[bytes]:
        """Start the load in a process of its own."""
        argument = order(libpq(self.database), self.server.url, self.scenario, death)
        command = [sys.executable, "-m", "tests.chaos.victim", argument]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)

    def end(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the process and its session to end; whether it was killed."""
        return was_killed(process, self.database, DEADLINE_SECONDS)

    def wait_until_asked(self, process: subprocess.Popen[bytes]) -> None:
        """Return when the process has requested its first page."""
        already = len(self.server.asked)
        while len(self.server.asked) == already and process.poll() is None:
            time.sleep(0.001)

    def load(self) -> tuple[Entry, list[str]]:
        """Run the load undisturbed; its entry and its requests."""
        return load_whole(self.scenario, self.server.url, self.database)

    def dies(self, death: Death) -> bool:
        """Kill a load and check that the next one completes it; False when it ended before."""
        after = self.prepare()
        old = self.scenario.loaded_before and outcome(self.database)
        if not self.end(self.start(death)):
            assert outcome(self.database) == self.wanted, death
            return False
        killed = entries(self.database, after)
        states = [entry.state for entry in killed]
        assert states in ([], ["running"], ["succeeded"]), death
        if states == ["succeeded"]:
            self.is_complete(killed)
            return True
        if self.scenario.writes == "replace":
            assert outcome(self.database) == old, death
        committed = killed[0].pages if killed else 0
        _, asked = self.load()
        assert asked == list(self.scenario.site())[committed:], death
        assert outcome(self.database) == self.wanted, death
        found = entries(self.database, after)
        assert [entry.state for entry in found] == ["abandoned"] * len(killed) + ["succeeded"]
        assert_adds_up(found, self.whole, self.scenario)
        return True

    def is_complete(self, found: list[Entry]) -> None:
        """Check a load that died after its last commit.

        To load again is then another load. Without a key that appends the same rows once more.
        """
        assert outcome(self.database) == self.wanted
        assert_adds_up(found, self.whole, self.scenario)
        if self.scenario.writes != "append":
            self.load()
            assert outcome(self.database) == self.wanted


def prepare(scenario: Scenario, api_url: str, database: URL) -> int:
    """Empty the database, and load the old edition where the scenario has one: its number."""
    rows(database, "drop schema if exists elt, raw_shop cascade")
    if not scenario.loaded_before:
        return 0
    with closing(psycopg2.connect(libpq(database))) as connection:
        return scenario.load(connection, api_url, "old").load_id


def load_whole(scenario: Scenario, api_url: str, database: URL) -> tuple[Entry, list[str]]:
    """Load the new edition in this process; the ledger entry and the requests."""
    asked: list[str] = []
    with closing(psycopg2.connect(libpq(database))) as connection:
        return scenario.load(connection, api_url, asked=asked), asked


References = dict[Scenario, tuple[Entry, Outcome]]


@pytest.fixture(scope="module")
def references() -> References:
    """The results of the undisturbed loads so far."""
    return {}


@pytest.fixture
def shop(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    serve: Callable[..., Any],
    postgres_server: URL,
    database: URL,
    references: References,
) -> Shop:
    """The scenario of that name; loaded once, without disturbance, into another database."""
    scenario: Scenario = BY_NAME[request.param]
    site = scenario.later() | scenario.site("old") | scenario.site()
    monkeypatch.setattr(BaseHTTPRequestHandler, "disable_nagle_algorithm", True)
    server = serve(lambda path: Answer(site[path]))
    if scenario not in references:
        other = ensure_database(postgres_server, f"undisturbed_{len(references)}")
        prepare(scenario, server.url, other)
        entry, asked = load_whole(scenario, server.url, other)
        assert asked == list(scenario.site())
        has_new_column = scenario.loaded_before and scenario.pages > 1
        assert len(outcome(other).untold) == has_new_column
        references[scenario] = entry, outcome(other)
    return Shop(scenario, server, database, *references[scenario])


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("shop", "death"), FEW, indirect=["shop"], ids=str)
def test_a_load_killed_at_a_step_goes_on_to_the_same_table(shop: Shop, death: Death) -> None:
    assert shop.dies(death), "the load took fewer steps of this kind"


@pytest.mark.parametrize(
    ("shop", "moment", "step"), ALL if IS_FULL else (), indirect=["shop"], ids=str
)
def test_a_load_killed_at_any_step_goes_on_to_the_same_table(
    shop: Shop, moment: Moment, step: str
) -> None:
    """At every occurrence of the step; beyond the last one, the load is undisturbed."""
    times = 1
    while shop.dies(Death(moment, step, times, in_lockstep=step == "page")):
        times += 1
    assert times > 1, "no load takes this step"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10 if IS_FULL else 1))
@pytest.mark.parametrize(
    "shop", LONG if IS_FULL else ["merge_changed-long", "append-long"], indirect=True
)
def test_a_load_killed_at_random_moments_until_it_completes(shop: Shop, seed: int) -> None:
    """Each round may live longer than the one before; otherwise a replace would never end."""
    moments = random.Random(seed)  # noqa: S311 - not a secret
    after = shop.prepare()
    deaths = 0
    for number in count(1):
        process = shop.start()
        shop.wait_until_asked(process)
        time.sleep(moments.uniform(0, number * LONGER_SECONDS))
        process.kill()
        was_killed = shop.end(process)
        found = entries(shop.database, after)
        if found[-1].state == "succeeded":
            break
        assert was_killed
        deaths += 1
    assert deaths, "nothing was killed"
    assert {entry.state for entry in found[:-1]} == {"abandoned"}
    assert_adds_up(found, shop.whole, shop.scenario)
    assert outcome(shop.database) == shop.wanted
