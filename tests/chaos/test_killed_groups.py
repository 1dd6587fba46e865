"""A run of many partitions that is killed with eight of them under way, at whatever step.

The next run loads what is missing, and nothing twice: each partition is due until its rows and its
checkpoint are committed. By default a few kills are tested; with CHAOS=full every occurrence of
each step, before and after.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from conftest import IS_FULL, rows
from sqlalchemy.engine import URL

from deployments.local.postgres import libpq
from tests.chaos.group_victim import LARGE, PARTITIONS, STEPS, TOKENS, account_of, order, run
from tests.chaos.processes import was_killed
from tests.chaos.victim import Death, Moment
from tests.http_servers import Answer, Asked, Server

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 30
FEW = [
    Death("after", "commit", 4),
    Death("before", "flush", 2),
    Death("after", "remember", 3),
    Death("before", "page", 20),
    Death("after", "alone", 1),
    Death("before", "end", 1),
]
ALL = [*product(get_args(Moment), STEPS)] if IS_FULL else []
TABLE = 'select account, "order", line, amount from raw_shop.lines order by 2, 3'
CHECKPOINTS = (
    "select partition::int, parent_load_id, resume is null from elt.checkpoints order by 1"
)
LOADED = (
    "select sum(partitions) from elt.loads where is_group or state = 'succeeded'"
    " or (partition <> '' and load_id in (select load_id from elt.checkpoints))"
)


def lines_of(order: int) -> list[int]:
    """How many lines the pages of an order have."""
    return [20] * 6 if order == LARGE else [order % 4, 2] if order % 5 == 0 else [order % 4]


def answer(asked: Asked) -> Answer:
    path, _, page = asked.partition("?page=")
    if path == "/orders":
        return answer_orders(asked.headers["Authorization"], int(page or 0))
    order, number = int(path.split("/")[2]), int(page or 0)
    if asked.headers["Authorization"] != f"Bearer {TOKENS[account_of(order)]}":
        return Answer(status=401)
    counts = lines_of(order)
    first = sum(counts[:number])
    lines = [
        {"line": n, "amount": order * 100 + n, "note": "x" * 50}
        for n in range(first, first + counts[number])
    ]
    more = f"lines?page={number + 1}" if number + 1 < len(counts) else None
    return Answer(json.dumps({"rows": lines, "next": more}).encode())


def answer_orders(login: str, page: int) -> Answer:
    """Three pages of one order each, by whoever asks; both accounts have the same ids."""
    found = [account for account, token in TOKENS.items() if login == f"Bearer {token}"]
    more = f"orders?page={page + 1}" if page < 2 else None
    row = {"id": page, "of": found[0] if found else None}
    return Answer(json.dumps({"rows": [row], "next": more}).encode())


WANTED = [
    (account_of(order), order, line, order * 100 + line)
    for order in range(PARTITIONS)
    for line in range(sum(lines_of(order)))
]


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve(answer)


def kill(death: Death, database: URL, api_url: str, version: int) -> bool:
    """Run in a process of its own until this death; False when it ended before."""
    argument = order(libpq(database), api_url, version, death)
    command = [sys.executable, "-m", "tests.chaos.group_victim", argument]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    return was_killed(process, database, DEADLINE_SECONDS)


def dies(death: Death, database: URL, api_url: str) -> bool:
    """Kill a run and check that the next one completes it; False when it ended before."""
    rows(database, "drop schema if exists elt, raw_shop cascade")
    killed = kill(death, database, api_url, 1)
    assert run(libpq(database), api_url, 1) == []
    assert rows(database, TABLE) == WANTED, death
    assert rows(database, CHECKPOINTS) == [(n, 1, True) for n in range(PARTITIONS)], death
    assert rows(database, LOADED) == [(PARTITIONS,)], death
    [*_, last] = rows(database, "select state from elt.loads where is_group order by load_id")
    assert last == ("succeeded",)
    return killed


@pytest.mark.sampled(3)
@pytest.mark.parametrize("death", FEW, ids=str)
def test_a_run_killed_at_a_step_is_completed_by_the_next(
    death: Death, database: URL, server: Server
) -> None:
    assert dies(death, database, server.url), "the run took fewer steps of this kind"


@pytest.mark.parametrize(("moment", "step"), ALL, ids=str)
def test_a_run_killed_at_any_step_is_completed_by_the_next(
    moment: Moment, step: str, database: URL, server: Server
) -> None:
    """At every occurrence of the step; beyond the last one, the run is undisturbed."""
    times = 1
    while dies(Death(moment, step, times), database, server.url):
        times += 1
    assert times > 1, "no run takes this step"


def test_a_changed_parent_makes_its_children_due_again(database: URL, server: Server) -> None:
    assert run(libpq(database), server.url, 1) == []
    before = len(server.asked)
    assert run(libpq(database), server.url, 1) == []
    assert len(server.asked) == before
    assert run(libpq(database), server.url, 2) == []
    assert len(server.asked) == 2 * before


@pytest.mark.parametrize(
    ("death", "pages_kept"),
    [(Death("before", "remember one", 5), 1), (Death("before", "remember one", 6), 2)],
    ids=str,
)
def test_a_run_killed_within_its_second_account_goes_on_there_as_that_account(
    death: Death, pages_kept: int, database: URL, server: Server
) -> None:
    """The first account, which was complete, is read once more; no row is of the other one."""
    assert kill(death, database, server.url, 0)
    server.asked.clear()
    assert run(libpq(database), server.url, 0) == []
    asked = [(each.headers["Authorization"], int(each[-1])) for each in server.asked[1:]]
    even, odd = (f"Bearer {token}" for token in TOKENS.values())
    first_of_odd = [(odd, page) for page in range(pages_kept, 3)]
    assert asked == [(even, 1), (even, 2), *first_of_odd]
    found = rows(database, "select account, id::int, of from raw_shop.orders order by 1, 2")
    assert found == [(account, page, account) for account in TOKENS for page in range(3)]
