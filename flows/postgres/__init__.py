"""The way to Postgres: its address, and what every session begins with."""
