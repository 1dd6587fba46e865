"""Pages in, raw tables out: no HTTP, no Prefect."""
