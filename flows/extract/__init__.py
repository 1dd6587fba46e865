"""HTTP in, pages out. Knows nothing of Postgres or Prefect."""
