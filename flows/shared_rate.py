"""A source's rate limit across processes: slots of a global concurrency limit in Prefect."""

from collections.abc import Callable
from functools import partial

from prefect import get_client
from prefect.concurrency.sync import rate_limit
from prefect.exceptions import ObjectNotFound

from flows.source import Rate, Source

# The share of the rate that may be used at once, after a time without requests.
BURST = 0.2
# A request is sent a little later than its slot was taken, so two windows' requests may come close.
CAUTION = 0.95


def turn_of(source: Source) -> Callable[[], None]:
    """Takes a slot of the limit with the source's name; nothing without a rate or such a limit."""
    if source.rate is None:
        return lambda: None
    with get_client(sync_client=True) as prefect:
        try:
            prefect.read_global_concurrency_limit_by_name(source.name)
        except ObjectNotFound:
            return lambda: None
    return partial(rate_limit, source.name)


def share_rate(source: Source) -> None:
    """Create or correct the limit in Prefect, so that all processes together keep the rate."""
    if source.rate is None:
        return
    with get_client(sync_client=True) as prefect:
        prefect.upsert_global_concurrency_limit_by_name(source.name, *slots_for(source.rate))


def slots_for(rate: Rate) -> tuple[int, float]:
    """How many slots the limit has, and how many become free per second.

    In any window of the rate, at most the sum of both is taken; a single slot becomes free only
    after its time.
    """
    burst = max(1, int(rate.requests * BURST))
    refill = rate.requests if burst == 1 else rate.requests - burst
    return burst, CAUTION * refill / rate.seconds
