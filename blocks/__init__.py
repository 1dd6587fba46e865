"""Prefect blocks that the flows connect with, created from environment variables."""
