"""The cursors of Airbyte's manifests that have a counterpart here."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from commands.new_source.airbyte_component import Component
from commands.new_source.literals import Call

_FORMATS = {"%s": "epoch_s", "%ms": "epoch_ms", "%epoch_microseconds": "epoch_us"}
_DURATION = re.compile(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_ISO = re.compile(r"(%Y-%m-%d(T%H:%M(:%S(\.%f)?)?(%z|Z|\+00:00)?)?)?")
_UNITS = ("weeks", "days", "hours", "minutes", "seconds")


@dataclass(frozen=True)
class Incremental:
    """The cursor, the parameters that ask for its window, and what to check."""

    cursor: Call | None = None
    params: dict[str, str] = field(default_factory=dict)
    to_check: tuple[str, ...] = ()


def incremental(sync: Component) -> Incremental:
    """A DatetimeBasedCursor; what has no counterpart is noted."""
    if not sync.node:
        return Incremental()
    cursor_field = sync.text("cursor_field")
    if sync.type != "DatetimeBasedCursor" or not cursor_field:
        sync.lose(sync.type or "cursor_field")
        return Incremental()
    sync.lose_other(
        "cursor_field", "datetime_format", "cursor_datetime_formats", "start_datetime",
        "start_time_option", "end_time_option", "lookback_window", "cursor_granularity", "step",
        "end_datetime",
    )  # fmt: skip
    form, form_of_records = _forms(sync)
    named, doubt = _arguments(sync, form_of_records)
    suffix = "" if form in ("", form_of_records) else f":{form}"
    params = {
        name: f"{{{end}{suffix}}}"
        for option, end in (("start_time_option", "since"), ("end_time_option", "last"))
        if (name := _param(sync.child(option)))
    }
    if not params:
        doubt = (*doubt, "the cursor: no parameter asks for its window; every load reads all")
    return Incremental(Call("Cursor", (cursor_field,), named), params, doubt)


def _arguments(sync: Component, form: str) -> tuple[dict[str, object], tuple[str, ...]]:
    """The cursor's arguments, and what to check."""
    start, doubt = _start(sync)
    step = _timedelta(sync, "step")
    if step is not None and start is None:
        sync.lose("step")
    known = {
        "format": None if form == "iso" else form,
        "start": start,
        "lookback": _timedelta(sync, "lookback_window"),
        "step": step if start is not None else None,
    }
    return {name: value for name, value in known.items() if value is not None}, doubt


def _forms(sync: Component) -> tuple[str, str]:
    """The formats of times in requests and in records; `iso` reads all of ISO's forms."""
    form = sync.text("datetime_format")
    listed = sync.node.get("cursor_datetime_formats")
    of_records = listed[0] if isinstance(listed, list) and listed else form
    is_iso = _ISO.fullmatch(str(of_records)) is not None
    known = _FORMATS.get(str(of_records), str(of_records))
    return _FORMATS.get(form, form), "iso" if is_iso else known


def _start(sync: Component) -> tuple[Call | None, tuple[str, ...]]:
    """The start of the first load, if it is a time and not an option of Airbyte's."""
    value = sync.node.get("start_datetime")
    text = value if isinstance(value, str) else sync.child("start_datetime").value("datetime")
    try:
        at = datetime.fromisoformat(text if isinstance(text, str) else "")
    except ValueError:
        return None, ("the cursor's start: an option of Airbyte's; the first load reads all",)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return Call("datetime.fromisoformat", (at.isoformat(),)), ()


def _timedelta(sync: Component, name: str) -> Call | None:
    text = sync.text(name)
    found = _DURATION.fullmatch(text)
    if not text or text == "P":
        return None
    if found is None:
        sync.lose(f"{name}: {text}")
        return None
    named = {unit: int(each) for unit, each in zip(_UNITS, found.groups(), strict=True) if each}
    return Call("timedelta", (), named) if any(named.values()) else None


def _param(option: Component) -> str:
    if option.node and option.text("inject_into") != "request_parameter":
        option.lose("inject_into")
        return ""
    return option.text("field_name")
