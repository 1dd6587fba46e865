"""The cursor of one load: how far its pages have come, and where it stands after them."""

import logging
from datetime import datetime

from flows.errors import ConfigurationError
from flows.load.checkpoints import Checkpoint, CursorValue
from flows.load.cursor_values import moved, name_of, newest, of_rejects
from flows.load.ledger import Address
from flows.load.options import LoadOptions
from flows.load.parse import PageParser, ParsedPiece
from flows.source import Resource, Window

log = logging.getLogger(__name__)


class CursorPosition:
    """How far the cursor has come in a load.

    Attributes:
        seen: the newest value so far, also of the load that this one resumes; or the newest token.
        field: the field or header of these values.
    """

    def __init__(self, address: Address, resource: Resource, options: LoadOptions) -> None:
        self.seen: CursorValue | None = None
        self.field = name_of(resource.cursor)
        self._address = address
        self._resource = resource
        self._options = options
        self._lacks_token = False
        self._ahead: frozenset[datetime] = frozenset()

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from an earlier load."""
        self.seen = checkpoint.seen
        self.field = self.field or checkpoint.field

    def take(self, piece: ParsedPiece) -> None:
        """Note the values of a piece."""
        self.seen = newest([self.seen, piece.values.newest])
        self._ahead |= piece.values.ahead
        if piece.token is not None:
            self.seen, self._lacks_token = piece.token or None, not piece.token

    def end(self, window: Window) -> None:
        """Note that all pages are read: an append has come to the end of its window."""
        if self._resource.writes == "append" and window.until is not None:
            self.seen = window.until

    def after(self, before: CursorValue | None, window: Window, moves: bool) -> CursorValue | None:
        """Where the cursor stands; if all rows were replaced, what it said before does not count.

        An API may have begun its numbers again, or corrected a wrong date.
        """
        if self._options.by_hand:
            return before
        if self._options.disposition_of(self._resource) != "replace":
            return moved(before, self.seen, window) if moves else before
        seen = moved(None, self.seen, window)
        return seen if moves else of_rejects(before, seen)

    def error(self, reader: PageParser) -> ConfigurationError | None:
        """The error if the cursor is missing, because then every load reads everything.

        It is an error because nobody reads a nightly warning. An append's cursor moves with its
        windows and does not need the field.
        """
        if self._lacks_token:
            return ConfigurationError(
                f"{self._address}: the last page has no token at {self.field!r}, so each load "
                "would read the same again. All records are loaded. Correct the resource's "
                "`cursor`, or remove it."
            )
        field = reader.missing_cursor()
        if field is None or self.seen is not None or self._resource.writes == "append":
            return None
        return ConfigurationError(
            f"{self._address}: no record has the cursor field {field!r}, so each load would read "
            "everything. All records are loaded. Correct the resource's `cursor`, or remove it. "
            f"The records have: {', '.join(reader.fields)[:500]}."
        )

    def warn_of_future(self) -> None:
        """Log which values are too far in the future to move the cursor."""
        if self._ahead:
            log.warning(
                "%s: %d values of the cursor field are too far in the future, up to %s. They are "
                "loaded, but do not move the cursor (Cursor.slack).",
                self._address,
                len(self._ahead),
                max(self._ahead),
            )
