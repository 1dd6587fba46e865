"""One module per Make target for development: each answers `make <target>` on this machine."""
