"""One module per Make target for development; each implements `make <target>`."""
