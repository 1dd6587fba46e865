"""`make new-source`: write a source module, its dbt files and its tests from an API's response."""
