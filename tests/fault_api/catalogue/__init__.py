"""The catalogue: one small list in every paging style, body format and login that APIs have."""
