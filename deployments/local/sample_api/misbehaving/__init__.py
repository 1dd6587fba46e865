"""The misbehaving mode: tests plan what goes wrong, request by request; off unless asked for."""
