"""The local stack that `make run-local` starts."""
