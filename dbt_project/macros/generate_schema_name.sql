{#- A custom schema is used as it is (`marts`), not added to the target's (`analytics_marts`).
    What is built to be tested first goes to `marts__audit`, and is published from there by
    flows/dbt_build. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}{{ env_var('WAREHOUSE_SCHEMA_SUFFIX', '') }}
{%- endmacro %}
