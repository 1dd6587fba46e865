"""The catalogue's rows, invented, the same every time; in the order of their ids and times."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

Row = Mapping[str, Any]

ITEM_COUNT = 25
FIRST_UPDATE = datetime(2024, 1, 1, 6, tzinfo=UTC)
NAMES = ("Lamp", "Café table", 'Desk, 48"', "Shelf", "Chair; oak")


def items(count: int = ITEM_COUNT) -> tuple[Row, ...]:
    """Items 1 to `count`, updated one a day, at six in the morning UTC."""
    return tuple(item(number) for number in range(1, count + 1))


def item(number: int) -> Row:
    """Some names hold a comma, a quote or a letter beyond ASCII."""
    return {
        "id": number,
        "name": f"{NAMES[number % len(NAMES)]} {number}",
        "price": number * 1.25,
        "updated_at": written(FIRST_UPDATE + timedelta(days=number - 1)),
    }


def written(moment: datetime) -> str:
    """A UTC time as `2024-01-01T06:00:00Z`: sorted as text, sorted in time."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
