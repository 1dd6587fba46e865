"""What `make deploy` refuses in prefect.yaml and automations.yaml before it asks a server."""
