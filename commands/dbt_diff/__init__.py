"""What the working tree's dbt project would make of the warehouse, beside what is published."""
