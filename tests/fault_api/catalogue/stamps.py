"""Other forms of the rows' times: milliseconds in a nested field, and text in local time."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.fault_api.catalogue.items import Row
from tests.fault_api.exchange import AskError

BERLIN = ZoneInfo("Europe/Berlin")
LOCAL = "%d.%m.%Y %H:%M"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def stamped(row: Row, form: str) -> Row:
    """A row with its time in another form.

    Raises:
        AskError: when there is no such form.
    """
    fields: dict[str, Any] = dict(row)
    at = datetime.fromisoformat(fields.pop("updated_at").replace("Z", "+00:00"))
    if form == "ms":
        return {**fields, "changed": {"ms": (at - EPOCH) // MILLISECOND}}
    if form == "local":
        return {**fields, "changed": at.astimezone(BERLIN).strftime(LOCAL)}
    raise AskError(f"There is no form {form!r}; there are ms and local.")


def moment(text: str, form: str) -> datetime:
    """The time that a request names in this form."""
    if form == "ms":
        return EPOCH + int(text) * MILLISECOND
    return datetime.strptime(text, LOCAL).replace(tzinfo=BERLIN)
