"""From raw tables to published marts: select, run dbt, publish. Does not know Prefect."""
