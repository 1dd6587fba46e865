"""Tells what is unusual about a source's loads: in the run's log, and by an event in Prefect.

The deployment `notify` sends a message for the event (prefect.yaml).
"""

from prefect import get_run_logger
from prefect.events import emit_event
from prefect.events.worker import EventsWorker

from blocks.warehouse import Warehouse
from flows.load import anomalies

ANOMALIES = "elt.anomalies"
SHOWN_ANOMALIES = 20
SENT_WITHIN_SECONDS = 30


def tell_anomalies(database: Warehouse, source: str) -> None:
    """Tell all anomalies of a source that no run has told yet, also those of a run that was killed.

    The event is sent first: if the run is killed before the commit, the next one tells them again.
    While Prefect is away, the run waits for up to SENT_WITHIN_SECONDS, and leaves the rest to the
    log and the table.
    """
    with database.transaction() as cursor:
        if found := anomalies.tell(cursor, source):
            shown = found[:SHOWN_ANOMALIES]
            more = len(found) - len(shown)
            text = "\n".join([*shown, *([f"and {more} more (elt.anomalies)"] if more else [])])
            emit_event(
                ANOMALIES,
                resource={
                    "prefect.resource.id": f"elt.source.{source}",
                    "prefect.resource.name": source,
                },
                payload={"anomalies": text},
            )
            # `emit_event` only hands it to a thread, which a kill would end.
            EventsWorker.drain_all(timeout=SENT_WITHIN_SECONDS)
            get_run_logger().warning("%d anomalies:\n%s", len(found), text)
