"""How fast HTTP pages reach Postgres: this project beside plain COPY, dlt and pandas."""
