"""Connections to Postgres, and what loads and builds share there: locks, schemas, grants, views."""
