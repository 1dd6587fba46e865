"""A declaration that would lose rows, mix them up or load nothing is refused when it is made."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from flows.errors import ConfigurationError
from flows.extract.paginators import keyset, offset, page_number
from flows.extract.selectors import records_at
from flows.guards import with_guards
from flows.source import Cursor, Partition, Resource, RowsOf, Source, product


def resource(name: str = "orders", **declared: Any) -> Resource:
    given = {"path": "orders", "records": records_at(), "key": ("id",), **declared}
    return Resource(name, **given)


def by(parent: str, *columns: str) -> dict[str, Any]:
    """Partitions by rows of a parent, with the columns that distinguish them."""
    named = dict.fromkeys(columns or ("parent",), "id")
    return {
        "key": (*named, "id"),
        "partitions": RowsOf(parent, named),
        "partition_columns": tuple(named),
    }


def shop(*resources: Resource) -> Source:
    return Source("shop", "https://api.test/", resources)


def refusal(*resources: Resource) -> str:
    with pytest.raises(ConfigurationError) as failure:
        shop(*resources)
    return str(failure.value)


def test_two_resources_of_one_name_would_share_a_table() -> None:
    said = refusal(resource("orders"), resource("lines"), resource("orders", path="v2/orders"))
    assert "'shop'" in said
    assert "two resources 'orders'" in said
    assert "orders, lines, orders" in said


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="nothing"),
        pytest.param("Orders", id="upper case, which psql and dbt have to quote"),
        pytest.param("order lines", id="a space"),
        pytest.param("order-lines", id="a dash"),
        pytest.param("orders.lines", id="a dot, as between resource and partition"),
        pytest.param("2024", id="a digit first"),
        pytest.param("orders\n", id="a line's end"),
    ],
)
def test_a_resource_is_named_as_a_table_can_be(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not a valid raw table name") as failure:
        resource(name)
    assert repr(name) in str(failure.value)


@pytest.mark.parametrize("name", ["order", "user", "_2024", "größen"])
def test_what_postgres_can_name_a_table_is_a_name(name: str) -> None:
    assert shop(resource(name)).resource(name).name == name


@pytest.mark.parametrize("name", ["n" * 63, "ö" * 31 + "n"])
def test_names_that_differ_only_after_63_bytes_would_share_a_table(name: str) -> None:
    assert resource(name).name == name
    with pytest.raises(ConfigurationError, match=f"{name}x.* 64 bytes.* truncates .* 63"):
        resource(f"{name}x")


def test_a_source_whose_schema_postgres_would_cut_is_refused() -> None:
    assert Source("n" * 59, "https://api.test/", ()).name == "n" * 59
    with pytest.raises(ConfigurationError, match=f"raw_{'n' * 60}.* 64 bytes.* truncates .* 63"):
        Source("n" * 60, "https://api.test/", ())


def test_a_missing_parent_is_refused_instead_of_loading_nothing() -> None:
    said = refusal(resource("orders"), resource("lines", **by("order")))
    assert "lines" in said
    assert "takes its partitions from 'order'" in said
    assert "It has: orders, lines" in said


@pytest.mark.parametrize(
    "parents",
    [
        pytest.param({"lines": "lines"}, id="its own parent"),
        pytest.param({"lines": "notes", "notes": "lines"}, id="each other's"),
        pytest.param({"lines": "notes", "notes": "prices", "prices": "lines"}, id="three in a row"),
    ],
)
def test_a_circle_of_parents_can_never_be_loaded(parents: dict[str, str]) -> None:
    children = [resource(name, **by(parent)) for name, parent in parents.items()]
    said = refusal(resource("orders"), resource("refunds", **by("lines")), *children)
    assert " → ".join([*parents, "lines"]) in said


def test_a_long_line_of_parents_is_accepted() -> None:
    named = ["orders", "lines", "notes", "words"]
    children = [resource(name, **by(parent)) for parent, name in pairwise(named)]
    assert len(shop(*reversed(children), resource("orders")).resources) == 4


def test_partitions_by_rows_need_columns() -> None:
    with pytest.raises(ConfigurationError, match=r"RowsOf\('orders'\) names no columns"):
        RowsOf("orders", {})


LONDON, PARIS = (Partition(name, {"city": name}) for name in ("London", "Paris"))


@pytest.mark.parametrize(
    ("partitions", "known"),
    [
        pytest.param((LONDON, PARIS), "city", id="none has it"),
        pytest.param((LONDON,), "city", id="the only one lacks it"),
        pytest.param((LONDON, Partition("Rome", {"town": "Rome"})), "city", id="some lack it"),
        pytest.param((Partition(),), "no values", id="there are no partitions at all"),
        pytest.param(RowsOf("orders", {"order_id": "id"}), "order_id", id="rows of a parent"),
    ],
)
def test_a_partition_column_needs_a_value_in_each_partition(
    partitions: tuple[Partition, ...] | RowsOf, known: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"'town'.*They have: {known}"):
        resource(key=("town", "id"), partitions=partitions, partition_columns=("town",))


@pytest.mark.parametrize("named", ["key", "partition_columns"])
def test_one_name_without_its_comma_is_not_taken_for_letters(named: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{named}='city'.*Write {named}=\('city',\)"):
        resource(**{"partitions": (LONDON,), named: "city"})


@pytest.mark.parametrize("named", ["key", "partition_columns"])
def test_a_field_is_named_once(named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{named} names 'city' twice"):
        resource(**{"partitions": (LONDON,), named: ("city", "city")})


def test_resources_without_their_comma_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Write resources=\(…,\)"):
        Source("shop", "https://api.test/", resource())  # type: ignore[arg-type]


def test_combinations_with_one_name_are_refused_and_all_others_keep_theirs() -> None:
    """Names with a slash are common (`owner/repository`), and checkpoints go by them."""
    first = [Partition(name, {"one": name}) for name in ("a", "a/b")]
    second = [Partition(name, {"two": name}) for name in ("b/c", "c")]
    declared = {"key": ("one", "two", "id"), "partition_columns": ("one", "two")}
    with pytest.raises(ConfigurationError, match="two partitions 'a/b/c'"):
        resource(partitions=product(first, second), **declared)
    known = resource(partitions=product(first, second[1:]), **declared)
    assert [each.name for each in known.partitions] == ["a/c", "a/b/c"]


def test_partitions_of_one_name_are_told() -> None:
    with pytest.raises(ConfigurationError, match="two partitions 'London'"):
        resource(
            key=("city", "id"),
            partitions=(LONDON, PARIS, replace(LONDON)),
            partition_columns=("city",),
        )


MIDNIGHT = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        pytest.param(
            {"start": datetime(2024, 1, 1)},  # noqa: DTZ001 (what is refused)
            r"start.*2024-01-01.*no time zone.*tzinfo=timezone\.utc",
            id="no time zone: which midnight?",
        ),
        pytest.param(
            {"start": MIDNIGHT, "step": timedelta()},
            "step=0:00:00.*more than 0",
            id="slices of nothing, without end",
        ),
        pytest.param(
            {"start": MIDNIGHT, "step": timedelta(days=-1)},
            "step=-1 day.*more than 0",
            id="slices that go back, without end",
        ),
        pytest.param(
            {"lookback": timedelta(seconds=-1)},
            "lookback=-1 day.*0 or more",
            id="a look ahead, which leaves records out",
        ),
        pytest.param({"slack": timedelta(days=-2)}, "slack=-2 days.*0 or more", id="no slack"),
    ],
)
def test_a_cursor_that_could_not_be_read_by_is_refused(declared: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Cursor\('updated_at'\).*{says}"):
        Cursor("updated_at", **declared)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"max_pages": 0}, "max_pages=0.*1 or more"),
        ({"max_pages": -1}, "max_pages=-1.*1 or more"),
        ({"max_empty_pages": 0}, "max_empty_pages=0.*1 or more"),
        ({"checkpoint_rows": 0}, "checkpoint_rows=0.*1 or more"),
        ({"checkpoint_seconds": -1.0}, r"checkpoint_seconds=-1\.0.*0 or more"),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds=nan.*0 or more"),
        ({"max_rejects": -1}, "max_rejects=-1.*0 or more"),
        ({"max_shrinkage": 1.5}, r"max_shrinkage=1\.5 is not a share from 0 to 1"),
    ],
)
def test_a_limit_that_nothing_could_keep_is_refused(declared: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=f"orders: {says}"):
        resource(**declared)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("connect_timeout_seconds", 0),
        ("read_timeout_seconds", -1),
        ("answer_timeout_seconds", 0),
        ("max_wait_seconds", -1),
        ("max_body_bytes", 0),
    ],
)
def test_a_limit_of_a_source_is_refused_in_the_same_way(name: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"'shop': {name}={value} .*more"):
        Source("shop", "https://api.test/", (), **{name: value})


@pytest.mark.parametrize("paging", [offset(), page_number()], ids=["offset", "page number"])
def test_reading_on_by_a_number_is_refused(paging: Any) -> None:
    """Other records take the places of those that have changed since."""
    with pytest.raises(ConfigurationError, match=r"orders: .*max_pages.*keyset"):
        resource(paging=paging, max_pages=2, cursor=Cursor("at"))
    resource(paging=paging, max_pages=2)
    resource(paging=paging, max_pages=2, cursor=Cursor("at"), disposition="replace")
    resource(paging=keyset("id", param="after"), max_pages=2, cursor=Cursor("at"))


def test_the_smallest_limits_are_accepted() -> None:
    least = resource(
        cursor=Cursor("at", timedelta(), MIDNIGHT, timedelta(seconds=1), timedelta()),
        max_pages=1,
        max_empty_pages=1,
        checkpoint_rows=1,
        checkpoint_seconds=0,
        max_rejects=0,
        max_shrinkage=0,
    )
    assert Source("shop", "https://api.test/", (least,), max_wait_seconds=0).resources == (least,)


CITIES = (LONDON, PARIS)
BY_ORDER = RowsOf("orders", {"order": "id"})


@pytest.mark.parametrize(
    ("declared", "write"),
    [
        pytest.param(
            {"partitions": BY_ORDER, "key": ("line",)},
            r"partition_columns=\('order',\) and key=\('order', 'line'\)",
            id="nothing",
        ),
        pytest.param(
            {"partitions": BY_ORDER, "key": ("line",), "partition_columns": ("order",)},
            r"key=\('order', 'line'\)",
            id="no place in the key",
        ),
        pytest.param(
            {"partitions": BY_ORDER, "key": ("order", "line")},
            r"partition_columns=\('order',\)",
            id="no column",
        ),
        pytest.param(
            {"partitions": BY_ORDER, "key": ("line",), "key_is_global": True},
            r"partition_columns=\('order',\)",
            id="no column, and a key that is unique everywhere",
        ),
        pytest.param(
            {"partitions": BY_ORDER, "key": (), "disposition": "append"},
            r"partition_columns=\('order',\)",
            id="no column for what is appended, which full_refresh would delete",
        ),
        pytest.param(
            {"partitions": CITIES, "key": ("id",), "partition_columns": ("city",)},
            r"key=\('city', 'id'\)",
            id="two stores, cities or accounts",
        ),
        pytest.param(
            {"partitions": CITIES, "key": ("id",), "disposition": "replace"},
            r"partition_columns=\('city',\) and key=\('city', 'id'\)",
            id="replaced",
        ),
    ],
)
def test_rows_are_told_apart_by_partition(declared: dict[str, Any], write: str) -> None:
    """Or the rows of the last partition replace the others', at every load again."""
    with pytest.raises(ConfigurationError, match=rf"orders.*Write {write}[.;]"):
        resource(**declared)


