{#- A custom schema is used as it is (`marts`), not added to the target's (`analytics_marts`).
    Builds first go to `marts__audit` to be tested; flows/dbt_build publishes them from there. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}{{ env_var('WAREHOUSE_SCHEMA_SUFFIX', '') }}
{%- endmacro %}
