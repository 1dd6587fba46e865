"""What the flows connect with: Prefect blocks, made from the environment."""
