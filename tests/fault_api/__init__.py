"""A server for tests: an API and a catalogue, with faults planned request by request."""
