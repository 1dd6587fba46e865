"""The tags that flows give to the runs they start. Those of deployments are in prefect.yaml."""

# Loads a chunk of a backfill.
CHUNK = "backfill-chunk"
# A part of another run's work, which fails if this one does: `notify` leaves it to that one.
REPORTED_BY_PARENT = "reported-by-parent"
