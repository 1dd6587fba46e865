"""HTTP in, pages out: no Postgres, no Prefect."""
