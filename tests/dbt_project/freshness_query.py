"""The query of the macro `last_loaded_at`, without dbt."""

from jinja2 import Environment

from tests.dbt_project.running_dbt import PROJECT

MACRO = PROJECT / "macros/last_loaded_at.sql"


def freshness_query(source: str, resource: str) -> str:
    """As dbt sends it for a table of a source."""
    known = {
        "source_node": {"source_name": source, "name": resource},
        "builtins": {"source": "{}.{}".format},
    }
    environment = Environment(autoescape=False)  # noqa: S701 (SQL, and ours)
    return environment.from_string(MACRO.read_text() + "{{ last_loaded_at() }}", known).render()