@pytest.mark.parametrize(
    "declared",
    [
        {"key": ("line", "order"), "partitions": BY_ORDER, "partition_columns": ("order",)},
        {
            "key": ("id",),
            "partitions": BY_ORDER,
            "partition_columns": ("order",),
            "key_is_global": True,
        },
        {"key": (), "partitions": BY_ORDER, "partition_columns": ("order",)},
        {"key": ("city", "id"), "partitions": CITIES, "partition_columns": ("city",)},
        {"key": ("id",), "partitions": (LONDON,), "partition_columns": ("city",)},
    ],
)
def test_such_keys_are_accepted(declared: dict[str, Any]) -> None:
    assert resource(**declared).key == declared["key"]


def test_the_remedy_names_key_is_global_for_globally_unique_keys() -> None:
    with pytest.raises(ConfigurationError, match=r"key_is_global=True, if .* \('id',\) "):
        resource(partitions=CITIES, partition_columns=("city",))


def test_partitions_without_values_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no values.*partition_columns"):
        resource(partitions=(Partition("north"), Partition("south")))


def test_a_key_is_global_only_where_there_is_one() -> None:
    with pytest.raises(ConfigurationError, match=r"key_is_global.*no key"):
        resource(key=(), key_is_global=True)


def test_partition_columns_with_equal_values_in_two_partitions_are_refused() -> None:
    """A full refresh of one would delete the rows of the other."""
    shops = [Partition(name, {"city": "London", "shop": name}) for name in ("north", "south")]
    with pytest.raises(
        ConfigurationError, match=r"'north' and 'south'.*same.*city.*have: city, sh"
    ):
        resource(key=("city", "id"), partitions=tuple(shops), partition_columns=("city",))


def test_a_declaration_is_checked_once_and_not_for_every_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A load guards its resource for every page; checks take time for each of its partitions."""
    days = tuple(Partition(str(day), {"day": day}) for day in range(9))
    declared = Resource("days", "{day}", records_at(), partitions=days, partition_columns=("day",))
    checked: list[Resource] = []
    monkeypatch.setattr(Resource, "__post_init__", lambda resource: checked.append(resource))
    guarded = with_guards(declared)
    assert guarded.records is not declared.records
    assert guarded.partitions is declared.partitions
    assert checked == []
