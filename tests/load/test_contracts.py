"""Promises of contracts: how records are treated that need a change of their raw table."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection

from flows.errors import BadPayloadError, ConfigurationError
from flows.load.options import LoadOptions
from flows.source import Partition
from tests.load.memory_api import WAYS, MemoryApi, in_python, items, load_api, load_pages

Query = Callable[..., list[tuple[Any, ...]]]

IDS = "select id from raw_shop.items order by id"
TYPES = (
    "select column_name, data_type from information_schema.columns"
    " where table_schema = 'raw_shop' and column_name not like '\\_%%' order by ordinal_position"
)
CHANGES = "select column_name, old_type, new_type from elt.schema_changes order by 1, 3"
REJECTS = "select reason, record::jsonb from elt.rejects order by reject_id"
STATES = "select state, extracted, inserted, rejected from elt.loads order by load_id"

FIRST = {"id": 1, "n": 1, "f": 0.5, "t": "a", "nothing": None}
SHAPE = [
    ("id", "bigint"), ("n", "bigint"), ("f", "double precision"), ("t", "text"), ("nothing", "text")
]  # fmt: skip

NEW = ({"new": 5}, 'the new column "new" (bigint)')
DIFFERENCES = [
    pytest.param(*NEW, id="a new column"),
    pytest.param({"new": None}, 'the new column "new" (text)', id="a new column of nulls only"),
    pytest.param({"new": [5]}, 'the new column "new" (jsonb)', id="a new nested column"),
    pytest.param({"n": 1.5}, '"n" from bigint to double precision', id="a wider number"),
    pytest.param({"n": 2**63}, '"n" from bigint to text', id="a number too wide"),
    pytest.param({"n": "x"}, '"n" from bigint to text', id="a text among numbers"),
    pytest.param({"t": {"a": 1}}, '"t" from text to jsonb', id="an object among texts"),
    pytest.param({"nothing": 7}, '"nothing" from text to bigint', id="the first value ever"),
]
NO_DIFFERENCES = [
    pytest.param({"t": 5}, "t", "5", id="a number in a text column"),
    pytest.param({"t": True}, "t", "true", id="a boolean in a text column"),
    pytest.param({"f": 2}, "f", 2.0, id="a whole number among fractions"),
    pytest.param({"n": None}, "n", None, id="a null"),
    pytest.param({"nothing": "x"}, "nothing", "x", id="the first value of a text column"),
]
BY_WAY = pytest.mark.parametrize("way", WAYS)
DISPOSITIONS = ["merge", "append", "replace"]
BY_DISPOSITION = pytest.mark.parametrize("disposition", DISPOSITIONS)
EACH_WAY_TO_LOAD = pytest.mark.parametrize(
    ("difference", "said", "disposition", "way"),
    [
        *(pytest.param(*each.values, "merge", "fast", id=each.id) for each in DIFFERENCES),
        *(
            pytest.param(*NEW, disposition, way, id=f"{disposition}, {way} way")
            for disposition, way in product(DISPOSITIONS, WAYS)
        ),
    ],
)


def changed(number: int, difference: dict[str, Any]) -> dict[str, Any]:
    return {**FIRST, "id": number, **difference}


@BY_WAY
@pytest.mark.parametrize("contract", ["evolve", "freeze", "quarantine"])
@pytest.mark.parametrize("checkpoint_rows", [1, 100], ids=["many checkpoints", "one checkpoint"])
def test_the_first_load_shapes_the_table_whatever_the_contract(
    connection: Connection, query: Query, way: str, contract: str, checkpoint_rows: int
) -> None:
    declared = {"contract": contract, "records": WAYS[way], "checkpoint_rows": checkpoint_rows}
    pages = [[FIRST], [changed(2, {"n": 1.5, "new": 5})], [changed(3, {"t": ["x"]})]]
    assert load_pages(connection, *pages, **declared).state == "succeeded"
    types = dict(query(TYPES))
    assert (types["n"], types["new"], types["t"]) == ("double precision", "bigint", "jsonb")
    assert query(IDS) == [(1,), (2,), (3,)]


@pytest.mark.parametrize("contract", ["freeze", "quarantine"])
@pytest.mark.parametrize(
    "before", [[b"<html>"], [[]], [["no record"]]], ids=["broken", "empty", "rejects only"]
)
def test_a_load_that_stored_nothing_is_not_the_first(
    connection: Connection, contract: str, before: list[Any]
) -> None:
    try:
        load_pages(connection, *before, contract=contract, max_rejects=1)
    except BadPayloadError:
        assert before == [b"<html>"]
    assert load_pages(connection, [FIRST], contract=contract).inserted == 1


@pytest.mark.parametrize("contract", ["freeze", "quarantine"])
def test_a_first_load_that_resumes_after_a_failure_still_shapes_the_table(
    connection: Connection, query: Query, contract: str
) -> None:
    api = MemoryApi([[FIRST], [changed(2, {"new": 5})]])
    with pytest.raises(Exception, match="the API is away"):
        load_api(connection, MemoryApi(api.pages, fails_at=1), items(contract=contract))
    load_api(connection, api, items(contract=contract))
    assert query("select id, new from raw_shop.items order by id") == [(1, None), (2, 5)]


@pytest.mark.parametrize("contract", ["freeze", "quarantine"])
def test_a_load_without_records_beside_a_first_one_that_failed_is_not_the_first(
    connection: Connection, contract: str
) -> None:
    cities = tuple(Partition(name, {"city": name}) for name in ("Bonn", "Oslo"))
    declared: dict[str, Any] = {
        "partitions": cities,
        "key": ("city", "id"),
        "partition_columns": ("city",),
        "contract": contract,
    }
    with pytest.raises(BadPayloadError):
        load_pages(connection, [FIRST], b"<html>", partition=cities[0], **declared)
    load_pages(connection, [], partition=cities[1], **declared)
    pages = [[FIRST], [changed(2, {"new": 5})]]
    assert load_pages(connection, *pages, partition=cities[0], **declared).inserted == 1


@EACH_WAY_TO_LOAD
def test_evolve_changes_the_table_and_notes_it(
    connection: Connection,
    query: Query,
    difference: dict[str, Any],
    said: str,
    disposition: str,
    way: str,
) -> None:
    declared = {"records": WAYS[way], "disposition": disposition}
    load_pages(connection, [FIRST], **declared)
    assert query(TYPES) == SHAPE
    load_pages(connection, [changed(2, difference)], **declared)
    [(name, old, new)] = query(CHANGES)
    assert said in {f'the new column "{name}" ({new})', f'"{name}" from {old} to {new}'}
    assert dict(query(TYPES))[name] == new


@EACH_WAY_TO_LOAD
def test_freeze_fails_with_the_difference_and_leaves_the_table_as_it_is(
    connection: Connection,
    query: Query,
    difference: dict[str, Any],
    said: str,
    disposition: str,
    way: str,
) -> None:
    declared = {"contract": "freeze", "records": WAYS[way], "disposition": disposition}
    load_pages(connection, [FIRST], **declared)
    with pytest.raises(BadPayloadError) as failure:
        load_pages(connection, [changed(2, difference)], **declared)
    for word in ('"raw_shop"."items" is frozen', said, "alter the table", "contract `evolve`"):
        assert word in str(failure.value)
    assert (query(TYPES), query(IDS), query(CHANGES), query(REJECTS)) == (SHAPE, [(1,)], [], [])
    assert query("select error from elt.loads where load_id = 2") == [(str(failure.value),)]


@EACH_WAY_TO_LOAD
def test_quarantine_sets_the_record_aside_and_loads_all_others(
    connection: Connection,
    query: Query,
    difference: dict[str, Any],
    said: str,
    disposition: str,
    way: str,
) -> None:
    declared = {
        "contract": "quarantine",
        "records": WAYS[way],
        "disposition": disposition,
        "max_rejects": 1,
        "checkpoint_rows": 3,
    }
    load_pages(connection, [FIRST], **declared)
    records = [changed(1, {}), changed(2, difference), changed(3, {})]
    again = [[record] for record in records[disposition == "append" :]]
    assert load_pages(connection, *again, **declared).rejected == 1
    assert (query(TYPES), query(IDS), query(CHANGES)) == (SHAPE, [(1,), (3,)], [])
    assert query(REJECTS) == [(f"would need {said}", records[1])]


def test_quarantine_finds_the_records_among_their_page(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [FIRST])
    page = [changed(n, {"new": n} if n in {3, 50, 99} else {}) for n in range(2, 100)]
    entry = load_pages(connection, page, contract="quarantine", max_rejects=3)
    assert (entry.inserted, entry.rejected) == (95, 3)
    assert [record["id"] for _, record in query(REJECTS)] == [3, 50, 99]


@pytest.mark.parametrize(("max_rejects", "state"), [(1, "failed"), (2, "succeeded")])
def test_max_rejects_decides_whether_a_load_with_a_quarantine_fails(
    connection: Connection, query: Query, max_rejects: int, state: str
) -> None:
    load_pages(connection, [FIRST])
    page = [changed(2, {"new": 1}), changed(3, {}), changed(4, {"n": "x"})]
    try:
        load_pages(connection, page, contract="quarantine", max_rejects=max_rejects)
    except BadPayloadError as error:
        assert "2 records could not be stored, the first because it would need" in str(error)
    assert query(STATES)[1:] == [(state, 3, 1, 2)]
    assert query(IDS) == [(1,), (3,)]


def test_a_quarantine_of_everything_is_a_configuration_error(
    connection: Connection, query: Query
) -> None:
    load_pages(connection, [FIRST])
    page = [changed(n, {"new": 1}) for n in range(200)]
    with pytest.raises(ConfigurationError, match=r"101 records can't be stored.*`contract`"):
        load_pages(connection, page, contract="quarantine")
    assert (query(IDS), query(REJECTS)) == ([(1,)], [])


@BY_WAY
@pytest.mark.parametrize("contract", ["freeze", "quarantine"])
@pytest.mark.parametrize(("values", "column", "stored"), NO_DIFFERENCES)
def test_what_the_table_holds_as_it_is_passes_every_contract(
    connection: Connection,
    query: Query,
    values: dict[str, Any],
    column: str,
    stored: Any,
    contract: str,
    way: str,
) -> None:
    declared = {"contract": contract, "records": WAYS[way]}
    load_pages(connection, [FIRST], **declared)
    load_pages(connection, [changed(2, values)], **declared)
    kept = query("select to_jsonb(items) -> %s from raw_shop.items where id = 2", column)
    assert kept == [(stored,)]
    assert (query(TYPES), query(CHANGES)) == (SHAPE, [])


def test_a_field_that_is_gone_passes_every_contract(connection: Connection, query: Query) -> None:
    for contract in ("evolve", "freeze", "quarantine"):
        load_pages(connection, [FIRST], [{"id": 2}], contract=contract)
    assert query("select id, n from raw_shop.items order by id") == [(1, 1), (2, None)]


@BY_DISPOSITION
def test_freeze_keeps_earlier_checkpoints_and_nothing_of_the_failing_one(
    connection: Connection, query: Query, disposition: str
) -> None:
    """A replace has no checkpoints: its table stays as it was."""
    declared: dict[str, Any] = {"contract": "freeze", "disposition": disposition}
    load_pages(connection, [FIRST], **declared)
    pages = [[changed(2, {})], [changed(3, {}), changed(4, {"new": 1})], [changed(5, {})]]
    with pytest.raises(BadPayloadError, match="is frozen"):
        load_pages(connection, *pages, **declared)
    assert query(IDS) == [(1,)] if disposition == "replace" else [(1,), (2,)]
    api = MemoryApi(pages)
    load_api(connection, api, items(**declared | {"contract": "evolve"}))
    assert api.asked[0][1] is None if disposition == "replace" else api.asked[0][1] is not None
    assert query(IDS)[-4:] == [(2,), (3,), (4,), (5,)]


def test_full_refresh_is_held_to_the_contract_too(connection: Connection, query: Query) -> None:
    load_pages(connection, [FIRST])
    anew = LoadOptions(full_refresh=True)
    with pytest.raises(BadPayloadError, match="is frozen"):
        load_pages(connection, [changed(2, {"new": 1})], contract="freeze", options=anew)
    assert query(IDS) == [(1,)]


def test_a_frozen_table_that_was_altered_takes_the_records(
    connection: Connection, query: Query
) -> None:
    """As the error's message promises."""
    load_pages(connection, [FIRST])
    query('alter table raw_shop.items add column "new" bigint, alter n type double precision')
    page = [changed(2, {"new": 5}), changed(3, {"n": 1.5})]
    assert load_pages(connection, page, contract="freeze").inserted == 2


