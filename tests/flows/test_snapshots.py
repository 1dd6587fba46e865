"""Snapshots contain exactly the versions that passed their tests."""

from collections.abc import Callable

import pytest

from flows.elt import elt
from flows.transform import transform

Ask = Callable[..., list[tuple]]

NEEDED = ("customers", "products", "categories", "suppliers")
VERSIONS = """
select phone, dbt_valid_to is null, dbt_valid_from = loaded_at
from snapshots.snp_market__customers
where customer_id = %s order by dbt_valid_from
"""
CALLED = "update raw_market.customers set phone = %s, _loaded_at = now() where customer_id = %s"
SUPPLIED = "update raw_market.products set supplier_id = %s where product_id = 1"


@pytest.mark.long
def test_a_changed_customer_has_two_versions_once_the_change_has_passed(ask: Ask) -> None:
    assert elt(source="market", resources=NEEDED, transform=False, return_state=True).is_completed()
    ((customer,),) = ask("select min(customer_id) from raw_market.customers")
    ((supplier,),) = ask("select supplier_id from raw_market.products where product_id = 1")
    transform()
    ((phone, *first),) = ask(VERSIONS, customer)
    assert first == [True, True]

    ask(CALLED, "wrong", customer)
    ask(SUPPLIED, 999)
    assert transform(return_state=True).is_failed()
    assert ask(VERSIONS, customer) == [(phone, True, True)]

    ask(CALLED, "right", customer)
    ask(SUPPLIED, supplier)
    transform(full_refresh=True)
    assert ask(VERSIONS, customer) == [(phone, False, True), ("right", True, True)]
