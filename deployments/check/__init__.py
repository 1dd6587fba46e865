"""Checks of prefect.yaml and automations.yaml, which `make deploy` runs before any request."""
