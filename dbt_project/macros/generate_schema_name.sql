{#- A custom schema is used as it is (`marts`), not added to the target's (`analytics_marts`).
    What is built to be tested first goes to `marts__audit`, and is published from there by
    flows/build; snapshots hold history that can't be built again, and have one place. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set schema = (custom_schema_name or target.schema) | trim -%}
    {%- if node.resource_type == 'snapshot' -%}
        {{ schema }}
    {%- else -%}
        {{ schema }}{{ env_var('WAREHOUSE_SCHEMA_SUFFIX', '') }}
    {%- endif -%}
{%- endmacro %}
