"""Raw tables in, published marts out: what is stale, dbt's process, publishing. No Prefect."""
