"""Numbers for `numeric` columns: kept digit for digit, never silently rounded."""

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from flows.page import ExactNumber

_NUMERIC = re.compile(r"numeric(?:\((?P<precision>\d+),(?P<scale>-?\d+)\))?")

ColumnsOf = Callable[[Iterable[str]], Mapping[str, str]]
# The number of decimals that a column takes; None for any.
Scales = Mapping[str, int | None]


class Numerics:
    """The `numeric` columns of a raw table."""

    def __init__(self, pins: Mapping[str, str], columns_of: ColumnsOf) -> None:
        """`pins` are types by column, as Postgres writes them."""
        self._columns_of = columns_of
        self._scales: dict[str, int | None] = {}
        for column, kind in pins.items():
            if numeric := _NUMERIC.fullmatch(kind):
                self._scales[column] = int(numeric["scale"]) if numeric["scale"] else None

    def __bool__(self) -> bool:
        return bool(self._scales)

    def scales(self, fields: Iterable[str]) -> Scales:
        """The scale of each of the fields with a `numeric` column."""
        if not self._scales:
            return {}
        names = self._columns_of(fields)
        return {
            field: self._scales[column] for field, column in names.items() if column in self._scales
        }


NO_NUMERICS = Numerics({}, lambda _: {})


def fits(value: Any, scale: int) -> bool:
    """Whether a column of that scale holds a value exactly; True for what is not a number."""
    if value is None or isinstance(value, bool | dict | list):
        return True
    try:
        number = value if isinstance(value, Decimal) else Decimal(digits_of(value))
    except InvalidOperation:
        return True
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent >= -scale or not number:
        return True
    digits = "".join(map(str, number.as_tuple().digits))
    return exponent + len(digits) - len(digits.rstrip("0")) >= -scale


def digits_of(value: object) -> str:
    """A number as the API wrote it."""
    return value.digits if isinstance(value, ExactNumber) else str(value)
