"""Columns of a fixed type, pinned or altered by hand: which values they take unchanged.

Postgres changes values without an error: it rounds, cuts and pads them, drops an offset, and reads
dates by its own settings. Such a value is rejected instead. Has no database connection.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from flows.load.numerics import Scales

ColumnsOf = Callable[[Iterable[str]], Mapping[str, str]]

_NUMERIC = re.compile(r"numeric(?:\((?P<precision>\d+),(?P<scale>-?\d+)\))?")
# A type with its modifier in between, e.g. `timestamp(3) with time zone`.
_KIND = re.compile(r"(?P<name>[^(]+?)(?:\((?P<limit>\d+)\)(?P<rest>.*))?")
MICROSECONDS = 6
_NINES = str.maketrans(dict.fromkeys("012345678", "9"))

_DATE = r"(?:\d{4}-\d\d-\d\d|\d{8})"
_OFFSET = r"(?: ?(?:[Zz]|UTC|[+-]\d\d(?::?\d\d)?))"
_NO_OFFSET = r"(?: ?(?:[Zz]|UTC|[+-]00(?::?00)?))"
_MIDNIGHT = rf"00:?00(?::?00(?:\.0+)?)?{_NO_OFFSET}?"
_UNITS = r"(?:year|mon|month|week|day|hour|min|minute|sec|second)s?"
_DURATION = r"P(?=\w)(?:-?\d+[YMWD])*(?:T(?=[\d-])(?:-?\d+[HM])*(?:-?\d+{fraction}S)?)?"


@dataclass(frozen=True)
class Form:
    """The texts that a type takes unchanged.

    Attributes:
        kind: the type, as Postgres writes it.
        pattern: those texts. It restricts a digit to 0 or not at all, so a text matches if it does
            with each of its digits replaced by a 9. Postgres itself refuses a 25th hour.
        takes: those texts in words.
        longest: texts up to so many characters all match; 0 for none.
    """

    kind: str
    pattern: re.Pattern[str]
    takes: str
    longest: int = 0

    def takes_all(self, texts: Iterable[str | None]) -> bool:
        """Whether each of the texts is one of them; None is a null.

        Dates and times have few shapes, so most of them need no match of their own.
        """
        given = [text for text in texts if text is not None]
        if not given or (self.longest and max(map(len, given)) <= self.longest):
            return True
        shapes = {*"\0".join(given).translate(_NINES).split("\0")}
        return any(all(map(self.pattern.fullmatch, each)) for each in (shapes, given))


@dataclass(frozen=True)
class PinnedFields:
    """The fields of some records that have a column of a fixed type.

    Attributes:
        scales: of those with a `numeric` column.
        forms: of those with a column that would change other texts.
    """

    scales: Scales
    forms: Mapping[str, Form]

    def __bool__(self) -> bool:
        return bool(self.scales or self.forms)


NO_FIELDS = PinnedFields({}, {})


class Pins:
    """The columns of a raw table that would change some values."""

    def __init__(self, pins: Mapping[str, str], columns_of: ColumnsOf) -> None:
        """`pins` are types by column, as Postgres writes them."""
        self._columns_of = columns_of
        self._scales: dict[str, int | None] = {}
        self._forms: dict[str, Form] = {}
        for column, kind in pins.items():
            if numeric := _NUMERIC.fullmatch(kind):
                self._scales[column] = int(numeric["scale"]) if numeric["scale"] else None
            elif form := form_of(kind):
                self._forms[column] = form

    @property
    def keeps_digits(self) -> bool:
        """Whether numbers have to be read digit for digit."""
        return bool(self._scales)

    def of(self, fields: Iterable[str]) -> PinnedFields:
        """Those of the fields that have such a column."""
        if not self._scales and not self._forms:
            return NO_FIELDS
        names = self._columns_of(fields)
        return PinnedFields(
            {field: self._scales[name] for field, name in names.items() if name in self._scales},
            {field: self._forms[name] for field, name in names.items() if name in self._forms},
        )


NO_PINS = Pins({}, lambda _: {})


@cache
def form_of(kind: str) -> Form | None:
    """The form of a type's texts; None if it changes none, or none that we know of.

    A type of floating-point numbers is approximate by nature. A `uuid` has no case, and a number no
    leading zeros.
    """
    found = _KIND.fullmatch(kind)
    if found is None or kind == "character varying":
        return None
    name = found["name"] + (found["rest"] or "")
    described = _FORMS.get(name)
    if described is None:
        return _interval_of_fields(kind) if kind.startswith("interval ") else None
    size = int(found["limit"]) if found["limit"] else None
    pattern, takes = described(size)
    longest = size or 0 if name == "character varying" else 0
    return Form(kind, re.compile(pattern, re.ASCII | re.DOTALL), takes, longest)


def _interval_of_fields(kind: str) -> Form:
    """No text, since each could have fields that the type drops."""
    return Form(kind, re.compile("(?!)"), "intervals cut to some fields: pin it as `interval`")


def _boolean(_: int | None) -> tuple[str, str]:
    return "[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee]", "true and false"


def _date(_: int | None) -> tuple[str, str]:
    return rf"{_DATE}(?:[Tt ]{_MIDNIGHT})?", "dates in ISO 8601 (2026-04-03)"


def _timestamp(limit: int | None) -> tuple[str, str]:
    pattern = rf"{_DATE}(?:[Tt ]{_time_pattern(limit)}{_NO_OFFSET}?)?"
    return pattern, f"times in ISO 8601 without an offset{_decimals(limit)}"


def _timestamptz(limit: int | None) -> tuple[str, str]:
    pattern = rf"{_DATE}(?:[Tt ]{_time_pattern(limit)}{_OFFSET}?)?"
    return pattern, f"times in ISO 8601 (2026-04-03T09:30:00Z){_decimals(limit)}"


def _time(limit: int | None) -> tuple[str, str]:
    return _time_pattern(limit), f"times of day such as 09:30:00{_decimals(limit)}"


def _timetz(limit: int | None) -> tuple[str, str]:
    return f"{_time_pattern(limit)}{_OFFSET}?", f"times of day such as 09:30:00Z{_decimals(limit)}"


def _interval(limit: int | None) -> tuple[str, str]:
    fraction = _fraction(limit)
    clock = rf"[+-]?\d+:\d\d:\d\d{fraction}"
    units = rf"(?:[+-]?\d+ {_UNITS}(?: |$))*(?:{clock})?"
    pattern = rf"(?=.){units}|{_DURATION.replace('{fraction}', fraction)}"
    return pattern, f"durations in ISO 8601, or such as 3 days 04:05:06{_decimals(limit)}"


def _character(limit: int | None) -> tuple[str, str]:
    size = limit or 1
    return f".{{{size - 1}}}[^ ]", f"exactly {size} characters, the last one not a space"


def _varchar(limit: int | None) -> tuple[str, str]:
    return f".{{0,{limit}}}", f"at most {limit} characters"


def _char(_: int | None) -> tuple[str, str]:
    return "[\x01-\x7f]?", "one ASCII character"


def _money(_: int | None) -> tuple[str, str]:
    return r"-?\d+(?:\.\d{1,2}0*)?", "at most 2 decimals"


_FORMS: Mapping[str, Callable[[int | None], tuple[str, str]]] = {
    "boolean": _boolean,
    "date": _date,
    "timestamp without time zone": _timestamp,
    "timestamp with time zone": _timestamptz,
    "time without time zone": _time,
    "time with time zone": _timetz,
    "interval": _interval,
    "character": _character,
    "character varying": _varchar,
    '"char"': _char,
    "money": _money,
}


def _time_pattern(limit: int | None) -> str:
    fraction = _fraction(limit)
    return rf"\d\d(?::\d\d(?::\d\d{fraction})?|\d{{4}}{fraction})"


def _fraction(limit: int | None) -> str:
    digits = MICROSECONDS if limit is None else limit
    return rf"(?:\.\d{{1,{digits}}}0*)?" if digits else r"(?:\.0+)?"


def _decimals(limit: int | None) -> str:
    return f", with at most {MICROSECONDS if limit is None else limit} decimals of a second"
