"""Numbers for `numeric` columns: kept digit for digit, never silently rounded."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from flows.page import ExactNumber

# The number of decimals that a column takes; None for any.
Scales = Mapping[str, int | None]


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
