"""Compares the relations that the working tree's dbt project builds with the published ones."""
