"""The tally of a load: pages, records and rejects until they are in its ledger entry."""

from psycopg2.extensions import cursor as Cursor

from flows.errors import BadPayloadError, ConfigurationError
from flows.load import anomalies, ledger, reject_log
from flows.load.batch import Reject
from flows.load.ledger import Address, Counts
from flows.load.merge import WriteCounts
from flows.load.parse import ParsedPiece
from flows.load.size_limits import rejects_bytes
from flows.load.table_schema import ColumnChange
from flows.source import Resource
from flows.traffic import NO_TRAFFIC

MISFITS = 100


class Tally:
    """What a load has counted since it last wrote to its entry, and its rejects.

    Attributes:
        first_reject: the first reject of the whole load.
        traffic: the requests since it last wrote to its entry.
        filled: the fields that had a value in any record of the whole load.
        is_first: whether no load of the resource had stored records before.
    """

    def __init__(self, address: Address, resource: Resource, load_id: int) -> None:
        self.first_reject: Reject | None = None
        self.traffic = NO_TRAFFIC
        self.filled: set[str] = set()
        self.is_first = False
        self._address = address
        self._resource = resource
        self._load_id = load_id
        self._rejects: list[Reject] = []
        self._misfits = 0
        self._pages = 0
        self._filtered = 0

    def take(self, piece: ParsedPiece) -> None:
        """Count a piece, and keep its rejects. Raises as `reject` does."""
        for reject in piece.rejects:
            self.reject(reject)
        self._pages += piece.ends_page
        self._filtered += piece.filtered
        self.traffic += piece.traffic
        self.filled |= piece.filled

    def reject(self, reject: Reject) -> None:
        """Keep a record that could not be stored.

        Raises:
            ConfigurationError: when there are so many that the declaration must be wrong.
        """
        self._rejects.append(reject)
        self.first_reject = self.first_reject or reject
        self._misfits += reject.is_misfit
        if self._misfits > max(MISFITS, self._resource.max_rejects):
            raise ConfigurationError(
                f"{self._address}: {self._misfits} records can't be stored, the last one because "
                f"it {reject.reason}: {reject.excerpt}. Correct the resource's `columns`, `key`, "
                "`records` or `contract`, or raise max_rejects."
            )

    def account(
        self, cursor: Cursor, count: int, written: WriteCounts, changes: list[ColumnChange]
    ) -> None:
        """Add what was counted since the last time, and `count` written records, to the entry."""
        counts = Counts(
            pages=self._pages,
            extracted=count + len(self._rejects),
            inserted=written.inserted,
            updated=written.updated,
            unchanged=count - written.inserted - written.updated,
            rejected=len(self._rejects),
            deleted=written.deleted,
            filtered=self._filtered,
            **vars(self.traffic),
        )
        ledger.add_counts(cursor, self._load_id, counts)
        reject_log.add(cursor, self._load_id, self._rejects)
        ledger.add_schema_changes(cursor, self._load_id, str(self._address), changes)
        if not self.is_first:
            anomalies.add_schema_changes(cursor, self._load_id, changes)
        self._pages, self._filtered, self._rejects, self.traffic = 0, 0, [], NO_TRAFFIC

    def rejected(self, cursor: Cursor) -> int:
        """The number of rejects of the whole load."""
        return ledger.entry(cursor, self._load_id).rejected + len(self._rejects)

    @property
    def rejects_bytes(self) -> int:
        """The memory that the rejects take."""
        return rejects_bytes(self._rejects)

    def error(self, cursor: Cursor) -> BadPayloadError | None:
        """The error if the load has more rejects than its resource allows."""
        rejected = self.rejected(cursor)
        if rejected <= self._resource.max_rejects:
            return None
        return BadPayloadError(
            f"{self._address}: {rejected} records could not be stored, "
            f"{_first_reason(self.first_reject)}. "
            f"All others are loaded. See elt.rejects where load_id = {self._load_id}. Correct the "
            "declaration and replay them, ask the API's owner, or raise max_rejects."
        )


def _first_reason(reject: Reject | None) -> str:
    return f"the first because it {reject.reason}: {reject.excerpt}" if reject else ""
