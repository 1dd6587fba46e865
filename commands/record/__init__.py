"""`make record`: real answers of an API, kept small and without secrets, for the tests."""
