"""The pipeline: HTTP APIs into Postgres, then dbt marts, run by Prefect."""