def test_one_load_with_evolve_accepts_a_difference_for_good(connection: Connection) -> None:
    load_pages(connection, [FIRST], contract="freeze")
    load_pages(connection, [changed(2, {"new": 5})], contract="evolve")
    assert load_pages(connection, [changed(3, {"new": 6})], contract="freeze").inserted == 1


@pytest.mark.parametrize("contract", ["freeze", "quarantine"])
def test_a_pin_that_stays_is_no_difference(
    connection: Connection, query: Query, contract: str
) -> None:
    declared: dict[str, Any] = {"contract": contract, "columns": {"n": "numeric(8,2)", "t": "date"}}
    for number, (n, t) in enumerate([(1, "2024-01-01"), (1.5, None), ("2.25", "2024-01-02")]):
        load_pages(connection, [{"id": number, "n": n, "t": t}], **declared)
    assert query(TYPES) == [("id", "bigint"), ("n", "numeric"), ("t", "date")]


def test_a_pin_that_changes_is_a_difference(connection: Connection) -> None:
    load_pages(connection, [FIRST])
    with pytest.raises(BadPayloadError, match=r'"n" from bigint to numeric\(8,2\)'):
        load_pages(connection, [changed(2, {})], contract="freeze", columns={"n": "numeric(8,2)"})


def test_a_value_that_does_not_fit_its_pin_is_rejected_even_by_a_frozen_table(
    connection: Connection, query: Query
) -> None:
    declared = {"contract": "freeze", "columns": {"t": "date"}, "max_rejects": 1}
    load_pages(connection, [{"id": 1, "t": "2024-01-01"}], **declared)
    load_pages(connection, [{"id": 2, "t": "soon"}, {"id": 3, "t": "2024-01-03"}], **declared)
    assert query(IDS) == [(1,), (3,)]
    assert "soon" in query(REJECTS)[0][0]


def test_partitions_share_their_tables_contract(connection: Connection, query: Query) -> None:
    cities = tuple(Partition(name, {"city": name}) for name in ("Bonn", "Oslo"))
    declared: dict[str, Any] = {
        "key": ("city", "id"),
        "partitions": cities,
        "partition_columns": ("city",),
        "contract": "quarantine",
        "max_rejects": 1,
        "records": in_python,
    }
    load_pages(connection, [{"id": 1}], partition=cities[0], **declared)
    entry = load_pages(connection, [{"id": 1}, {"id": 2, "x": 1}], partition=cities[1], **declared)
    assert (entry.inserted, entry.rejected) == (1, 1)
    assert query("select record from elt.rejects") == [('{"id": 2, "x": 1}',)]
